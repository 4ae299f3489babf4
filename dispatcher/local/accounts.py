"""The account that the embedded servers run under."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user and a group; `differs` tells that they are not our own, since we are root."""

    name: str
    uid: int
    gid: int
    differs: bool

    def popen_arguments(self) -> dict[str, Any]:
        """Return what makes `subprocess` run a program under this account, in no other group."""
        if not self.differs:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder of ours to this account. Raises Unavailable where the file system does not let us."""
        if not self.differs:
            return
        try:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be given to {self.name} ({error.strerror}): set DISPATCHER_DATA_DIR to a local folder."
            ) from error

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this account gets into the folder; asked of the system, so that ACLs count too."""
        return self.can_run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)])

    def can_run(self, argv: list[str]) -> bool:
        """Tell whether the program starts and ends well under this account."""
        try:
            ended = subprocess.run(
                argv,
                check=False,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **self.popen_arguments(),
            )
        except OSError:
            return False
        return ended.returncode == 0


def server_account() -> Account:
    """Return our own account, or `nobody` when we are root: PostgreSQL refuses to run as root.

    Raises Unavailable when there is no such user, which is also why none is created.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(f"user {uid}", uid, os.getegid(), differs=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise Unavailable(
            "As root the embedded servers run as the user nobody, who does not exist here: "
            "run as an ordinary user, or set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL."
        ) from error
    return Account("nobody", entry.pw_uid, entry.pw_gid, differs=True)
