"""Small files of the data directory: secrets that only we can read, logs that stay small."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from typing import IO, TYPE_CHECKING

from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

# A log that grew beyond this is kept once, under ".1", when its server starts again.
LOG_BYTES = 10 * 1024 * 1024


class FilesMissing(Unavailable):
    """Files of a server that ran have vanished. To start it again would start it without its data."""


def require(path: Path) -> None:
    """Raises FilesMissing where the file or folder, which was there before, is not there any more."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FilesMissing(
            f"{path} is missing, and was there before: was a volume unmounted? Nothing new is made in its place "
            "until the next start of `dispatcher up`."
        ) from error


def read_secret(path: Path) -> str | None:
    """Return what the file holds without the closing newline; None when there is no such file.

    Raises Unavailable, naming the command that mends it, where others than its owner can get at the file or its folder.
    """
    try:
        folder = open_private(path.parent)
    except FileNotFoundError:
        return None
    try:
        # Not blocking: to open a pipe waits for its writer.
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {_why(error)}. Only a file of your own is read.") from error
    finally:
        os.close(folder)
    try:
        found = os.fstat(descriptor)  # of what was opened: a path could name another file by now
        if not stat.S_ISREG(found.st_mode):
            raise Unavailable(f"{path} is not a file, but a secret is kept there: remove it.")
        _check(path, found, "A secret is in the file", 0o077, "600")
    except Unavailable:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor) as file:
        return file.read().rstrip("\n")


def write_secret(path: Path, text: str) -> None:
    """Write a 0600 file so that a reader finds the old text or the new one, never a part, even after a crash.

    Raises Unavailable where others than its owner can get at the folder.
    """
    building = f"{path.name}.new"
    folder = open_private(path.parent)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(building, dir_fd=folder)
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(building, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def open_private(folder: Path) -> int:
    """Return a descriptor of a folder of ours that nobody else can list or write; whoever calls closes it.

    Others may pass through: as root the servers run under another account, whose files lie inside. Raises Unavailable,
    naming the command that mends it, where others can do more, and FileNotFoundError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise Unavailable(
            f"The data directory {folder} is another user's: run this as that user, or set DISPATCHER_DATA_DIR."
        ) from error
    try:
        _check(folder, os.fstat(descriptor), "Secrets are in the folder", 0o066, "go-rw")
    except Unavailable:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, found: os.stat_result, what: str, forbidden: int, right: str) -> None:
    """Raises Unavailable where the file or folder is another user's, or its mode has one of the `forbidden` bits."""
    ours, quoted = os.geteuid(), shlex.quote(str(path))
    if found.st_uid != ours:
        raise Unavailable(
            f"{what} {path}, which belongs to user {found.st_uid}, and this is user {ours}: run this as that user, "
            f"or `chown {ours} {quoted}` if it is yours."
        )
    if stat.S_IMODE(found.st_mode) & forbidden:
        raise Unavailable(
            f"{what} {path}, which is open to other users (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"run `chmod {right} {quoted}`."
        )


def _why(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)


def open_log(path: Path) -> IO[bytes]:
    """Open a 0600 log for appending, after setting aside one that grew beyond `LOG_BYTES`."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
    log.seek(0, os.SEEK_END)
    return log


def tail(path: Path) -> str:
    """Return the last line of a log, for an error message."""
    return last_line(path) or "it printed nothing."


def last_line(path: Path, bytes_: int = 4096, *, without: str = "\0") -> str:
    """Return the last line of a log, of those in its last `bytes_` that have not the text `without`; empty without one.

    A log that does not exist has none.
    """
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - bytes_))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line for line in reversed(lines) if without not in line), "")
