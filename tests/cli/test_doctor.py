"""`dispatcher doctor` finds nothing in a sound system, and each thing that can be wrong; one failure stops no other."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from dispatcher import config
from dispatcher.cli import doctor
from dispatcher.cli.doctor import Finding, Patient
from dispatcher.clock import SYSTEM, Clock
from dispatcher.config import Settings
from dispatcher.errors import Unavailable
from dispatcher.ids import uuid7
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.signing import Keyring
from dispatcher.store import audit as store_audit
from dispatcher.store import health, partitions, workers
from dispatcher.wakeup import CHANNEL
from tests.cli.test_commands import Run
from tests.support import walk
from tests.support.patience import PATIENCE_S

OTHER_KEYS = Keyring({"k1": b"o" * 32}).reveal()


@pytest.fixture
def settings(migrated_database_url: str, redis_server: EmbeddedRedis) -> Settings:
    return Settings(
        database_url=config.database_url(migrated_database_url),
        broker_url=redis_server.url,
        secret_keys=walk.KEYS.reveal(),
    )


@pytest.fixture
def sound(engine: Engine) -> Engine:
    """A system with a worker, a leader and an endpoint, on a server that is careful (which the tests' is not)."""
    with engine.begin() as connection:
        partitions.ensure(connection)
        walk.add_worker(connection, now=None)
        workers.lead(connection, "scheduler", uuid7(), term_s=10)
        walk.add_endpoint(connection, url="https://192.0.2.1/hook")
    return engine


@pytest.fixture(scope="module")
def own_redis() -> Iterator[redis.Redis]:
    """A Redis that nobody else uses, to be harmed."""
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-test-"))
    server = EmbeddedRedis(data_dir)
    try:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            yield client
    finally:
        server.stop()
        remove_data_dir(data_dir, server_account())


def examined(settings: Settings, *names: str, **values: Any) -> dict[str, Finding]:
    """What these checks find; without names, all."""
    patient = Patient(lambda: settings, data_dir=lambda: None, **values)
    return dict(doctor.examine(patient, [one for one in doctor.CHECKS if not names or one.name in names]))


def careful(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Has the server say that it is set up so."""
    real = health.server
    monkeypatch.setattr(
        health, "server", lambda connection: replace(real(connection), fsync="on", full_page_writes="on", **values)
    )


def test_a_sound_system_passes(sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    careful(monkeypatch)
    assert settings.broker_url is not None
    with redis.Redis.from_url(settings.broker_url).pubsub() as listening:
        listening.subscribe(CHANNEL)
        listening.get_message(timeout=PATIENCE_S)
        found = examined(settings)
    assert {name: one for name, one in found.items() if one.verdict not in {"ok", "skipped"}} == {}
    assert {name for name, one in found.items() if one.verdict == "skipped"} == {"DNS", "disk", "event types"}


@pytest.mark.parametrize(
    ("check", "verdict", "damage"),
    [
        ("schema", "failed", "UPDATE dispatcher.alembic_version SET version_num = '0001'"),
        ("schema", "warning", "UPDATE dispatcher.alembic_version SET version_num = 'ffff'"),
        ("schema", "failed", "DELETE FROM dispatcher.alembic_version"),
        ("autovacuum", "failed", "ALTER TABLE dispatcher.wakes SET (autovacuum_enabled = false)"),
        ("workers", "failed", "UPDATE dispatcher.workers SET heartbeat_until = now() - interval '1 s'"),
        ("workers", "warning", "UPDATE dispatcher.workers SET room = 0"),
        ("scheduler", "failed", "DELETE FROM dispatcher.leader"),
        ("scheduler", "failed", "UPDATE dispatcher.leader SET expires_at = now() - interval '1 s'"),
        ("tallies", "failed", "INSERT INTO dispatcher.tallies (at, body) VALUES (now() - interval '2 min', '[]')"),
        ("signing keys", "failed", "UPDATE dispatcher.signing_keys SET sealed = 'k9:AAAA'"),
        (
            "secrets",
            "failed",
            'UPDATE dispatcher.endpoints SET secrets = \'[{"sealed": "k9:AAAA", "expires_at": null}]\'',
        ),
        ("backlog", "warning", "UPDATE dispatcher.lanes SET ready_at = now() - interval '2 min'"),
        ("backlog", "failed", "UPDATE dispatcher.lanes SET ready_at = now() - interval '2 h'"),
        (
            "partitions",
            "warning",
            """INSERT INTO dispatcher.events (id, tenant_id, type, mode, payload, fanout, created_at)
            VALUES ('00000000-0000-7000-8000-000000000009', gen_random_uuid(), 'a', 'live', '', 0, now())""",
        ),
        (
            "event types",
            "failed",
            """INSERT INTO dispatcher.event_types (name, schema) VALUES ('a', '{"items": {"$ref": "#"}}')""",
        ),
        ("database", "failed", ""),
    ],
)
def test_what_is_wrong_is_found(sound: Engine, settings: Settings, check: str, verdict: str, damage: str) -> None:
    if damage:
        with sound.begin() as connection:
            connection.execute(text(damage))
    else:
        settings = replace(settings, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    found = examined(settings, check)
    assert found[check].verdict == verdict, found[check]
    assert found[check].advice


def test_schemas_that_are_refused_are_listed_and_the_others_counted(
    sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = text("INSERT INTO dispatcher.event_types (name, schema) VALUES (:name, :schema)")
    with sound.begin() as connection:
        connection.execute(add, {"name": "b.c", "schema": '{"type": "object"}'})
    assert examined(settings, "event types")["event types"] == Finding("ok", "1 event type with a schema")
    with sound.begin() as connection:
        connection.execute(add, {"name": "a.b", "schema": '{"pattern": "(?=a)"}'})
    found = examined(settings, "event types")["event types"]
    assert found.found.startswith("1 of 2 schemas refused: a.b (/schema/pattern: found look-around")
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    monkeypatch.delitem(sys.modules, "dispatcher.flow.event_schemas")
    monkeypatch.delattr("dispatcher.flow.event_schemas")
    found = examined(settings, "event types")["event types"]
    assert (found.verdict, found.found[-40:]) == ("failed", "pip install 'dispatcher-webhooks[schemas]'"[-40:])


def test_a_missing_partition_is_found(sound: Engine, settings: Settings) -> None:
    name = f"events_{SYSTEM.now() + timedelta(days=1):%Y%m%d}"
    with sound.begin() as connection:
        connection.execute(text(f"ALTER TABLE dispatcher.events DETACH PARTITION dispatcher.{name}"))
    assert name in examined(settings, "partitions")["partitions"].found


@pytest.mark.parametrize("what", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_server_that_may_lose_what_it_committed_is_found(
    sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    real = health.server
    monkeypatch.setattr(health, "server", lambda connection: replace(real(connection), **{what: "off"}))
    found = examined(settings, "durability")["durability"]
    assert found.verdict == "failed"
    assert what in found.found


def test_an_old_server_and_one_that_does_not_vacuum_are_found(
    sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful(monkeypatch, version=140_011, autovacuum="off")
    found = examined(settings, "database")
    assert found["database"].verdict == "failed"
    assert doctor.autovacuum(Patient(lambda: settings)).verdict == "failed"


def test_clocks_that_are_apart_are_found(sound: Engine, settings: Settings) -> None:
    def ahead(by: timedelta) -> Clock:
        return Clock(now=lambda: SYSTEM.now() + by)

    found = examined(settings, "clock", clock=ahead(timedelta(seconds=3)))["clock"]
    assert found.verdict == "warning"
    assert "3.0" in found.found or "2.9" in found.found
    assert examined(settings, "clock", clock=ahead(timedelta(minutes=3)))["clock"].verdict == "failed"


def test_claims_of_the_dead_and_sleeping_lanes_are_found(
    sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sound.begin() as connection:
        walk.emit(connection, 1, now=None)
        walk.claim(connection, walk.add_worker(connection, now=None, term_s=3600), now=None)
        walk.add_endpoint(connection)
        walk.emit(connection, 1, now=None)
        connection.execute(text("UPDATE dispatcher.workers SET heartbeat_until = now() - interval '5 min'"))
        connection.execute(text("UPDATE dispatcher.deliveries SET due_at = now() - interval '5 min'"))
        connection.execute(text("UPDATE dispatcher.lanes SET ready_at = 'infinity'"))
        connection.execute(text("DELETE FROM dispatcher.wakes"))
    found = examined(settings, "claims", "lanes")
    assert found["claims"].verdict == "failed"
    assert "dlv_" in found["claims"].found
    assert found["lanes"].verdict == "failed"
    assert "ep_" in found["lanes"].found
    reworded = tuple(replace(check, what="reworded") for check in store_audit.CHECKS)
    monkeypatch.setattr(store_audit, "CHECKS", reworded)
    assert examined(settings, "claims", "lanes") == found, "nothing depends on how a check is worded"


def test_a_broker_that_is_away_or_not_named_is_found(sound: Engine, settings: Settings) -> None:
    away = examined(replace(settings, broker_url="redis://127.0.0.1:1/0"))
    assert (away["broker"].verdict, away["wake-ups"].verdict) == ("failed", "failed")
    assert away["workers"].verdict == "ok"
    assert examined(replace(settings, broker_url=None), "broker")["broker"].verdict == "failed"
    other = examined(replace(settings, broker_url="amqp://127.0.0.1:1//"), "broker", "wake-ups")
    assert (other["broker"].verdict, other["wake-ups"].verdict) == ("failed", "skipped")
    assert examined(settings, "wake-ups")["wake-ups"].verdict == "warning", "nobody listens"


@pytest.mark.parametrize(
    ("harm", "heal", "said"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "full (OOM): command not allowed when used memory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "a replica of 127.0.0.1:1 (READONLY): You can't write"),
        ("SET dispatcher.bells x", "DEL dispatcher.bells", "takes no message: WRONGTYPE Operation against a key"),
    ],
    ids=["full", "replica", "another type"],
)
def test_a_broker_that_answers_and_takes_nothing_is_found_with_the_reason(
    settings: Settings, own_redis: redis.Redis, harm: str, heal: str, said: str
) -> None:
    place = own_redis.get_connection_kwargs()
    settings = replace(settings, broker_url=f"redis://:{place['password']}@127.0.0.1:{place['port']}/0")
    assert examined(settings, "broker")["broker"].verdict == "ok"
    assert own_redis.llen("dispatcher.bells") == 0, "no worker is to see what was tried"
    own_redis.execute_command(*harm.split())
    found = examined(settings, "broker")["broker"]
    own_redis.execute_command(*heal.split())
    assert found.verdict == "failed"
    assert f"the broker redis://127.0.0.1:{place['port']}/0 " in found.found
    assert said in found.found
    assert place["password"] not in found.found
    assert found.advice.endswith("Until then workers poll.")


@pytest.mark.parametrize("keys", [None, OTHER_KEYS, "nonsense"], ids=["none", "another", "no keyring"])
def test_a_keyring_that_does_not_fit_is_found(sound: Engine, settings: Settings, keys: str | None) -> None:
    found = examined(replace(settings, secret_keys=keys), "settings", "signing keys", "secrets")
    assert found["signing keys"].verdict == "failed"
    assert found["secrets"].verdict == "failed"
    assert found["settings"].verdict == ("ok" if keys and ":" in keys else "failed")
    assert "nonsense" not in str(found)


def test_settings_that_are_wrong_are_found_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_runs() -> Settings:
        raise Unavailable("no `dispatcher up` runs")

    monkeypatch.setenv("DISPATCHER_WORKERS", "many")
    found = dict(doctor.examine(Patient(nothing_runs, data_dir=lambda: None)))
    assert "DISPATCHER_WORKERS" in found["settings"].found
    assert found["database"].verdict == "failed"
    assert found["schema"] == doctor.skipped("skipped: the database is not available")
    assert len(found) == len(doctor.CHECKS)


def test_names_that_nobody_resolves_are_told_from_a_resolver_that_fails(
    sound: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sound.begin() as connection:
        walk.add_endpoint(connection, url="https://shop.example.com/hook")
    answers: dict[str, Any] = {}

    class Resolver:
        def __init__(self, **_: Any) -> None: ...

        async def resolve(self, host: str) -> Any:
            if isinstance(answers[host], Exception):
                raise answers[host]
            return answers[host]

        async def aclose(self) -> None: ...

    monkeypatch.setattr(doctor, "DnsResolver", Resolver)
    for answer, verdict in [
        (("192.0.2.1",), "ok"),
        (doctor.DnsFailure("shop.example.com cannot be resolved: not found"), "warning"),
        (doctor.DnsTimeout("no answer came in time"), "failed"),
        (ValueError("a defect"), "failed"),
    ]:
        answers["shop.example.com"] = answer
        assert examined(settings, "DNS")["DNS"].verdict == verdict


@pytest.mark.parametrize(("free", "verdict"), [(50, "ok"), (10, "warning"), (2, "failed")])
def test_a_disk_that_fills_is_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str
) -> None:
    usage = type("Usage", (), {"total": 100 << 30, "free": free << 30})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    patient = Patient(lambda: settings, data_dir=lambda: Path("/data"))
    assert doctor.disk(patient).verdict == verdict


def test_a_check_that_hangs_or_breaks_stops_no_other(settings: Settings) -> None:
    over = threading.Event()

    def hangs(_: Patient) -> Finding:
        over.wait()
        return doctor.ok("")

    def breaks(_: Patient) -> Finding:
        raise RuntimeError("broken")

    checks = [doctor.Check(name, ask, needs_database=False) for name, ask in (("a", hangs), ("b", breaks))]
    checks.append(doctor.Check("c", lambda _: doctor.ok("fine")))
    found = dict(doctor.examine(Patient(lambda: settings), checks, deadline_s=0.05))
    over.set()
    assert [one.verdict for one in found.values()] == ["failed", "failed", "ok"]
    assert "no answer within" in found["a"].found
    assert "broken" in found["b"].found


def test_the_command_says_it_in_a_table_and_in_json(
    run: Run, sound: Engine, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    assert settings.secret_keys is not None
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", settings.secret_keys)
    ran = run("doctor")
    assert ran.code == 1, "the tests' server does not fsync, and no broker is named"
    assert "✗" in ran.out
    assert "Turn it on" in ran.out
    told = run("doctor", "--output", "json").json
    assert told["ok"] is False
    assert {one["name"]: one["verdict"] for one in told["checks"]}["durability"] == "failed"
    only: tuple[doctor.Check, ...] = (doctor.Check("database", doctor.database),)
    monkeypatch.setattr(doctor, "CHECKS", only)
    assert run("doctor").code == 0


def test_nothing_is_changed(sound: Engine, settings: Settings) -> None:
    patient = Patient(lambda: settings)
    with patient.connect() as connection:
        assert connection.execute(text("SHOW default_transaction_read_only")).scalar_one() == "on"
