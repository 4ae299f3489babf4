"""What the harness itself has done to a system: the judge asks it what may explain a finding."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Held:
    """A time, on the monotonic clock, in which nothing may be sent to an endpoint."""

    path: str
    why: str
    since_s: float
    until_s: float


@dataclass
class History:
    """`taken` are the numbers of processes that were killed, frozen, or kept from renewing their heartbeats; `stopped`
    those that were asked to leave and have left. `workers` are the workers that were seen, with their process numbers.
    """

    taken: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    workers: dict[UUID, int] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    kills: int = 0

    def note_workers(self, rows: Iterable[tuple[UUID, int]]) -> None:
        self.workers.update((id_, pid) for id_, pid in rows)

    def hold(self, path: str, why: str, since_s: float) -> None:
        """Notes that the hold that began then ends now."""
        self.held.append(Held(path, why, since_s, time.monotonic()))

    def was_taken(self, worker_id: UUID) -> bool:
        """Whether an attempt of this worker may be lost with it. Of a worker that nobody has seen nothing is known."""
        return self.workers.get(worker_id, 0) in self.taken
