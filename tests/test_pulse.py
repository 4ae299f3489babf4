"""A process's signs of life, as its supervisor's end of the pipe sees them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import pulse


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):  # the test may have closed it
            os.close(end)


def turn(descriptor: str | None, times: int) -> None:
    """Starts the pulse, and lets the loop turn until that many signs are due."""

    async def main() -> None:
        pulse.start(descriptor)
        for _ in range(times):
            await asyncio.sleep(2 * pulse.EVERY_S)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "EVERY_S", 0.001)


def test_a_loop_that_turns_gives_signs_of_life(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    turn(str(writer), times=3)
    assert len(os.read(reader, 100)) >= 3
    assert not os.get_inheritable(writer)


def test_a_loop_that_stands_still_gives_none(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        pulse.start(str(writer))
        os.read(reader, 100)
        threading.Event().wait(10 * pulse.EVERY_S)
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)

    asyncio.run(main())


def test_a_full_pipe_and_a_supervisor_that_is_gone_stop_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65_536))
    turn(str(writer), times=2)
    os.close(reader)
    turn(str(writer), times=2)


def test_without_a_supervisor_nothing_is_written(tmp_path: Path) -> None:
    turn(None, times=1)
    turn("99999", times=1)
    with (tmp_path / "file").open("wb") as other:
        turn(str(other.fileno()), times=2)
    assert (tmp_path / "file").read_bytes() == b""
