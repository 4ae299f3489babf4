"""Lets go of what is past its retention: day by day, and in batches where a tenant keeps less."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from dispatcher.clock import SYSTEM
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.ids import first_id, format_id
from dispatcher.store import retention as store
from dispatcher.store import tenants, trail
from dispatcher.store.partitions import lock_briefly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.retention import Living, Partition, What

Action = Literal["drop", "without payloads", "without answers", "keep"]

LOOK_AGAIN: Final = timedelta(days=1)
"""When a day that kept payloads, since deliveries of it live, is looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long events' payloads, the answers to attempts, and the log itself are kept; never less than it."""

    payloads: timedelta = timedelta(days=30)
    responses: timedelta = timedelta(days=30)
    metadata: timedelta = timedelta(days=90)

    def before(self, what: What, now: datetime) -> datetime:
        """What is older than this instant goes."""
        return now - self.of(what)

    def of(self, what: What) -> timedelta:
        """How long that is kept."""
        return {"payloads": self.payloads, "responses": self.responses, "metadata": self.metadata}[what]


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with a partition, and what lives in it and stays."""

    partition: Partition
    action: Action
    living: Living


def plan(connection: Connection, policy: Policy, *, now: datetime | None = None) -> list[Planned]:
    """Every day's partitions, the oldest first, each with what is to be done now. A day goes once it is past as a
    whole. Locks nothing.
    """
    at = now or SYSTEM.now()
    found = store.partitions(connection, now=at)
    return [Planned(one, _action(one, policy, at), store.living(connection, one)) for one in found]


def step(
    connection: Connection,
    policy: Policy,
    *,
    now: datetime | None = None,
    batch: int = 1000,
    planned: Sequence[Planned] | None = None,
) -> list[Planned]:
    """Does the first thing that is to be done, in a transaction of its own: drops a day, or rewrites one partition,
    or a part of it; what it did, and nothing where nothing is left.

    Raises DBAPIError where a lock was not to be had within two seconds: nothing is done then, and it can be tried
    again. `planned` is a plan of this transaction, if there is one.
    """
    lock_briefly(connection)
    store.plan_freely(connection)
    at = now or SYSTEM.now()
    due = [one for one in planned or plan(connection, policy, now=at) if one.action != "keep"]
    if not due:
        return []
    first = due[0]
    match first.action:
        case "drop":
            due = [one for one in due if one.partition.day == first.partition.day]
            store.drop_day(connection, [one.partition for one in due])
            store.keep_since(connection, first.partition.high)
            return due
        case "without payloads":
            look_again_at = at + LOOK_AGAIN if first.living.deliveries else None
            if first.partition.is_rewritten:
                store.clear_payloads(connection, first.partition)
                store.remember(connection, first.partition, look_again_at=look_again_at)
            else:
                store.rewrite(
                    connection, first.partition, look_again_at=at + LOOK_AGAIN, is_living=look_again_at is not None
                )
        case _:
            _empty(connection, first, at, batch=batch)
    return [first]


def _empty(connection: Connection, planned: Planned, at: datetime, *, batch: int) -> None:
    """At once by a copy where nothing lives; else in place, since a copy would keep whoever records waiting."""
    one = planned.partition
    if not planned.living.deliveries and not one.is_rewritten:
        store.rewrite(connection, one, look_again_at=at + LOOK_AGAIN, is_living=False)
        return
    last = store.empty_answers(connection, one, batch=batch)
    again = at + LOOK_AGAIN if last is None and planned.living.deliveries else None
    store.remember(connection, one, cursor=last, look_again_at=again)


def _action(one: Partition, policy: Policy, at: datetime) -> Action:
    if one.until <= policy.before("metadata", at):
        return "drop"
    is_done = one.is_rewritten and one.cursor is None and not one.is_due
    if one.table == "events" and one.until <= policy.before("payloads", at) and not is_done:
        return "without payloads"
    if one.table == "attempts" and one.until <= policy.before("responses", at) and not is_done:
        return "without answers"
    return "keep"


def keep_less(
    connection: Connection,
    tenant_id: UUID,
    policy: Policy,
    *,
    payloads: int | None = None,
    responses: int | None = None,
    metadata: int | None = None,
    by: str,
) -> None:
    """Has less kept of a tenant, in days; None: as much as of all.

    Raises NotFound where there is no such tenant, InvalidInput for what is not shorter than the installation's, or
    keeps payloads or answers longer than the log.
    """
    if tenants.find(connection, tenant_id) is None:
        raise NotFound(f"there is no tenant {format_id('ten', tenant_id)}")
    days: dict[What, int | None] = {"payloads": payloads, "responses": responses, "metadata": metadata}
    for what, found in days.items():
        most = policy.of(what) if metadata is None else min(policy.of(what), timedelta(days=metadata))
        if found is not None and not 1 <= found <= most.days:
            raise InvalidInput(f"/{what}", f"{found} days", f"1 to {most.days} days")
    store.keep_less(connection, tenant_id, payloads=payloads, responses=responses, metadata=metadata)
    trail.append(
        connection,
        actor=by,
        action="tenant.retention_set",
        object=format_id("ten", tenant_id),
        tenant_id=tenant_id,
        before=None,
        after={f"{what}_days": found for what, found in days.items()},
    )


def sweep(connection: Connection, policy: Policy, *, now: datetime | None = None, batch: int = 1000) -> bool:
    """One round, bounded by `batch` rows of each kind, of what goes in batches: old rows of the default partitions,
    and what tenants keep for less long. Whether some kind had that many, so that more may be left.
    """
    at = now or SYSTEM.now()
    most = 0
    kinds: tuple[What, ...] = ("metadata", "payloads", "responses")
    for what in kinds:
        before = first_id(_midnight(policy.before(what, at)))
        swept = store.sweep_default(connection, what, before, batch=batch)
        if swept and what == "metadata":
            store.keep_since(connection, before)
        most = max(most, swept)
    for one in store.shorter(connection):
        kept = min(timedelta(days=one.days), policy.of(one.what))
        most = max(most, store.sweep_tenant(connection, one, first_id(_midnight(at - kept)), batch=batch))
    return most >= batch


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
