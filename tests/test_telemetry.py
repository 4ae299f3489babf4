"""The log: one line an event, whatever it holds."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatcher import telemetry

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_log = logging.getLogger("dispatcher.test")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], io.StringIO]]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def set_up(log_format: str, log_level: str) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        telemetry.set_up(log_format=log_format, log_level=log_level)
        return stream

    yield set_up
    root.handlers[:], root.level = before


def test_many_lines_are_written_as_each_alone_would_be(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("text", "info")
    telemetry.info_many(_log, "delivery.attempted", ["attempt=1", "attempt=2"], at=AT)
    assert stream.getvalue() == (
        "2026-01-02T03:04:05.678Z INFO delivery.attempted attempt=1\n"
        "2026-01-02T03:04:05.678Z INFO delivery.attempted attempt=2\n"
    )


def test_many_lines_as_json(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("json", "info")
    _log.info("one")
    telemetry.info_many(_log, "delivery.attempted", ["attempt=1"], at=AT)
    alone, together = (json.loads(line) for line in stream.getvalue().splitlines())
    assert together == {
        "time": AT.isoformat(),
        "level": "INFO",
        "logger": "dispatcher.test",
        "message": "delivery.attempted attempt=1",
    }
    assert set(alone) == set(together)


def test_a_higher_level_silences_them(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("text", "warning")
    telemetry.info_many(_log, "delivery.attempted", ["attempt=1"], at=AT)
    assert stream.getvalue() == ""


def test_control_characters_cannot_forge_a_line(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("text", "info")
    _log.info("claim.failed error=%s", "a\n2026 INFO forged\x1b[2J")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_a_traceback_is_kept(log: Callable[[str, str], io.StringIO]) -> None:
    for log_format in ("text", "json"):
        stream = log(log_format, "info")
        try:
            raise ValueError("why")
        except ValueError:
            _log.exception("attempt.failed_internally")
        assert "ValueError: why" in stream.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
def test_many_lines_that_find_the_disk_full_stop_nobody(monkeypatch: pytest.MonkeyPatch, log) -> None:
    log("text", "info")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(handler, "stream", stream)
    telemetry.info_many(_log, "delivery.attempted", ["attempt=1"], at=AT)
    with pytest.raises(OSError, match="No space left on device"):
        stream.close()
