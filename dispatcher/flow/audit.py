"""Checks the invariants that the database alone can prove or refute. The rest needs the receivers' own ledgers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from dispatcher.ids import first_id
from dispatcher.store import audit as store
from dispatcher.store.audit import CLAIM_OF_DEAD_WORKER, ENDPOINT_ASLEEP, Counts, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

__all__ = [
    "CLAIM_OF_DEAD_WORKER",
    "ENDPOINT_ASLEEP",
    "Day",
    "Verified",
    "Violation",
    "days",
    "together",
    "verify",
    "verify_day",
    "verify_now",
]

CLOCK_TOLERANCE_S: Final = 0.5
"""Attempts are stamped by the worker's clock, due times by the database's: how far the two may be apart."""

SETTLE_S: Final = 75.0
"""How long after a fault work may lie idle before that is a breach."""

MARGIN_S: Final = 60.0
"""How close to an event's acceptance a change of an endpoint may be for either order to be right: the producer's
transaction may be open as long, and its clock is not the database's."""

EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold: its number in `docs/invariants.md`, how often, and a few ids.

    `check` is the unique name of what was checked, `what` says it in words.
    """

    invariant: int
    check: str
    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.what}: {self.count}, such as {'; '.join(self.examples)}"


@dataclass(frozen=True, slots=True)
class Day:
    """What there is to be verified of one day, in UTC: the whole of it, or what of it was asked for."""

    day: date
    span: Span


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of a day: how much there was, and every check with how often it failed, 0 where it holds."""

    day: date
    counts: Counts
    checks: tuple[Violation, ...]


def verify(
    connection: Connection,
    *,
    since: datetime = EVER,
    tolerance_s: float = CLOCK_TOLERANCE_S,
    settle_s: float = SETTLE_S,
    margin_s: float = MARGIN_S,
) -> list[Violation]:
    """Every breach among what was created `since` then; an empty list where all is well.

    The transaction must be fresh: everything is read from one snapshot, so it may run beside live traffic. It scans
    what it checks, at once: `verify_day` is for more than memory holds. Not looked at: the start of attempts whose
    predecessor's answer was lost or that were not charged, for which no wait is declared.
    """
    store.snapshot(connection)
    found = store.breaches(
        connection, Span(first_id(since)), tolerance_s=tolerance_s, settle_s=settle_s, margin_s=margin_s
    )
    return [one for one in _violations(found) if one.count]


def days(connection: Connection, *, since: datetime = EVER, until: datetime | None = None) -> list[Day]:
    """The days, from `since` to before `until`, of which there is anything, the oldest first.

    A few look-ups by index a day, none for a day without anything.
    """
    first, last = first_id(since), store.GREATEST if until is None else first_id(until)
    found: list[Day] = []
    while (id_ := store.next_id(connection, first)) is not None and id_ < last:
        number = (id_.int >> 80) // store.DAY_MS
        end = UUID(int=(number + 1) * store.DAY_MS << 80)
        start = UUID(int=number * store.DAY_MS << 80)
        found.append(Day(EVER.date() + timedelta(days=number), Span(max(first, start), min(end, last))))
        first = end
    return found


def verify_day(
    connection: Connection,
    day: Day,
    *,
    tolerance_s: float = CLOCK_TOLERANCE_S,
    settle_s: float = SETTLE_S,
    margin_s: float = MARGIN_S,
) -> Verified:
    """Counts and checks what was created on a day, from one snapshot: the transaction must be fresh.

    What else belongs to it is looked for in the days beside it: the deliveries of an event that brought its own id.
    """
    store.snapshot(connection)
    counts = store.counts(connection, day.span)
    checks = store.breaches(
        connection, day.span, of_now=False, tolerance_s=tolerance_s, settle_s=settle_s, margin_s=margin_s
    )
    return Verified(day.day, counts, _violations(checks))


def verify_now(connection: Connection, *, settle_s: float = SETTLE_S) -> tuple[Violation, ...]:
    """The checks of what lives now, of whatever day it is; 0 where they hold. The transaction must be fresh."""
    store.snapshot(connection)
    return _violations(
        store.breaches(connection, Span(), of_now=True, tolerance_s=0.0, settle_s=settle_s, margin_s=0.0)
    )


def together(parts: Iterable[Sequence[Violation]]) -> tuple[Violation, ...]:
    """The same checks of several days as one: their counts added up, the first of their examples."""
    found: dict[str, Violation] = {}
    for one in (one for part in parts for one in part):
        before = found.get(one.check, replace(one, count=0, examples=()))
        examples = (*before.examples, *one.examples)[: store.EXAMPLES]
        found[one.check] = replace(one, count=before.count + one.count, examples=examples)
    return tuple(sorted(found.values(), key=lambda one: one.invariant))


def _violations(found: Iterable[tuple[store.Check, int, tuple[str, ...]]]) -> tuple[Violation, ...]:
    return tuple(
        Violation(check.invariant, check.name, check.what, count, examples) for check, count, examples in found
    )
