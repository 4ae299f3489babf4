"""What PostgreSQL's own log says of locks that one program waited for and held."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

LINE_PREFIX = "%m [%p] %a | "
_LINE = re.compile(r"^(\S+ \S+) \S+ \[(\d+)\] (.*?) \| (\w+):  (.*)")
_WAIT = re.compile(r"process (\d+) (?:still waiting for|acquired) (.+?) after ([\d.]+) ms")
_DURATION = re.compile(r"duration: ([\d.]+) ms  \S+(?: \S+)?: (.*)")
_LOCKS = re.compile(r"(LOCK|ALTER|CREATE|DROP)\b")
_ENDS = re.compile(r"(COMMIT|ROLLBACK)\b")
_WEAK = re.compile(r"CONCURRENTLY|VALIDATE CONSTRAINT")


@dataclass
class ServerLog:
    """`lock_waits`: (ms, what waited for which lock), those of the program and those behind it, once they last longer
    than `deadlock_timeout`. `held`: (ms, the first statement) of each transaction of the program that locks.
    """

    deadlocks: list[str] = field(default_factory=list)
    lock_waits: list[tuple[float, str]] = field(default_factory=list)
    held: list[tuple[float, str]] = field(default_factory=list)
    lock_timeouts: int = 0
    statements: int = 0

    @classmethod
    def read(cls, path: Path, offset: int, program: str) -> Self:
        """Reads what the server has written since `offset`, with LINE_PREFIX as its log_line_prefix. The program's
        sessions have its name as their application name, and log_min_duration_statement 0.
        """
        found = cls()
        with path.open("rb") as file:
            file.seek(offset)
            lines = [match.groups() for line in file.read().decode().splitlines() if (match := _LINE.match(line))]
        pids = {pid for _, pid, name, _, _ in lines if name == program}
        since: dict[str, tuple[datetime, str]] = {}  # by session: when its transaction took its first lock, and how
        for n, (at, pid, _, _, message) in enumerate(lines):
            if "deadlock detected" in message:
                found.deadlocks.append(message)
            if pid in pids and "lock timeout" in message:
                found.lock_timeouts += 1
            if waited := _WAIT.match(message):
                waiter, lock, ms = waited.groups()
                detail = next(
                    (text for _, other, _, kind, text in lines[n + 1 : n + 3] if other == pid and kind == "DETAIL"), ""
                )
                if waiter in pids or pids & set(re.findall(r"\d+", detail)):
                    found.lock_waits.append((float(ms), f"{lock}: {detail}"))
            if pid in pids and (ran := _DURATION.match(message)):
                found.statements += 1
                moment = datetime.fromisoformat(at)
                if _ENDS.match(ran[2]) and pid in since:
                    began, statement = since.pop(pid)
                    found.held.append(((moment - began).total_seconds() * 1000, statement))
                elif _LOCKS.match(ran[2]) and not _WEAK.search(ran[2]):
                    since.setdefault(pid, (moment, ran[2]))
        return found
