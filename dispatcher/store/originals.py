"""The statements that choose what is replayed: old deliveries, or the events that match today's endpoints.

What goes to the same endpoints is found delivery by delivery. What goes to one endpoint is found so too, but of each
event only once. What is matched anew is found event by event, by the rule by which new events are fanned out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from dispatcher.store import limits, log
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter

GoesTo = Literal["same", "matching"] | UUID
"""Where replays go: to the endpoints of the originals, to those that match today, or to this one."""

TOP: Final = 10
"""Endpoints that a preview names."""


@dataclass(frozen=True, slots=True)
class Original:
    """What is to be replayed to an endpoint, with the schedule version and the order that the endpoint has today.

    `cursor` is where it was found: a delivery, or an event that is matched anew. `replay_of` is the endpoint's last
    delivery of the event, or the chosen one; None where it had none. `target_url` and `target_method` are of its
    event's target, to which the replay goes too.
    """

    endpoint_id: UUID
    tenant_id: UUID
    schedule_id: int
    first_wait_s: float
    ordered: bool
    cursor: UUID
    event_id: UUID
    event_type: str
    mode: str
    object_id: str | None
    replay_of: UUID | None
    target_url: str | None
    target_method: str | None


@dataclass(frozen=True, slots=True)
class Share:
    """How many an endpoint gets in a step, of those after its cursor."""

    endpoint_id: UUID
    after: UUID
    n: int


# A replay of it that went elsewhere does not count.
_NOT_REPLAYED: Final = """
NOT EXISTS (SELECT FROM dispatcher.deliveries r
            WHERE r.event_id = d.event_id AND r.replay_of = d.id AND r.endpoint_id = d.endpoint_id)
AND NOT EXISTS (SELECT FROM dispatcher.ended_deliveries r
                WHERE r.event_id = d.event_id AND r.replay_of = d.id AND r.endpoint_id = d.endpoint_id)
"""

_NOT_LIVE: Final = """
NOT EXISTS (SELECT FROM dispatcher.deliveries l WHERE l.event_id = ev.id AND l.endpoint_id = {endpoint})
"""

_WAS_DELIVERED: Final = """
EXISTS (SELECT FROM dispatcher.ended_deliveries o
        WHERE o.event_id = ev.id AND o.endpoint_id = {endpoint} AND o.state = 'delivered')
"""


def _each(exists: str) -> str:
    """The condition as a look for each row, by the index of events, for a step of a replay: its plan may be old.

    A preview, which reads everything, hashes the other table instead. What is compared by IS NOT DISTINCT FROM is no
    reason to read an endpoint's deliveries, and OFFSET 0 keeps the look from becoming a join.
    """
    return re.sub(r"\)\s*(?=AND NOT EXISTS|$)", " OFFSET 0)\n", exists).replace(
        ".endpoint_id = ", ".endpoint_id IS NOT DISTINCT FROM "
    )


# Whose events an endpoint may hear: its tenant's, and those of the tenants below it.
_HEARS: Final = """
EXISTS (
    WITH RECURSIVE above AS (
        SELECT t.id, t.parent_id FROM dispatcher.tenants t WHERE t.id = ev.tenant_id
        UNION
        SELECT t.id, t.parent_id FROM above a JOIN dispatcher.tenants t ON t.id = a.parent_id
    )
    SELECT FROM above WHERE above.id = {tenant})
"""

# An event with a target of its own goes there instead of to its own tenant's endpoints.
_MATCHES: Final = """
(e.type_patterns IS NULL OR ev.type LIKE ANY (e.type_patterns))
AND NOT (ev.tenant_id = e.tenant_id AND EXISTS (
    SELECT FROM (
        SELECT t.endpoint_id FROM dispatcher.deliveries t WHERE t.event_id = ev.id AND t.replay_id IS NULL
        UNION ALL
        SELECT t.endpoint_id FROM dispatcher.ended_deliveries t WHERE t.event_id = ev.id AND t.replay_id IS NULL
    ) sent JOIN dispatcher.endpoints i ON i.id = sent.endpoint_id AND i.origin IS NOT NULL))
"""

_FAMILY: Final = """
WITH RECURSIVE family AS (
    SELECT t.id AS head, t.id FROM dispatcher.tenants t
    WHERE t.id IN (SELECT e.tenant_id FROM dispatcher.endpoints e WHERE e.status <> 'deleted' AND e.origin IS NULL)
    UNION
    SELECT f.head, t.id FROM family f JOIN dispatcher.tenants t ON t.parent_id = f.id
)
"""


def _events(chosen: Filter) -> tuple[str, dict[str, Any]]:
    """The condition on events `ev` of the filter's parts that speak of events, and on their endpoints `e`."""
    parts, values = ["true"], dict[str, Any]()
    for name, clause in (
        ("tenant_id", "e.tenant_id = :tenant_id"),
        ("endpoint_id", "e.id = :endpoint_id"),
        ("event_id", "ev.id = :event_id"),
        ("event_type", "ev.type = :event_type"),
        ("mode", "ev.mode = :mode"),
        ("object_id", "ev.object_id = :object_id"),
        ("created_after", "ev.created_at >= :created_after"),
        ("created_before", "ev.created_at < :created_before"),
        ("as_of", "ev.created_at < :as_of"),
    ):
        if (value := getattr(chosen, name)) is not None:
            parts.append(clause)
            values[name] = value
    # A producer's own id may be a day off the acceptance: the range of ids prunes partitions.
    if chosen.created_after is not None:
        parts.append("ev.id >= :first_event")
        values["first_event"] = _first(chosen.created_after, -DAY_MS)
    if chosen.created_before is not None:
        parts.append("ev.id < :last_event")
        values["last_event"] = _first(chosen.created_before, DAY_MS)
    return " AND ".join(parts), values


DAY_MS: Final = 86_400_000


def _first(at: datetime, more_ms: int) -> UUID:
    at_ms = int(at.timestamp() * 1000) + more_ms
    return UUID(int=min(max(0, at_ms), (1 << 48) - 1) << 80)


def take(
    connection: Connection,
    chosen: Filter,
    shares: Sequence[Share],
    *,
    goes_to: GoesTo = "same",
    replay_id: UUID | None = None,
) -> list[Original]:
    """The next of each endpoint, in the order of their ids; of a deleted one none. Bounded by the shares.

    Left out are those whose payload is gone, those that were replayed already and, unless they are included, those
    whose event has reached the endpoint. By the indexes (endpoint_id, id) of ended deliveries and (tenant_id, id) of
    events.
    """
    limits.plan_anew(connection)  # each filter has an index of its own, and which one it is depends on the sizes
    one, values = _next_of_one(chosen, goes_to)
    rows = connection.execute(
        text(f"""
        SELECT e.id, e.tenant_id, v.id, v.first_wait_s, e.ordered, o.*
        FROM json_to_recordset(CAST(CAST(:shares AS text) AS json)) AS x(endpoint_id uuid, after uuid, n int)
        CROSS JOIN LATERAL (
            SELECT * FROM dispatcher.endpoints WHERE id = x.endpoint_id AND status <> 'deleted' OFFSET 0
        ) e
        JOIN dispatcher.schedules s ON s.name = e.schedule
        JOIN dispatcher.schedule_versions v ON v.id = s.version_id
        CROSS JOIN LATERAL ({one}) o
        ORDER BY e.id, o.cursor"""),
        {**values, "shares": to_json([{"endpoint_id": x.endpoint_id, "after": x.after, "n": x.n} for x in shares])}
        | ({"replay_id": replay_id} if ":replay_id" in one else {}),
    )
    return [Original(*row) for row in rows]


def _next_of_one(chosen: Filter, goes_to: GoesTo) -> tuple[str, dict[str, Any]]:
    if goes_to == "matching":
        where, values = _events(chosen)
        delivered = f"AND NOT {_each(_WAS_DELIVERED.format(endpoint='e.id'))}" if chosen.but_delivered else ""
        return (
            f"""
            SELECT ev.id AS cursor, ev.id, ev.type, ev.mode, ev.object_id,
                   (SELECT d.id FROM dispatcher.ended_deliveries d
                    WHERE d.event_id = ev.id AND d.endpoint_id = e.id ORDER BY d.id DESC LIMIT 1),
                   CAST(NULL AS text), CAST(NULL AS text)
            FROM dispatcher.events ev
            WHERE ev.tenant_id IN (
                WITH RECURSIVE family AS (
                    SELECT t.id FROM dispatcher.tenants t WHERE t.id = e.tenant_id
                    UNION SELECT t.id FROM family f JOIN dispatcher.tenants t ON t.parent_id = f.id)
                SELECT id FROM family)
              AND e.origin IS NULL AND {where} AND ev.id > x.after AND ev.payload IS NOT NULL
              AND {_MATCHES} AND {_each(_NOT_LIVE.format(endpoint="e.id"))} {delivered}
            ORDER BY ev.id LIMIT x.n""",
            values,
        )
    where, values = log.condition(replace(chosen, but_delivered=False), "ended_deliveries")
    endpoint = "e.id"
    if goes_to == "same":
        # An index on what was not delivered has the filter's own condition; this is of the rest.
        ours, targets = f"d.endpoint_id = x.endpoint_id AND {_each(_NOT_REPLAYED)}", "d.target_url, d.target_method"
    else:
        ours = f"""{_HEARS.format(tenant="e.tenant_id")} AND {_each(_NOT_LIVE.format(endpoint=endpoint))}
            AND NOT EXISTS (SELECT FROM dispatcher.ended_deliveries o WHERE o.event_id = ev.id
                            AND o.endpoint_id = {endpoint} AND o.replay_id = CAST(:replay_id AS uuid))"""
        targets = "CAST(NULL AS text), CAST(NULL AS text)"
    delivered = f"AND NOT {_each(_WAS_DELIVERED.format(endpoint=endpoint))}" if chosen.but_delivered else ""
    return (
        f"""
        SELECT d.id AS cursor, d.event_id, d.event_type, d.mode, d.object_id, d.id, {targets}
        FROM dispatcher.ended_deliveries d
        CROSS JOIN LATERAL (
            SELECT * FROM dispatcher.events ev WHERE ev.id = d.event_id AND ev.payload IS NOT NULL OFFSET 0
        ) ev
        WHERE {where} AND {ours} AND d.id > x.after {delivered}
        ORDER BY d.id LIMIT x.n""",
        values,
    )


@dataclass(frozen=True, slots=True)
class EndpointCount:
    """How much of a preview is of an endpoint: `count` would be made, `already_delivered` are known to have arrived."""

    endpoint_id: UUID
    url: str
    count: int
    is_disabled: bool
    already_delivered: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What would be replayed, and when: `at` is the database's clock.

    `oldest` and `newest` are when deliveries, or events that are matched anew, were made. `already_delivered` counts
    those whose event has reached their endpoint; they are in `count` unless the filter is `but_delivered`.
    `payload_gone` and `not_visible` are not: nothing is left to send, or the event is of a tenant that the one endpoint
    is not above. `longest_s` is what the slowest endpoint takes by its rate limit, `most` the most that one has.
    """

    count: int
    oldest: datetime | None
    newest: datetime | None
    already_delivered: int
    endpoints: int
    endpoints_disabled: int
    longest_s: float
    most: int
    payload_gone: int
    not_visible: int
    at: datetime
    top: tuple[EndpointCount, ...] = ()
    in_flight: int = 0


_SUMMARY: Final = """
{matched}, endpoint AS (
    SELECT endpoint_id,
           count(*) FILTER (WHERE {counts}) AS n,
           min(created_at) FILTER (WHERE {counts}) AS oldest, max(created_at) FILTER (WHERE {counts}) AS newest,
           count(*) FILTER (WHERE was_delivered AND NOT is_foreign) AS was_delivered,
           count(*) FILTER (WHERE is_gone AND NOT is_foreign) AS is_gone,
           count(*) FILTER (WHERE is_foreign) AS is_foreign
    FROM matched GROUP BY endpoint_id
), known AS (
    SELECT p.*, e.status = 'disabled' AS is_disabled, e.rate_limit, e.url
    FROM endpoint p JOIN dispatcher.endpoints e ON e.id = p.endpoint_id
)
SELECT CAST(coalesce(sum(n), 0) AS bigint), min(oldest), max(newest),
       CAST(coalesce(sum(was_delivered), 0) AS bigint),
       count(*) FILTER (WHERE n > 0), count(*) FILTER (WHERE n > 0 AND is_disabled),
       CAST(coalesce(max(n / rate_limit), 0) AS float8), coalesce(max(n), 0),
       CAST(coalesce(sum(is_gone), 0) AS bigint), CAST(coalesce(sum(is_foreign), 0) AS bigint),
       coalesce(CAST(:now AS timestamptz), statement_timestamp()),
       (SELECT coalesce(json_agg(json_build_array(endpoint_id, url, n, is_disabled, was_delivered)), '[]')
        FROM (SELECT * FROM known WHERE n > 0 ORDER BY n DESC, endpoint_id LIMIT :top) x)
FROM known
"""

_COUNTS: Final = "NOT is_gone AND NOT is_foreign AND NOT (was_delivered AND CAST(:but_delivered AS boolean))"


def _matched(chosen: Filter, goes_to: GoesTo) -> tuple[str, dict[str, Any]]:
    """The WITH of `matched`: all that the filter chooses, whatever keeps it from being replayed, and its values."""
    values: dict[str, Any]
    if goes_to == "matching":
        where, values = _events(chosen)
        return (
            f"""{_FAMILY}, matched AS MATERIALIZED (
            SELECT e.id AS endpoint_id, ev.created_at, ev.payload IS NULL AS is_gone, false AS is_foreign,
                   {_WAS_DELIVERED.format(endpoint="e.id")} AS was_delivered
            FROM dispatcher.endpoints e
            JOIN family f ON f.head = e.tenant_id
            JOIN dispatcher.events ev ON ev.tenant_id = f.id
            WHERE e.status <> 'deleted' AND e.origin IS NULL AND {where} AND {_MATCHES}
              AND {_NOT_LIVE.format(endpoint="e.id")})""",
            values,
        )
    where, values = log.condition(replace(chosen, but_delivered=False), "ended_deliveries")
    if goes_to == "same":
        return (
            f"""WITH matched AS MATERIALIZED (
            SELECT d.endpoint_id, d.created_at, ev.payload IS NULL AS is_gone, false AS is_foreign,
                   d.state = 'delivered' OR {_WAS_DELIVERED.format(endpoint="d.endpoint_id")} AS was_delivered
            FROM dispatcher.ended_deliveries d
            JOIN dispatcher.endpoints e ON e.id = d.endpoint_id AND e.status <> 'deleted'
            LEFT JOIN dispatcher.events ev ON ev.id = d.event_id
            WHERE {where} AND {_NOT_REPLAYED})""",
            values,
        )
    return (
        f"""WITH matched AS MATERIALIZED (
        SELECT DISTINCT ON (d.event_id) e.id AS endpoint_id, d.created_at, ev.payload IS NULL AS is_gone,
               ev.id IS NOT NULL AND NOT {_HEARS.format(tenant="e.tenant_id")} AS is_foreign,
               {_WAS_DELIVERED.format(endpoint="e.id")} AS was_delivered
        FROM dispatcher.ended_deliveries d
        JOIN dispatcher.endpoints e ON e.id = :to AND e.status <> 'deleted'
        LEFT JOIN dispatcher.events ev ON ev.id = d.event_id
        WHERE {where} AND {_NOT_LIVE.format(endpoint="e.id")}
        ORDER BY d.event_id, d.id)""",
        values | {"to": goes_to},
    )


def summarise(
    connection: Connection, chosen: Filter, *, goes_to: GoesTo = "same", now: datetime | None = None
) -> Summary:
    """What `take` would find in all. Reads everything that the filter chooses."""
    matched, values = _matched(chosen, goes_to)
    row = connection.execute(
        text(_SUMMARY.format(matched=matched, counts=_COUNTS)),
        {**values, "but_delivered": chosen.but_delivered, "now": now, "top": TOP},
    ).one()
    found: list[Any] = list(row)
    found[-1] = tuple(EndpointCount(UUID(one[0]), *one[1:]) for one in found[-1])
    return Summary(*found)


def share_out(
    connection: Connection,
    replay_id: UUID,
    chosen: Filter,
    *,
    goes_to: GoesTo = "same",
    now: datetime | None = None,
) -> int:
    """Writes down each endpoint of a replay with how many it has; how many that are in all. One statement."""
    matched, values = _matched(chosen, goes_to)
    total: int = connection.execute(
        text(f"""
        {matched}, shared AS (
            INSERT INTO dispatcher.replay_endpoints (replay_id, endpoint_id, total, looked_at, stepped_at)
            SELECT :replay_id, endpoint_id, count(*), at, at
            FROM matched, (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS at) clock
            WHERE {_COUNTS}
            GROUP BY endpoint_id, at
            RETURNING total
        )
        SELECT CAST(coalesce(sum(total), 0) AS bigint) FROM shared"""),
        {**values, "but_delivered": chosen.but_delivered, "now": now, "replay_id": replay_id},
    ).scalar_one()
    return total
