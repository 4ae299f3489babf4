"""Checks the invariants that the database alone can prove or refute. The rest needs the receivers' own ledgers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dispatcher.store import audit as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

CLOCK_TOLERANCE_S: Final = 0.5
"""Attempts are stamped by the worker's clock, due times by the database's: how far the two may be apart."""

SETTLE_S: Final = 75.0
"""How long after a fault work may lie idle before that is a breach."""

EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold: its number in `docs/invariants.md`, how often, and a few ids."""

    invariant: int
    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.what}: {self.count}, such as {'; '.join(self.examples)}"


def verify(
    connection: Connection,
    *,
    since: datetime = EVER,
    tolerance_s: float = CLOCK_TOLERANCE_S,
    settle_s: float = SETTLE_S,
) -> list[Violation]:
    """Every breach among what was created `since` then; an empty list where all is well.

    The transaction must be fresh: everything is read from one snapshot, so it may run beside live traffic. It scans
    what it checks. Not told apart from an early start: an attempt that an operator hurried. Not looked at: the start
    of attempts whose predecessor's answer was lost or that were not charged, for which no wait is declared.
    """
    store.snapshot(connection)
    day_before = since - timedelta(days=1) if since > EVER else EVER
    return [
        Violation(check.invariant, check.what, count, examples)
        for check, count, examples in store.breaches(
            connection, since=since, since_a_day_before=day_before, tolerance_s=tolerance_s, settle_s=settle_s
        )
        if count
    ]
