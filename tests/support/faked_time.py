"""Clocks of other processes, set by libfaketime while they run; their monotonic clocks go on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("libfaketimeMT.so.1"))

# What the library makes of clock_nanosleep with a monotonic time is EINVAL.
_SLEEP: Final = """
import select
import time

time.sleep = lambda seconds: select.select([], [], [], max(0, seconds)) and None
"""


class FakedClock:
    """The clock of the processes that are started with `environment`. `offset_s` is how far it is from the real one."""

    def __init__(self, folder: Path) -> None:
        if not LIBRARY.exists():
            pytest.skip("libfaketime is not installed")
        folder.mkdir(mode=0o755)
        self._file = folder / "offset"
        (folder / "sitecustomize.py").write_text(_SLEEP)
        self._folder = folder
        self.offset_s = 0
        self.step(0)

    def environment(self, python_path: Path | None = None) -> dict[str, str]:
        """What has a process use this clock; a Python process also needs its own `python_path`."""
        found = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # by it, a thread that waits for Python's lock waits far too long
        }
        return found if python_path is None else found | {"PYTHONPATH": f"{self._folder}{os.pathsep}{python_path}"}

    def step(self, seconds: int) -> None:
        """Sets the clock so much forward, or back."""
        self.offset_s += seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.offset_s:+d}\n")
        new.chmod(0o644)
        new.rename(self._file)

    @contextlib.contextmanager
    def inherited(self) -> Iterator[None]:
        """Has the processes that are started meanwhile use this clock."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            yield
