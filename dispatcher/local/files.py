"""Small files of the data directory: secrets that only we can read, logs that stay small."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

# A log that grew beyond this is kept once, under ".1", when its server starts again.
LOG_BYTES = 10 * 1024 * 1024


def read_secret(path: Path) -> str | None:
    """Return what the file holds without the closing newline; None when there is no such file."""
    try:
        return path.read_text().rstrip("\n")
    except FileNotFoundError:
        return None


def write_secret(path: Path, text: str) -> None:
    """Write a 0600 file so that a reader finds the old text or the new one, never a part, even after a crash."""
    building = path.with_name(f"{path.name}.new")
    building.unlink(missing_ok=True)
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def open_log(path: Path) -> IO[bytes]:
    """Open a 0600 log for appending, after setting aside one that grew beyond `LOG_BYTES`."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
    log.seek(0, os.SEEK_END)
    return log


def tail(path: Path) -> str:
    """Return the last line of a log, for an error message."""
    lines = Path(path).read_bytes()[-4096:].decode(errors="replace").splitlines()
    return lines[-1] if lines else "it printed nothing."
