"""What `dispatcher up` notes in its data directory, so that commands beside it find the system that runs there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dispatcher.local import processes
from dispatcher.local.files import read_secret

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Running:
    """A system that runs on a data directory: whose process it is, and how to reach it.

    `url` is the API's as this machine reaches it, `command_line_key` the key by which the API knows the commands of
    this machine. The other URLs hold passwords. `keeps_keyring`: the keyring is the one that the data directory keeps.
    """

    pid: int
    started: str
    url: str
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    command_line_key: str = field(default="", repr=False)  # of a version before it, none
    keeps_keyring: bool = False
    direct_database_url: str | None = field(default=None, repr=False)


def find_running(data_dir: Path) -> Running | None:
    """Return the system that runs on this data directory now, for commands beside it; None without one.

    Raises Unavailable where the data directory is another user's, or open to others.
    """
    text = read_secret(data_dir / "running")
    if text is None:
        return None
    running = Running(**json.loads(text))
    alive = processes.is_running(processes.Identity(running.pid, running.started, command=""))
    return running if alive else None
