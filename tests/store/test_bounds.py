"""What each statement reads at most, however many rows there are and whatever the statistics said when it was planned.

Plans are made on empty tables, as those of a worker that was started before anything came, or for the values and the
size of the tables, as the API's are; then every table gets many rows, and no ANALYZE tells of them. Work is judged,
never time. The bounds stand in docs/operations.md.

With ROWS=1000000 in the environment every table gets a million rows, which takes some minutes.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, TextClause, create_engine, event

import dispatcher.flow
import dispatcher.store
from dispatcher.ids import DEFAULT_TENANT, IdRange, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.filter import Filter
from dispatcher.store import counts, deliveries, event_log, log, originals, retention, search, short_ids
from dispatcher.store.rows import to_json
from dispatcher.store.sessions import as_options
from dispatcher.wiring import MADE_ANEW, PLANS
from tests.support import many_rows, walk
from tests.support.servers import drop_database, fresh_database

ROWS: Final = int(os.environ.get("ROWS", "20000"))
BATCH: Final = 50
ROWS_READ, PAGES_READ = 12_000, 15_000
"""The bound for one statement, here with batches of 50: rows that its plan's nodes gave or threw away, and pages."""

SMALL_PAGES: Final = 700
"""A plan that is made anew may read a table or two of so many pages as a whole, once: it knows how small they are."""

NOW: Final = datetime.now(UTC)

PINNED_ONLY: Final = (
    r"store\.deliveries\.(_LOCK_LANES|_CLAIM|_RECORD|_GIVE_UP|_LOST|_DEMAND|_SPAN|_CANCEL_DELETED"
    r"|_EXPIRE\w*|_SET_ORDER)"
    r"|store\.counts\.(_TAKE|_ADD|_FORGET)|store\.workers\..*|store\.retention\._(SWEEP|OF_TENANT|PAST|MOVE_ON).*"
    r"|store\.erasures\._(TAKE|SAVE|EVENTS|WAITING|ERASE_\w+|IN_FLIGHT)"
)
"""Statements of workers and the scheduler alone."""

ANEW_ONLY: Final = (
    r"store\.endpoints\._(?!FETCH).*|store\.pauses\..*|store\.erasures\._(LIST|OWNERS|EXPORT_\w+|COUNT|ERASE_EVENTS)"
    r"|store\.event_log\..*|store\.find\..*|store\.short_ids\..*"
    r"|store\.metrics\..*|store\.search\..*|store\.stats\..*|store\.tenants\._LIST_\w+|store\.trail\._READ"
    r"|store\.replays\._LIST|store\.replay_endpoints\._(LIST|STANDING|COUNTS)"
    r"|built: (originals|search|event|log|counts)\b.*"
)
"""Statements of the API and the command line, and those before which `limits.plan_anew` stands."""

BY_INDEX: Final = r"store\.metrics\..*|store\.stats\..*|built: counts backlog"
"""Statements in whose transaction `limits.pin_plans` comes first."""

READS_MORE: Final = {
    "store.clock._REPAIR": "all wakes and lanes, for some minutes after the database's clock was set",
    "store.find._IS_TARGET": "all endpoints: an origin of any tenant has no index; the search is limited in time",
    "store.search._ENDPOINTS": "all endpoints: a host has no index; the search is limited in time",
    "store.metrics._ENDPOINTS": "all endpoints, of which there are thousands, once a scrape",
    "store.metrics._INSERTED": "the catalogue of partitions",
    "built: counts read": "all tallies that are not folded yet, which are those of some seconds",
    "store.metrics._HELD": "all endpoints, as above",
    "store.metrics._GAUGES": "all replays, one row each that an operator has started: their state has no index",
    "store.replays._LIST": "all replays, as above, where a tenant has none",
    "store.replays._NEXT": "all replays, as above",
    "store.erasures._LIST": "all erasures, one row each that somebody has started, where a tenant has none",
    "store.event_log._HEARERS": "all endpoints: deleted ones of a tenant have no index",
    "store.retention._SHORTER": "all tenants, once a minute: what they keep has no index",
}
"""Statements that read a whole table, with the reason; those of the scheduler end by their duty's time limit."""

NOT_EXPLAINED: Final = {
    "store.steps._WITHOUT_INDEX": "the catalogue, in a migration",
    "store.steps._DONE": "a table that is there while a migration runs",
    "store.steps._RECORD": "the same",
    "store.signing_keys._LOCK": "LOCK TABLE has no plan",
    "store.events._REGISTER": "a function, which finds everything by primary keys",
}


def id_of(kind: str, n: int) -> UUID:
    return many_rows.id_of(kind, n, many_rows.made_at(NOW))


def ids_of(kind: str) -> str:
    return to_json([id_of(kind, n) for n in SOME])


SOME: Final = range(1000, 1000 + BATCH)

COMMON: Final[dict[str, Any]] = {
    "now": None,
    "id": id_of("endpoint", 500),
    "endpoint_id": id_of("endpoint", 1),
    "tenant_id": id_of("tenant", 500),
    "batch": BATCH,
    "limit": 50,
    "lanes": BATCH,
    "worker": id_of("worker", 2),
    "room": 1000,
    "quantum": 15,
    "lane_limit": None,
    "held": "[]",
    "ids": to_json([id_of("delivery", 2000 + 2 * n) for n in range(BATCH)]),
    "state": "cancelled",
    "reason": "x",
    "kind": None,
    "before": None,
    "after": None,
    "own": None,
    "status": None,
    "profile": None,
    "owner": id_of("tenant", 5),
    "key": "key 5",
    "name": "tenant 5",
    "object": "ep_1",
    "object_id": "object 5",
    "created_at": NOW,
    "only": None,
    "cursor": UUID(int=0),
    "event_id": id_of("event", 500),
    "type": "type.5",
    "at": NOW,
    "url": "https://host-5.example.com/",
    "host": None,
    "exact": 10000,
    "most": 50,
    "newest": 500,
    "mode": "live",
    "replay_id": id_of("replay", 1),
    "depth": 100,
    "stuck_s": 60.0,
    "rate": None,
    "resumed_at": None,
    "term_s": 30.0,
    "what": "payloads",
    "since": None,
    "metadata": "{}",
    "event_types": None,
    "type_patterns": None,
    "method": "POST",
    "max_in_flight": 64,
    "signature": None,
    "headers": None,
    "auth": None,
    "rate_limit": None,
    "ordered": True,
    "origin": None,
    "secrets": "[]",
    "status_reason": None,
    "description": None,
    "schedule": "standard",
}
"""Values of parameters by their name."""

SPAN: Final = {"after": UUID(int=0), "until": id_of("endpoint", 1000), "most": 1000}

_RESULT: Final = {
    "event_type": "t", "refunded": False, "charged": True, "worker_id": uuid7(), "started_at": NOW, "duration_ms": 1.0,
    "number": 1, "outcome_known": True, "method": "POST", "url": "https://example.com/", "request_headers": [],
    "response_headers": [], "response_body": "", "body_end": "complete", "sentence": "x",
}  # fmt: skip
_RESULTS: Final = [
    _RESULT
    | {"delivery_id": id_of("delivery", n), "claim_seq": 1, "endpoint_id": id_of("endpoint", n), "id": uuid7()}
    | ({"state": "delivered", "reason": "ok", "outcome": "ok"} if n % 2 else {"wait_s": 5, "outcome": "reset"})
    for n in range(1, BATCH + 1)
]

_STEP: Final = {"change_s": 3600.0, "unnoticed_s": 0.5, "oldest_xid": "3", "slack_s": 0.5}

VALUES: Final[dict[str, dict[str, Any]]] = {
    "store.migrate._TAKE_TURN": {"key": 1},
    "store.clock._CORRECT": _STEP | {"seq": -1, "noticed_by": "a test"},
    "store.clock._UNREPAIRED": _STEP | {"kept_s": 600.0},
    "store.clock._REPAIR": _STEP | {"misread_at": NOW},
    "store.deliveries._SPAN": SPAN,
    "store.deliveries._CANCEL_DELETED": SPAN,
    "store.deliveries._EXPIRE_HELD": SPAN,
    "store.deliveries._EXPIRE_PAUSED": SPAN,
    "store.deliveries._SET_ORDER": SPAN,
    "store.counts._ADD": {
        "counted": to_json(
            [
                {
                    "endpoint_id": id_of("endpoint", n),
                    "since": NOW,
                    "event_type": "t",
                    "kind": "attempt",
                    "what": "ok",
                    "size": 1,
                    "n": 1,
                }
                for n in SOME
            ]
        )
    },
    "store.deliveries._CLAIM": {"lanes": to_json([id_of("endpoint", n) for n in range(1, 2 * BATCH, 2)])},
    "store.deliveries._RECORD": {
        "rows": to_json(_RESULTS),
        "verdicts": to_json([{"endpoint_id": id_of("endpoint", 44), "id": uuid7(), "reason": "x", "blocked": 0}]),
    },
    "store.deliveries._GIVE_UP": {"held": to_json([uuid7() for _ in range(BATCH)])},
    "store.deliveries._HURRY": {"id": id_of("delivery", 5000)},
    "store.deliveries._CANCEL": {"id": id_of("delivery", 5000)},
    "store.deliveries._DEMAND": {"lanes": 64},
    "store.endpoints._CREATE": {"id": uuid7(), "tenant_id": DEFAULT_TENANT, "profile": "default", "status": "active"},
    "store.endpoints._SET_STATUS": {"status": "active"},
    "store.endpoints._SET_ORDER": {"id": id_of("endpoint", 501)},
    "store.endpoints._COUNT": {"profile": "default"},
    "store.endpoints._FETCH": {"ids": ids_of("endpoint")},
    "store.erasures._ADD": {"id": uuid7(), "created_by": "x", "at": NOW},
    "store.erasures._FIND": {"id": id_of("erasure", 5)},
    "store.erasures._SAVE": {
        "id": id_of("erasure", 5),
        "passes": 1,
        "next_pass_at": NOW,
        "events": 1,
        "attempts": 1,
        "cancelled": 1,
        "in_flight": 1,
    },
    "store.erasures._TAKE": {"now": NOW},
    "store.erasures._COUNT": {"tenant_id": None},
    "store.erasures._EVENTS": {"tenant_id": None},
    "store.erasures._EXPORT_EVENTS": {"tenant_id": None},
    "store.erasures._EXPORT_ATTEMPTS": {"tenant_id": None},
    **{
        f"store.erasures.{n}": {"ids": ids_of("event"), "now": NOW}
        for n in ("_WAITING", "_ERASE_EVENTS", "_ERASE_ATTEMPTS", "_ERASE_ENDED", "_IN_FLIGHT")
    },
    "store.event_types._PUT": {"name": "x", "schema": None},
    "store.events._RECIPIENTS": {
        "rows": to_json([{"n": n, "tenant_id": id_of("tenant", n), "type": "type.1"} for n in SOME])
    },
    "store.events._IMPLICIT": {
        "rows": to_json([{"tenant_id": id_of("tenant", n), "origin": f"https://host-{n}.example.com"} for n in SOME])
    },
    "store.events._REMEMBER": {
        "rows": to_json(
            [
                {
                    "tenant_id": id_of("tenant", n),
                    "key": f"key {n}",
                    "event_id": uuid7(),
                    "body_sha256": "",
                    "lifetime_s": 5,
                }
                for n in SOME
            ]
        )
    },
    "store.events._RECALL": {"rows": to_json([{"tenant_id": id_of("tenant", n), "key": f"key {n}"} for n in SOME])},
    "store.events._ACCEPT": {
        "payloads": b"{}",
        "events": to_json(
            [
                {
                    "id": uuid7(),
                    "tenant_id": id_of("tenant", n),
                    "type": "t",
                    "mode": "live",
                    "payload_at": 1,
                    "payload_bytes": 2,
                    "fanout": 1,
                    "created_at": NOW,
                }
                for n in SOME
            ]
        ),
        "deliveries": to_json(
            [
                {
                    "id": uuid7(),
                    "endpoint_id": id_of("endpoint", n),
                    "event_id": uuid7(),
                    "tenant_id": id_of("tenant", n),
                    "created_at": NOW,
                    "first_wait_s": 0,
                    "schedule_id": 1,
                    "event_type": "t",
                    "mode": "live",
                }
                for n in SOME
            ]
        ),
    },
    "store.grants._EXISTS": {"role": "x"},
    "store.idempotency._REMEMBER": {"request_sha256": b"", "status": 200, "body": "", "lifetime_s": 5},
    "store.limits._LIMIT": {"limit": "5000ms"},
    "store.limits._RESTORE": {"limit": "5000ms"},
    "store.log._ATTEMPTS": {"id": id_of("ended", 500)},
    "store.log._EVENT": {"id": id_of("event", 500)},
    "store.log._FIND_ATTEMPT": {
        "id": id_of("attempt", 500),
        "oldest": UUID(int=0),
        "newest": UUID(int=(1 << 128) - 1),
    },
    "store.pauses._ADD": {
        "id": uuid7(),
        "event_type": None,
        "type_pattern": None,
        "created_by": "x",
        "endpoint_id": None,
    },
    "store.pauses._FIND": {"id": uuid7()},
    "store.pauses._FIND_SCOPE": {"event_type": None, "endpoint_id": None},
    "store.pauses._END": {"id": id_of("pause", 1000)},
    "store.previews._ADD": {
        "id": uuid7(),
        "kind": "replay",
        "filter": "{}",
        "options": "{}",
        "count": 1,
        "expires_at": NOW,
    },
    "store.previews._LOCK": {"id": id_of("preview", 5)},
    "store.previews._USE": {"id": id_of("preview", 5)},
    "store.profiles._PUBLISH": {"rows": to_json([{"name": "x", "body": {}, "is_default": False}])},
    "store.profiles._WITHDRAW": {"names": "[]"},
    "store.profiles._OF_TENANTS": {"ids": ids_of("tenant")},
    "store.replay_endpoints._VERDICTS": {"endpoint_ids": [id_of("endpoint", n) for n in SOME]},
    "store.replay_endpoints._ADVANCE": {
        "rows": to_json(
            [
                {
                    "endpoint_id": id_of("endpoint", n),
                    "made": 1,
                    "cursor": UUID(int=0),
                    "state": "running",
                    "passed": False,
                    "stepped_at": NOW,
                }
                for n in range(1, BATCH)
            ]
        )
    },
    "store.replays._START": {
        "id": uuid7(),
        "kind": "replay",
        "filter": "{}",
        "total": 1,
        "created_by": "x",
        "rate_per_endpoint": None,
        "canary": None,
        "goes_to": "same",
    },
    "store.replays._FIND": {"id": id_of("replay", 500)},
    "store.replays._NEXT": {"but": []},
    "store.replays._ADVANCE": {"id": id_of("replay", 2), "replayed": 1, "stepped_at": NOW, "state": "running"},
    "store.replays._SET_STATE": {"id": id_of("replay", 2), "state": "paused"},
    "store.replays._LOCK": {"id": id_of("replay", 2)},
    "store.replays._TAKE_TURNS": {"id": "x"},
    "store.retention._PARTITIONS": {"now": NOW},
    "store.retention._COLUMNS": {"name": "dispatcher.events_default"},
    "store.retention._REMEMBER": {"name": "x", "look_again_at": None},
    "store.retention._KEEP": {"since": UUID(int=5)},
    "store.retention._PAST": {"before": id_of("old", 1)},
    "store.retention._KEEP_LESS": {"payloads": 1, "responses": 1, "metadata": None},
    "store.schedules._PUBLISH": {"name": "x", "hash": "x", "body": "{}", "first_wait_s": 1.0},
    "store.search._ENDPOINTS": {"target_url": None},
    **{
        f"store.short_ids._IDS[{prefix}]": {"low": id_of(kind, 500), "high": id_of(kind, 599), "tenant_id": None}
        for prefix, kind in (
            *(("evt", "event"), ("ep", "endpoint"), ("rpl", "replay"), ("ten", "tenant"), ("key", "key")),
            *(("pau", "pause"), ("ers", "erasure")),
        )
    },
    "store.short_ids._DELETED_ENDPOINTS": {
        "low": id_of("endpoint", 500),
        "high": id_of("endpoint", 599),
        "tenant_id": None,
    },
    "store.find._AT": {"port": None},
    "store.signing_keys._ADD": {
        "id": "x",
        "kind": "rsa",
        "public": b"",
        "sealed": "x",
        "signs_from": NOW,
        "signs_until": None,
        "published_until": None,
    },
    "store.signing_keys._SET_ENDS": {"id": "x", "signs_until": None, "published_until": None},
    "store.story._REPLAYS": {"id": id_of("ended", 500)},
    "store.story._MORE": {"id": id_of("ended", 500)},
    "store.story._SCHEDULE": {"name": "standard", "hash": "x"},
    **{
        f"store.tenants.{n}": {"id": id_of("tenant", 500)}
        for n in ("_EXISTS", "_LOCK", "_LOCK_OUT", "_DEPTH", "_FIND_TENANT", "_SET_SECRETS")
    },
    "store.tenants._ADD_TENANT": {"id": uuid7(), "name": "new", "parent_id": None, "profile": None},
    "store.tenants._SECRETS": {"ids": ids_of("tenant")},
    "store.tenants._ADD_KEY": {"id": uuid7(), "key_sha256": b"x" * 32, "scopes": ["admin"], "signing_secret": None},
    "store.tenants._FIND_KEYS": {"hashes": to_json([sha256(f"key {n}".encode()).hexdigest() for n in SOME])},
    **{f"store.tenants.{n}": {"id": id_of("key", 500)} for n in ("_FIND_KEY_BY_ID", "_REVOKE_KEY")},
    **{f"store.tenants.{n}": {"ids": ids_of("key")} for n in ("_USED", "_VALID")},
    "store.tenants._TAKE_SIGNATURE": {"signature_sha256": b"x", "lifetime_s": 5},
    "store.trail._APPEND": {"id": uuid7(), "actor": "x", "action": "x", "before": None, "after": None},
    "store.trail._READ": {"tenant_id": None, "object": "ep_" + str(id_of("endpoint", 5))},
    "store.workers._HEARTBEAT": {"id": uuid7(), "host": "x", "pid": 1},
    "store.workers._RETIRE": {"id": id_of("worker", 5)},
    "store.workers._LEAD": {"name": "scheduler", "owner": uuid7()},
    "store.counts._NAMES[endpoint]": {"keys": [id_of("endpoint", n) for n in SOME]},
    "store.counts._NAMES[tenant]": {"keys": [id_of("tenant", n) for n in SOME]},
    **{
        f"store.retention._SWEEP[{w}][{n}]": {
            "before": many_rows.id_of("old", 10**6, many_rows.made_at(NOW) - timedelta(days=1))
        }
        for w, n in (("payloads", 0), ("responses", 0), ("metadata", 0), ("metadata", 1), ("metadata", 2))
    },
    **{f"store.retention._OF_TENANT[{w}][0]": {"ids": ids_of("event")} for w in ("payloads", "responses", "metadata")},
}
"""Values of a statement's own."""


@dataclass(frozen=True)
class Statement:
    name: str
    text: str
    values: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(re.findall(r"(?<![:\w]):(\w+)", self.text)))

    @property
    def numbered(self) -> str:
        return re.sub(r"(?<![:\w]):(\w+)", lambda match: f"${self.names.index(match[1]) + 1}", self.text)

    def execute(self, prepared: str) -> sql.Composed:
        arguments = sql.SQL(", ").join(sql.Literal(self.values[name]) for name in self.names)
        return sql.SQL("EXECUTE {}{}").format(
            sql.Identifier(prepared), sql.SQL("({})").format(arguments) if self.names else sql.SQL("")
        )


def constants() -> dict[str, str]:
    """Every statement that is a constant of a module of dispatcher.store or dispatcher.flow."""
    found = {}
    for package in (dispatcher.store, dispatcher.flow):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            short = info.name.removeprefix("dispatcher.")
            for name, value in vars(importlib.import_module(info.name)).items():
                for key, statement in value.items() if isinstance(value, dict) else ((None, value),):
                    if isinstance(statement, TextClause):
                        found[f"{short}.{name}" + (f"[{key}]" if key else "")] = statement.text
    for table in ("_SWEEP", "_OF_TENANT"):
        for what, texts in getattr(retention, table).items():
            found |= {f"store.retention.{table}[{what}][{n}]": text for n, text in enumerate(texts)}
    return found


def built(connection: Connection) -> list[Statement]:
    """Statements that are put together from what is asked for: some of each kind."""
    endpoint, tenant = id_of("endpoint", 500), id_of("tenant", 500)
    first, shares = id_of("endpoint", 1), [originals.Share(id_of("endpoint", 1), UUID(int=0), BATCH)]
    span = counts.Span(NOW - timedelta(hours=1), NOW, "5min", timedelta(minutes=5), timedelta(minutes=5))
    scope = counts_scope(endpoint)
    deliveries_in_range = IdRange("dlv", id_of("ended", 500), id_of("ended", 599))
    calls = {
        "originals take": lambda: originals.take(connection, Filter(undelivered=True), shares),
        "log find": lambda: log.find(connection, id_of("ended", 500)),
        "cancellation choose_waiting": lambda: log.choose_waiting(connection, Filter(endpoint_id=first), limit=BATCH),
        "cancellation has_live": lambda: log.has_live(connection, Filter(endpoint_id=first)),
        "event search object": lambda: event_log.search(connection, event_log.EventFilter(object_id="object 500")),
        "event search tenant": lambda: event_log.search(connection, event_log.EventFilter(tenant_id=tenant)),
        "search": lambda: search.search(connection, Filter()),
        "search endpoint": lambda: search.search(connection, Filter(endpoint_id=endpoint)),
        "search event": lambda: search.search(connection, Filter(event_id=id_of("event", 500))),
        "search short id": lambda: short_ids.find(connection, deliveries_in_range, tenant_id=None, limit=11),
        "search short id tenant": lambda: short_ids.find(connection, deliveries_in_range, tenant_id=tenant, limit=11),
        "counts backlog": lambda: counts.backlog(connection, scope, by="none"),
        "counts read": lambda: counts.read(connection, scope, span, by="none", limit=10),
    }
    known, found = set(constants().values()), list[Statement]()

    def note(_connection: Any, clause: Any, multiparams: Any, params: Any, _options: Any) -> None:
        if isinstance(clause, TextClause) and clause.text not in known:
            values = {**params, **(multiparams[0] if multiparams else {})}
            found.append(Statement(f"built: {name}", clause.text, values))

    event.listen(connection, "before_execute", note)
    for name, call in calls.items():
        before = len(found)
        call()
        assert len(found) > before, f"{name} has executed no statement of its own"
    event.remove(connection, "before_execute", note)
    return found


def counts_scope(endpoint_id: UUID) -> Any:
    from dispatcher.store.pauses import Scope

    return Scope(endpoint_id=endpoint_id)


def read(plan: dict[str, Any]) -> tuple[float, int]:
    """The rows that the plan's nodes gave or threw away, and the most pages that one node and those below it read."""
    loops = plan["Actual Loops"]
    removed = sum(count for key, count in plan.items() if key.startswith("Rows Removed by"))
    # What a bitmap of a BRIN index gives is an estimate; the scan above it counts.
    rows = 0 if plan["Node Type"] == "Bitmap Index Scan" else loops * (plan["Actual Rows"] + removed)
    pages = plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
    for child in plan.get("Plans", ()):
        child_rows, child_pages = read(child)
        rows, pages = rows + child_rows, max(pages, child_pages)
    return rows, pages


@dataclass
class Filled:
    """A database whose plans were made before its rows came."""

    statements: list[Statement]
    pinned: psycopg.Connection
    anew: psycopg.Connection

    def excess(self, statement: Statement, mode: str) -> str | None:
        """What the statement read beyond the bound; None where it kept within it."""
        connection: psycopg.Connection = getattr(self, mode)
        prepared = f"s{self.statements.index(statement)}"
        connection.execute("BEGIN")
        try:
            if mode == "anew":
                if re.fullmatch(BY_INDEX, statement.name):
                    connection.execute(
                        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
                    )
                connection.execute(f"PREPARE {prepared} AS {statement.numbered}".encode())
            explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + statement.execute(prepared)
            explained = connection.execute(explain).fetchone()
        except psycopg.errors.QueryCanceled:
            return f"{mode} {statement.name}: did not end within {LIMIT_S} s"
        finally:
            connection.execute("ROLLBACK")
        assert explained is not None
        rows, pages = read(explained[0][0]["Plan"])
        if rows <= ROWS_READ and pages <= PAGES_READ:
            return None
        if mode == "anew" and rows <= 3 * ROWS and pages <= SMALL_PAGES and statement.name not in READS_MORE:
            return None
        return f"{mode} {statement.name}: {rows:.0f} rows, {pages} pages"


LIMIT_S: Final = 60
"""So that a statement that reads each row with each ends at all."""


@pytest.fixture(scope="module", params=["never analysed", "analysed while empty"])
def filled(postgres: EmbeddedPostgres, migrated_template: str, request: pytest.FixtureRequest) -> Iterator[Filled]:
    url = fresh_database(postgres, migrated_template)
    engine = create_engine(url)
    with engine.connect() as connection:
        statements = built(connection)
        connection.rollback()
    engine.dispose()
    for name, text in constants().items():
        if name not in NOT_EXPLAINED:
            statements.append(Statement(name, text, COMMON | VALUES.get(name, {})))
    limit = f"-c statement_timeout={LIMIT_S}s"
    with (
        psycopg.connect(walk.hot_url(url), autocommit=True) as filling,
        psycopg.connect(walk.hot_url(url), options=f"{PLANS} {limit}", autocommit=True) as pinned,
        psycopg.connect(walk.hot_url(url), options=f"{as_options(MADE_ANEW)} {limit}", autocommit=True) as anew,
    ):
        many_rows.turn_autovacuum_off(filling)
        if request.param == "analysed while empty":
            filling.execute("VACUUM (ANALYZE)")
        for n, statement in enumerate(statements):
            if not re.fullmatch(ANEW_ONLY, statement.name):
                pinned.execute(f"PREPARE s{n} AS {statement.numbered}".encode())
                pinned.execute(sql.SQL("EXPLAIN ") + statement.execute(f"s{n}"))
        many_rows.fill(filling, ROWS, now=NOW)
        yield Filled(statements, pinned, anew)
    drop_database(postgres, url)


def test_every_statement_has_values() -> None:
    """A new statement is tried as soon as it is there: its parameters need values in this file."""
    statements = [Statement(name, text, COMMON | VALUES.get(name, {})) for name, text in constants().items()]
    missing = {
        f"{statement.name}: {name}"
        for statement in statements
        if statement.name not in NOT_EXPLAINED
        for name in statement.names
        if name not in statement.values
    }
    assert missing == set()
    assert VALUES.keys() | {*READS_MORE, *NOT_EXPLAINED} - {"built: counts read"} <= constants().keys()


def test_no_statement_reads_more_than_its_bound(filled: Filled) -> None:
    beyond = []
    for statement in filled.statements:
        if statement.name in READS_MORE:
            continue
        for mode, others in (("pinned", ANEW_ONLY), ("anew", PINNED_ONLY)):
            if not re.fullmatch(others, statement.name) and (excess := filled.excess(statement, mode)):
                beyond.append(excess)
    assert not beyond, "\n".join(beyond)


def test_what_is_said_to_read_a_whole_table_still_does(filled: Filled) -> None:
    """So that the list names no statement that has been mended."""
    for statement in filled.statements:
        if statement.name in READS_MORE:
            assert filled.excess(statement, "anew"), statement.name


def test_the_expiry_of_a_plan_made_on_empty_tables_reads_its_batch_and_no_more(filled: Filled) -> None:
    """It once ran for minutes: all that waited, each time with the sub-select run anew."""
    (expire,) = (statement for statement in filled.statements if statement.text == deliveries._EXPIRE.text)
    assert filled.excess(expire, "pinned") is None
