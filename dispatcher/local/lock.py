"""One system for one data directory."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


class DataDirLock:
    """Holds `<data_dir>/lock` for as long as this process lives: the kernel lets go of it even after a SIGKILL."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Tell whether we hold it."""
        return self._descriptor is not None

    def acquire(self) -> Self:
        """Take the lock without waiting. Raises Unavailable, naming the holder's process, when it is taken."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise Unavailable(
                f"The data directory {self._path.parent} is in use by process {holder}: "
                "stop that one, or set DISPATCHER_DATA_DIR to another folder."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def check(self) -> None:
        """Raises Unavailable, naming the holder's process, when another process holds the lock; makes no file."""
        if self._path.exists():
            with self:
                pass

    def release(self) -> None:
        """Let go of the lock, if it is held. The file stays: removing it would let two holders in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
