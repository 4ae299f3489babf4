"""Stops what a supervisor started when the supervisor itself was killed.

The guard is a process of its own that reads its standard input. The supervisor tells it what to watch; when the
supervisor dies, by whatever signal, the pipe ends. Unlike a parent-death signal this works on macOS, under another
account, and does not depend on the thread that started a process. This file also runs as a script, without the
package: it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_POLL_S = 0.1
# How long PostgreSQL may take for an immediate shutdown: it waits 5 s for backends that hang.
_IMMEDIATE_S = 15.0


class Guard:
    """The supervisor's end. Processes are watched with the group that they lead; thread-safe.

    On the supervisor's death the guard signals those of stage 0, waits up to `grace_s` seconds for them to leave,
    kills what is left, and goes on with stage 1, the servers. A server that is left gets SIGQUIT, which asks PostgreSQL
    for an immediate shutdown, before it is killed.
    """

    def __init__(self, grace_s: float) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The guard's own process number."""
        return self._process.pid

    def watch(self, pid: int, number: signal.Signals, stage: int) -> None:
        """Stop this process, and its group, with that signal if the supervisor dies."""
        self._tell(f"watch {pid} {int(number)} {stage}")

    def forget(self, pid: int) -> None:
        """The process has left: its number may come to belong to somebody else."""
        self._tell(f"forget {pid}")

    def close(self) -> None:
        """End the guard, which stops whatever it still watches."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # A guard that was killed is missed at the next crash only, when the list of processes stands in.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()


def _left(pid: int) -> bool:
    """Tell whether the group is gone. A leader that is a zombie counts as gone: init may never collect it."""
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return False


def _signal_groups(signals: Mapping[int, int]) -> None:
    for pid, number in signals.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _stop(watched: Mapping[int, int], grace_s: float, *, servers: bool) -> None:
    _signal_groups(watched)
    _wait(watched, grace_s)
    stuck = [pid for pid in watched if not _left(pid)]
    if servers and stuck:
        _signal_groups(dict.fromkeys(stuck, signal.SIGQUIT))
        _signal_groups(dict.fromkeys(stuck, signal.SIGCONT))  # a stopped process takes no other signal but SIGKILL
        _wait(stuck, _IMMEDIATE_S)
    _signal_groups(dict.fromkeys(watched, signal.SIGKILL))


def _wait(pids: Iterable[int], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until and not all(_left(pid) for pid in pids):
        time.sleep(_POLL_S)


def main() -> None:
    """Read what to watch until the pipe ends, then stop it."""
    grace_s = float(sys.argv[1])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    stages: list[dict[int, int]] = [{}, {}]
    for line in sys.stdin:
        match line.split():
            case ["watch", pid, number, stage]:
                stages[int(stage)][int(pid)] = int(number)
            case ["forget", pid]:
                for watched in stages:
                    watched.pop(int(pid), None)
    for number, watched in enumerate(stages):
        _stop(watched, grace_s, servers=number == 1)


if __name__ == "__main__":
    main()
