"""What the operating system says about a process that somebody else may have started."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

_POLL_S = 0.02
_HAS_PROC = Path("/proc/self/stat").exists()  # Linux, with or without ps
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, told apart from a later one with the same number.

    `started` is opaque (the boot and the clock ticks since on Linux, a date elsewhere); `command` is the whole
    command line, its words joined by blanks.
    """

    pid: int
    started: str
    command: str


def identify(pid: int) -> Identity | None:
    """Return who runs under this number now; None when nobody does, a zombie counting as nobody."""
    if pid <= 0:
        return None
    return _identify_by_proc(pid) if _HAS_PROC else _identify_by_ps(pid)


def identify_all() -> list[Identity]:
    """Return every process that we can see."""
    if _HAS_PROC:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    else:
        listing = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=True)
        pids = [int(word) for word in listing.stdout.split()]
    return [found for pid in pids if (found := identify(pid)) is not None]


def _identify_by_proc(pid: int) -> Identity | None:
    folder = Path("/proc") / str(pid)
    try:
        # The name in parentheses may hold blanks and parentheses itself: count from the last one.
        state, *fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes()
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    except OSError:
        return None
    if state in "ZX":
        return None
    words = command.rstrip(b"\0").split(b"\0")
    shown = " ".join(os.fsdecode(word) for word in words).strip()
    return Identity(pid, started=f"{boot}:{fields[18]}", command=shown)


def _identify_by_ps(pid: int) -> Identity | None:
    shown = subprocess.run(
        ["ps", "-ww", "-o", "state=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    words = shown.stdout.split()
    if shown.returncode or len(words) < 6 or words[0].startswith("Z"):
        return None
    # lstart is five words: "Thu Nov 21 01:37:02 2024".
    return Identity(pid, started=" ".join(words[1:6]), command=" ".join(words[6:]))


def is_running(identity: Identity) -> bool:
    """Tell whether that very process still runs. Its command line may have changed, its start cannot."""
    found = identify(identity.pid)
    return found is not None and found.started == identity.started


def send(pid: int, number: signal.Signals, *, group: bool = False) -> bool:
    """Signal a process, or the whole group that it leads; False when it is gone already."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        # macOS answers EPERM for a group in which only zombies are left.
        if group and error.errno == errno.EPERM and identify(pid) is None:
            return False
        raise
    return True


def stop(identity: Identity, steps: list[tuple[signal.Signals, float]], *, group: bool = False) -> bool:
    """Send each signal in turn and wait that many seconds for the process to leave; True when it left."""
    for number, patience_s in steps:
        if not is_running(identity):
            return True
        send(identity.pid, number, group=group)
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if not is_running(identity):
                return True
            time.sleep(_POLL_S)
    return not is_running(identity)
