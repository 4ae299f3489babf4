"""What a run used, as the kernel and the servers count it: CPU of process trees, memory, WAL, Redis commands.

CPU is read from /proc/<pid>/stat: user and system time of a process, of its threads, of every live descendant, and of
the dead ones that were waited for (cutime, cstime), so a PostgreSQL backend that has come and gone is counted. The
kernel counts in nanoseconds and shows ticks of 10 ms, which is 0.1 µs a delivery at 100,000. Needs Linux.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

HAS_PROC = Path("/proc/self/stat").exists()
"""Without it (macOS) no CPU or memory figure is given: the others are."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    try:
        # The name in parentheses may hold blanks and parentheses itself: count from the last one.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all their living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    open_ = list(roots)
    while open_:
        pid = open_.pop()
        if pid not in found:
            found.add(pid)
            open_ += children.get(pid, [])
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds that the process trees have used so far, dead and waited-for descendants included."""
    ticks = 0
    for pid in tree(roots):
        if (fields := _stat(pid)) is not None:
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks * _TICK_S


def resident_bytes(roots: Iterable[int]) -> int:
    """Resident memory of the processes themselves, descendants included."""
    pages = 0
    for pid in tree(roots):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds by the name of who used them."""

    cpu_s: Mapping[str, float]

    def since(self, earlier: Reading) -> dict[str, float]:
        return {name: used - earlier.cpu_s[name] for name, used in self.cpu_s.items()}


def read_cpu(roots: Mapping[str, Iterable[int]]) -> Reading:
    """One reading of each named group of process trees; empty without /proc."""
    return Reading({name: cpu_s(pids) for name, pids in roots.items()} if HAS_PROC else {})


def read_resident(roots: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Resident bytes of each named group of process trees; empty without /proc."""
    return {name: float(resident_bytes(pids)) for name, pids in roots.items()} if HAS_PROC else {}


class Servers:
    """The servers' own counters, over one connection to each that stays open, so that it is in every reading."""

    def __init__(self, database_url: str, broker_url: str) -> None:
        self._postgres = psycopg.connect(database_url.replace("postgresql+psycopg", "postgresql"), autocommit=True)
        self._redis = redis.Redis.from_url(broker_url)
        self._redis.ping()

    def wal_bytes(self) -> int:
        return int(self._one("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def database_bytes(self) -> int:
        """What the database takes of the disk, indexes included."""
        return int(self._one("SELECT pg_database_size(current_database())"))

    def transactions(self) -> int:
        return int(self._one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))

    def redis_commands(self) -> dict[str, int]:
        """How often each command was called since the server started; `total` is all of them together."""
        counted = {
            name.removeprefix("cmdstat_"): int(stats["calls"])
            for name, stats in self._redis.info("commandstats").items()
        }
        return {**counted, "total": int(self._redis.info("stats")["total_commands_processed"])}

    def setting(self, name: str) -> str:
        """A setting as the server itself says it."""
        return str(self._one(f"SHOW {name}"))

    def redis_version(self) -> str:
        info = self._redis.info("server")
        return f"valkey {info['valkey_version']}" if "valkey_version" in info else f"redis {info['redis_version']}"

    def _one(self, statement: str) -> Any:
        row = self._postgres.execute(statement).fetchone()
        assert row is not None
        return row[0]

    def close(self) -> None:
        self._postgres.close()
        self._redis.close()
