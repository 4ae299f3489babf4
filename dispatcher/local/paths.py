"""Where the embedded servers keep their files."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.errors import Unavailable
from dispatcher.local.files import open_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.local.accounts import Account

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_SOCKET_PATH_BYTES = 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"
_LOCATION_FILE = "servers_location"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return DISPATCHER_DATA_DIR, else `dispatcher` below the user's data directory. Creates nothing.

    Raises Unavailable when there is no home directory to put it below.
    """
    if given := environ.get("DISPATCHER_DATA_DIR"):
        return Path(os.path.abspath(Path(given).expanduser()))  # noqa: PTH100 - a link in the path is kept
    if sys.platform != "darwin" and (xdg := environ.get("XDG_DATA_HOME", "")).startswith("/"):
        return Path(xdg) / "dispatcher"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = str(Path.home())
        except RuntimeError as error:
            raise Unavailable(
                "This user has no home directory: set DISPATCHER_DATA_DIR to a folder for the embedded servers' files."
            ) from error
    below = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return Path(home) / below / "dispatcher"


def make_data_dir(path: Path) -> Path:
    """Create the data directory, 0700, parents included, and return its absolute path.

    Raises Unavailable, naming DISPATCHER_DATA_DIR, when it cannot be created or written, and, naming the command that
    mends it, when it is there and open to others.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link in the path is kept
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        os.close(open_private(path))
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unwritable(path, str(error.strerror)) from error
    return path


def check_data_dir(path: Path) -> None:
    """Raises Unavailable where `make_data_dir` would; makes nothing."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link in the path is kept
    place = path
    try:
        os.close(open_private(path))
    except FileNotFoundError:
        place = next(parent for parent in path.parents if parent.exists())
    except OSError as error:
        raise _unwritable(path, str(error.strerror)) from error
    if not place.is_dir():
        raise _unwritable(path, f"{place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unwritable(path, f"no right to write in {place}")


def _unwritable(path: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"The data directory {path} cannot be written ({reason}): set DISPATCHER_DATA_DIR to a folder that can."
    )


def key_of(data_dir: Path) -> str:
    """Return twelve hexadecimal digits that stand for this data directory where a path would be too long."""
    return hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]


def make_socket_dir(data_dir: Path, account: Account) -> Path:
    """Return a 0700 folder with a short path, owned by the servers' account, made where it is missing.

    Its name derives from the data directory, so that whoever starts a server again finds the same one. Raises
    Unavailable when no place offers one that is verifiably ours.
    """
    name = f"dispatcher-{os.geteuid()}-{key_of(data_dir)}"
    # /run is writable by root alone; a user's runtime directory is not used: it vanishes at log-out.
    places = ["/run"] if account.differs else []
    places += ["/tmp", "/var/tmp", tempfile.gettempdir()]  # noqa: S108 - the folder below is verified
    reasons = []
    for place in places:
        folder = Path(place) / name
        if len(os.fsencode(folder / _LONGEST_SOCKET_NAME)) > _SOCKET_PATH_BYTES:
            reasons.append(f"{folder} is too long a path")
            continue
        if (reason := _make_private(folder, account)) is None:
            return folder
        reasons.append(reason)
    raise Unavailable(f"No folder for the servers' sockets: {'; '.join(dict.fromkeys(reasons))}.")


def _make_private(folder: Path, account: Account) -> str | None:
    """Make the folder, or verify the one that is there; returns what is wrong with it."""
    try:
        folder.mkdir(mode=0o700)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if made:
        folder.chmod(0o700)
        account.own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    # A predecessor that died between mkdir and chown left it to us: then it is ours to hand over.
    if found.st_uid == os.geteuid() and account.differs:
        account.own(folder)
        found = folder.lstat()
    if found.st_uid != account.uid:
        return f"{folder} belongs to user {found.st_uid}"
    if stat.S_IMODE(found.st_mode) != 0o700:
        return f"{folder} is open to other users"
    if not account.can_enter(folder):
        return f"{folder} cannot be entered by {account.name}"
    return None


def servers_dir(data_dir: Path) -> Path:
    """Return the folder that `make_servers_dir` has recorded; without one, the data directory."""
    record = data_dir / _LOCATION_FILE
    if record.exists() and (elsewhere := Path(record.read_text().strip())).is_dir():
        return elsewhere
    return data_dir


def make_servers_dir(data_dir: Path, account: Account) -> Path:
    """Return the folder below which the servers' own files lie: the data directory, wherever that works.

    Servers that run under another account than ours cannot reach a data directory below, say, /root. Then the folder
    is one made for it below /var/lib (or /var/tmp), and the data directory records which.
    """
    record = data_dir / _LOCATION_FILE
    if (elsewhere := servers_dir(data_dir)) != data_dir:
        return elsewhere
    if not account.differs:
        return data_dir
    # Secrets in the data directory are 0600 files: letting others pass through shows nothing.
    data_dir.chmod(stat.S_IMODE(data_dir.stat().st_mode) | 0o111)
    if account.can_enter(data_dir):
        return data_dir
    for place in ("/var/lib", "/var/tmp"):  # noqa: S108 - mkdtemp makes the folder
        try:
            folder = Path(tempfile.mkdtemp(prefix="dispatcher-", dir=place))
        except OSError:
            continue
        folder.chmod(0o711)
        if account.can_enter(folder):
            (folder / "belongs_to").write_text(f"{data_dir}\n")
            record.write_text(f"{folder}\n")
            return folder
        folder.rmdir()
    raise Unavailable(
        f"The servers run as {account.name}, who cannot reach {data_dir}: "
        f"set DISPATCHER_DATA_DIR to a folder that {account.name} can reach."
    )


def remove_data_dir(data_dir: Path, account: Account) -> None:
    """Remove the data directory and what was made for it elsewhere. For a temporary one, servers stopped."""
    record = data_dir / _LOCATION_FILE
    if record.exists():
        elsewhere = Path(record.read_text().strip())
        if (elsewhere / "belongs_to").read_text().strip() == str(data_dir):
            shutil.rmtree(elsewhere)
    shutil.rmtree(make_socket_dir(data_dir, account), ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
