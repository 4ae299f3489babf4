"""The walk of a delivery, in pieces a test can take one by one: endpoints, events, claims and what came of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text

from dispatcher.clock import SYSTEM, Clock
from dispatcher.config import Settings
from dispatcher.flow import signing_keys
from dispatcher.flow.deliver import Deliver
from dispatcher.flow.enqueue import Accepted, enqueue
from dispatcher.flow.requests import SECRET_PURPOSE, Requests
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.delivery import Attempt, Claim, Released, Result, RetryAt, Stop
from dispatcher.model.endpoint import Endpoint, SealedSecret
from dispatcher.model.event import Event
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.retry import RetrySchedule
from dispatcher.signing import Keyring
from dispatcher.store import counts, deliveries, endpoints, schedules, workers
from dispatcher.store.clock import Now
from dispatcher.wiring import prepare_database, profiles
from tests.support.servers import fresh_database

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
"""When tests begin that bind the database's clock."""

KEYS = Keyring({"k1": b"k" * 32})
SECRET = b"s" * 32
PROFILES = profiles(Settings())
ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
TEMPLATE = "walk_template"


def make_template(server: EmbeddedPostgres) -> str:
    """A migrated database with the shipped schedules, to be copied for each test."""
    url = fresh_database(server)
    prepare_database(Settings(database_url=url))
    made = create_engine(url)
    with made.begin() as connection:  # or every application of a test would make an RSA key at its start
        signing_keys.ensure(connection, KEYS, by="test")
        drop_far_partitions(connection)
    made.dispose()
    name = url.partition("@/")[2].partition("?")[0]
    with server.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" RENAME TO {TEMPLATE}')
    return TEMPLATE


def drop_far_partitions(connection: Connection) -> None:
    """Leaves yesterday's partitions, today's and tomorrow's.

    A session reads the catalogue of every partition that it plans with, and each test has sessions of its own: with
    ten days of partitions that was a tenth of the tests' CPU time.
    """
    today = connection.execute(text("SELECT CAST(now() AT TIME ZONE 'UTC' AS date)")).scalar_one()
    kept = {f"{today + timedelta(days=n):%Y%m%d}" for n in (-1, 0, 1)}
    names = connection.execute(
        text(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = 'dispatcher'::regnamespace AND relispartition AND relkind = 'r'"
        )
    )
    for name in names.scalars().all():
        if not name.endswith("_default") and name.rpartition("_")[2] not in kept:
            connection.execute(text(f"DROP TABLE dispatcher.{name}"))


def hot_url(url: str) -> str:
    """The URL for a psycopg connection of the test's own."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def add_schedule(
    connection: Connection, *waits_s: float, name: str = "test", first_attempt: bool = False
) -> RetrySchedule:
    schedule = RetrySchedule(
        name=name,
        waits=tuple(timedelta(seconds=wait) for wait in waits_s),
        relative_to="first_attempt" if first_attempt else "previous_failure",
    )
    schedules.publish(
        connection, name=name, version=schedule.version, body=schedule.canonical(), first_wait_s=waits_s[0]
    )
    return schedule


def add_endpoint(connection: Connection, **values: Any) -> Endpoint:
    id_ = values.setdefault("id", uuid7())
    values.setdefault("tenant_id", DEFAULT_TENANT)
    sealed = KEYS.seal(SECRET, tenant=values["tenant_id"], endpoint=id_, purpose=SECRET_PURPOSE)
    values.setdefault("url", f"https://receiver-{id_.hex[-6:]}.example.com/hook")
    values.setdefault("schedule", "standard")
    values.setdefault("secrets", (SealedSecret(sealed),))
    endpoint = Endpoint(**values)
    endpoints.create(connection, endpoint)
    return endpoint


def emit(
    connection: Connection,
    count: int = 1,
    *,
    now: datetime | None = NOW,
    type_: str = "payment.completed",
    **values: Any,
) -> list[Accepted]:
    events = [Event(type=type_, payload={"n": n}, **values) for n in range(count)]
    return enqueue(connection, events, now=now)


def add_worker(connection: Connection, *, now: Now = NOW, term_s: float = 30.0, room: int = 1000) -> UUID:
    worker_id = uuid7()
    workers.heartbeat(connection, worker_id, host="test", pid=1, room=room, term_s=term_s, now=now)
    return worker_id


def claim(
    connection: Connection, worker_id: UUID, *, now: Now = NOW, room: int = 1000, batch: int = 300
) -> list[Claim]:
    return deliveries.claim(connection, worker_id=worker_id, room=room, batch=batch, now=now).claims


def claim_all(
    connection: Connection, worker_id: UUID, *, now: datetime | None = NOW, room: int = 100_000, batch: int = 300
) -> list[Claim]:
    """Claims until there is nothing more to be had."""
    taken: list[Claim] = []
    more = True
    while more:
        claimed = deliveries.claim(connection, worker_id=worker_id, room=room, batch=batch, now=now)
        taken += claimed.claims
        more = claimed.more or bool(claimed.claims)
    return taken


OK = Outcome(OutcomeClass.OK, Phase.BODY, status_code=200, response_body=b"ok", peer_ip="192.0.2.1", duration_ms=12.5)
FAILED = Outcome(OutcomeClass.HTTP_RETRYABLE, Phase.BODY, status_code=503, duration_ms=12.5)
DELIVERED = Stop("delivered", "ok")
EXHAUSTED = Stop("exhausted", "http_retryable 503")


def retry(wait_s: float, *, charged: bool = True, from_first_attempt: bool = False, **values: Any) -> RetryAt:
    return RetryAt(wait_s, charged, from_first_attempt, "http_retryable 503", **values)


def result(
    claim: Claim,
    change: RetryAt | Stop | Released = DELIVERED,
    outcome: Outcome | None = None,
    *,
    worker_id: UUID | None = None,
    started_at: datetime = NOW,
    ended_monotonic_s: float = 0.0,
    blocked_limit: int | None = None,
    **attempt: Any,
) -> Result:
    """A result as a worker makes it; without an outcome, the one that fits the change."""
    if isinstance(change, Released) or (isinstance(change, Stop) and change.state == "expired"):
        return Result(claim, None, change, ended_monotonic_s)
    if outcome is None:
        outcome = OK if isinstance(change, Stop) and change.state == "delivered" else FAILED
    values: dict[str, Any] = {
        "method": "POST",
        "url": "https://receiver.example.com/hook",
        "request_headers": [(b"webhook-id", b"evt_1")],
        "body_sha256": b"\x01" * 32,
    } | attempt
    return Result(
        claim,
        Attempt(id=uuid7(started_at), worker_id=worker_id or uuid7(), started_at=started_at, outcome=outcome, **values),
        change,
        ended_monotonic_s,
        blocked_limit,
    )


def record(connection: Connection, results: Sequence[Result], *, now: Now = NOW, monotonic_s: float = 0.0) -> int:
    return deliveries.record(connection, results, monotonic_s=monotonic_s, now=now)


def deliver(transport: Any, schedules_: dict[int, RetrySchedule], *, clock: Clock = SYSTEM, **values: Any) -> Deliver:
    requests = Requests(
        keyring=KEYS,
        profiles=values.pop("profiles", PROFILES),
        platform_keys=values.pop("platform_keys", PlatformKeys),
        user_agent=b"dispatcher/test",
        networks=ANYWHERE,
    )
    return Deliver(
        transport=transport,
        requests=requests,
        schedules=schedules_,
        clock=clock,
        worker_id=values.pop("worker_id", uuid7()),
        may_post=values.pop("may_post", lambda: True),
        **values,
    )


def forget_signing_keys(engine: Engine) -> None:
    """A database without platform keys, for tests that make their own; the audit log forgets that there were any."""
    with engine.begin() as connection:
        for statement in (
            "DELETE FROM dispatcher.signing_keys",
            "ALTER TABLE dispatcher.audit_log DISABLE TRIGGER audit_log_append_only",
            "DELETE FROM dispatcher.audit_log",
            "ALTER TABLE dispatcher.audit_log ENABLE TRIGGER audit_log_append_only",
        ):
            connection.exec_driver_sql(statement)


def rows(connection: Connection, sql: str, **values: Any) -> list[Any]:
    return list(connection.execute(text(sql), values))


def live(connection: Connection) -> list[Any]:
    return rows(connection, "SELECT * FROM dispatcher.deliveries ORDER BY id")


def ended(connection: Connection) -> list[Any]:
    return rows(connection, "SELECT * FROM dispatcher.ended_deliveries ORDER BY id")


def attempts(connection: Connection) -> list[Any]:
    return rows(connection, "SELECT * FROM dispatcher.attempts ORDER BY delivery_id, claim_seq")


def lane(connection: Connection, endpoint_id: UUID) -> Any:
    return rows(
        connection,
        """SELECT cap, capped, ready_at = 'infinity' AS asleep, nullif(ready_at, 'infinity') AS ready_at
        FROM dispatcher.lanes WHERE endpoint_id = :id""",
        id=endpoint_id,
    )[0]


def per_endpoint(claims: Iterable[Claim]) -> Counter[UUID]:
    return Counter(claim.endpoint_id for claim in claims)


def broken_promises(engine: Engine) -> list[str]:
    """What the database itself says against the invariants: nothing, if all is well."""
    checks = {
        "an event whose deliveries are not its fanout": """
            SELECT e.id FROM dispatcher.events e WHERE e.fanout <>
              (SELECT count(*) FROM dispatcher.deliveries d
               WHERE d.event_id = e.id AND d.replay_of IS NULL AND d.replay_id IS NULL)
              + (SELECT count(*) FROM dispatcher.ended_deliveries d
                 WHERE d.event_id = e.id AND d.replay_of IS NULL AND d.replay_id IS NULL)""",
        "a delivery both live and ended": """
            SELECT id FROM dispatcher.deliveries JOIN dispatcher.ended_deliveries USING (id)""",
        "delivered without a success": """
            SELECT d.id FROM dispatcher.ended_deliveries d WHERE d.state = 'delivered' AND NOT EXISTS
              (SELECT FROM dispatcher.attempts a WHERE a.delivery_id = d.id AND a.outcome = 'ok')""",
        "more attempts charged than were logged": """
            SELECT d.id FROM dispatcher.ended_deliveries d WHERE d.attempts + d.refunds >
              (SELECT count(*) FROM dispatcher.attempts a WHERE a.delivery_id = d.id)
              AND NOT (d.state = 'delivered' AND d.refunds > 0)""",
        "an attempt beyond the claims": """
            SELECT d.id FROM dispatcher.deliveries d JOIN dispatcher.attempts a ON a.delivery_id = d.id
            WHERE a.claim_seq > d.claim_seq""",
    }
    with engine.connect() as connection:
        return [f"{name}: {found}" for name, sql in checks.items() for found in connection.execute(text(sql)).scalars()]


def terminate_backends(server: EmbeddedPostgres, url: str) -> int:
    """Cuts every connection to the database; returns how many there were."""
    name = url.partition("@/")[2].partition("?")[0]
    with server.connect("postgres") as connection:
        cut = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchone()
    assert cut is not None
    return int(cut[0])


def wait_until_blocked(engine: Engine) -> None:
    """Returns once some connection to the database waits for a lock."""
    blocked = """SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND datname = current_database()"""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text(blocked)).scalar_one():
            threading.Event().wait(0.002)


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(hot_url(url), autocommit=True)


def fold(connection: Connection, *, batch: int) -> int:
    """Folds up to so many tallies, as the scheduler does but without its pauses; how many it were."""
    taken = counts.Taken()
    counts.take(connection, taken, batch=batch)
    for part in taken.parts():
        counts.add(connection, part)
    return taken.tallies
