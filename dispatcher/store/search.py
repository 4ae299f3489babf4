"""The statements that search the delivery log."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from dispatcher.ids import first_id
from dispatcher.model.delivery import LIVE, DeliveryState
from dispatcher.store import limits
from dispatcher.store.log import COLUMNS, HELD, HOST_OF, JOINS, LoggedDelivery, condition, read_delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter

NARROW: Final = "a shorter time, or a tenant, an endpoint, an event or an object besides"
"""What makes a search of deliveries, or a preview, read less."""

MAX_ATTEMPTS: Final = 100
"""As schedules may have."""

MANY: Final = 100
"""Of so many endpoints the deliveries are read endpoint by endpoint. With more, most deliveries are theirs."""

_ENDPOINTS = text(f"""
SELECT e.id FROM dispatcher.endpoints e
WHERE (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
  AND (CAST(:host AS text) IS NULL OR {HOST_OF} = lower(:host))
  AND (CAST(:target_url AS text) IS NULL OR (e.origin IS NOT NULL AND starts_with(:target_url, e.origin)))
LIMIT {MANY + 1}
""")


_BOUNDS = text("""
SELECT (SELECT id FROM dispatcher.ended_deliveries ORDER BY id LIMIT 1),
       (SELECT id FROM dispatcher.ended_deliveries ORDER BY id DESC LIMIT 1)
""")

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Part:
    """A statement of a search, and its values. What it finds is in the search's order."""

    sql: str
    values: dict[str, Any]
    is_live: bool = False


def search(
    connection: Connection,
    chosen: Filter,
    *,
    past: UUID | None = None,
    until: UUID | None = None,
    oldest_first: bool = False,
    limit: int = 50,
) -> list[LoggedDelivery]:
    """Deliveries by the time they were made, the newest first or the oldest, behind `past` and up to `until`.

    Raises InvalidInput where it takes longer than `limits.SEARCH_S`; the transaction is then of no more use.
    """
    live: list[LoggedDelivery] = []
    ended: list[LoggedDelivery] = []
    until_s = monotonic() + limits.SEARCH_S
    pointer = "/created_after"
    with limits.limited(connection, pointer=pointer, narrow=NARROW):
        for part in parts(connection, chosen, past=past, until=until, oldest_first=oldest_first, limit=limit):
            rows = connection.execute(text(part.sql), part.values).all()
            (live if part.is_live else ended).extend(read_delivery(row._mapping) for row in rows)  # noqa: SLF001
            if len(ended) >= limit:
                break
            if monotonic() > until_s:
                raise limits.too_broad(limits.SEARCH_S, pointer, NARROW)
    found = {one.id: one for one in (*live, *ended)}  # what ended in between was found twice, and never not at all
    return sorted(found.values(), key=lambda one: one.id, reverse=not oldest_first)[:limit]


def parts(
    connection: Connection,
    chosen: Filter,
    *,
    past: UUID | None = None,
    until: UUID | None = None,
    oldest_first: bool = False,
    limit: int = 50,
) -> Iterator[Part]:
    """The statements of a search, until there is enough: one of what lives, then of what has ended.

    Each gives at most a page, in the order of the primary key. What is not behind an index in that order is read key by
    key, such as a tenant's newest of each endpoint by the index ended_endpoint; or, for the words of an error, day by
    day. They are to run within `limits.limited`, which sets how they are planned.
    """
    direction, beyond = ("", ">") if oldest_first else ("DESC", "<")
    page = f"AND (CAST(:past AS uuid) IS NULL OR d.id {beyond} :past) ORDER BY d.id {direction} LIMIT :limit"
    paged: dict[str, Any] = {"limit": limit, "past": past}
    if until is not None:
        page = f"AND d.id {'<=' if oldest_first else '>='} :until {page}"
        paged["until"] = until
    if not chosen.states or any(state in LIVE for state in chosen.states):
        where, values = condition(chosen, "deliveries")
        yield Part(
            f"""
            SELECT {COLUMNS}, d.state, d.due_at - dispatcher.clock_correction() AS due_at,
                   CAST(NULL AS timestamptz) AS ended_at, {HELD}
            FROM (SELECT d.* FROM dispatcher.deliveries d WHERE {where} {page}) d {JOINS}
            ORDER BY d.id {direction}""",
            {**paged, **values},
            is_live=True,
        )
    if chosen.states and all(state in LIVE for state in chosen.states):
        return
    where, values = condition(chosen, "ended_deliveries")
    values |= paged
    found = f"SELECT d.* FROM dispatcher.ended_deliveries d WHERE {where} {page}"
    sql = f"""
        SELECT {COLUMNS}, d.state, CAST(NULL AS timestamptz) AS due_at, d.ended_at, CAST(NULL AS text) AS held
        FROM ({{found}}) d {JOINS} ORDER BY d.id {direction}"""
    if (keys := _keys(connection, chosen)) is not None:
        found = f"""
            SELECT d.* FROM {keys.drawn} CROSS JOIN LATERAL (
                SELECT d.* FROM dispatcher.ended_deliveries d WHERE {keys.condition} AND {where} {page}
            ) d ORDER BY d.id {direction} LIMIT :limit"""
        values |= keys.values
    elif _by_words(chosen):  # materialized: a scan for the LIMIT's sake would read all that does not match, too
        found = f"""
            WITH d AS MATERIALIZED (
                SELECT d.* FROM dispatcher.ended_deliveries d WHERE {where} AND d.id >= :low AND d.id < :high
            ) SELECT * FROM d WHERE true {page}"""
        for low, high in _days(connection, chosen, past, oldest_first=oldest_first):
            yield Part(sql.format(found=found), {**values, "low": low, "high": high})
        return
    yield Part(sql.format(found=found), values)


def _has_index(chosen: Filter) -> bool:
    return bool(chosen.endpoint_id or chosen.event_id or chosen.object_id or chosen.delivery_ids or chosen.replay_id)


def _by_words(chosen: Filter) -> bool:
    return chosen.error is not None and not _has_index(chosen)


def _days(
    connection: Connection, chosen: Filter, past: UUID | None, *, oldest_first: bool
) -> Iterator[tuple[UUID, UUID]]:
    """Day by day the ranges of ids that may hold something, in the search's order."""
    oldest, newest = connection.execute(_BOUNDS).one()
    if oldest is None:
        return
    first, last = oldest.int >> 80, (newest.int >> 80) + 1
    if chosen.created_after is not None:
        first = max(first, first_id(chosen.created_after).int >> 80)
    if chosen.created_before is not None:
        last = min(last, first_id(chosen.created_before).int >> 80)
    if past is not None:
        first, last = (max(first, past.int >> 80), last) if oldest_first else (first, min(last, (past.int >> 80) + 1))
    starts = range(first - first % _DAY_MS, last, _DAY_MS)
    for start in starts if oldest_first else reversed(starts):
        yield UUID(int=start << 80), UUID(int=(start + _DAY_MS) << 80)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Of which keys the deliveries are read one by one, and how they are chosen by one."""

    drawn: str
    condition: str
    values: dict[str, Any]


def _keys(connection: Connection, chosen: Filter) -> _Keys | None:
    """The keys one by one of which the deliveries are to be read; None where the filter has an index of its own."""
    if _has_index(chosen):
        return None
    if chosen.tenant_id or chosen.host or chosen.target_url:
        asked = {"tenant_id": chosen.tenant_id, "host": chosen.host, "target_url": chosen.target_url}
        ids = list(connection.execute(_ENDPOINTS, asked).scalars())
        if len(ids) > MANY:
            return None
        return _Keys("unnest(CAST(:keys AS uuid[])) k(key)", "d.endpoint_id = k.key", {"keys": ids})
    if (chosen.attempts_min or 0) > 1 and not (chosen.outcome or chosen.status_code or chosen.error):
        last = min(chosen.attempts_max or MAX_ATTEMPTS, MAX_ATTEMPTS)
        states = [state for state in chosen.states or tuple(DeliveryState) if state not in LIVE]
        return _Keys(
            "unnest(CAST(:keys AS smallint[])) k(key) CROSS JOIN unnest(CAST(:ends AS text[])) s(state)",
            "d.attempts = k.key AND d.state = s.state",
            {"keys": list(range(chosen.attempts_min or 0, last + 1)), "ends": [str(state) for state in states]},
        )
    return None
