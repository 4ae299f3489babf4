"""`dispatcher doctor`: what is wrong, and what to do about it.

Each check is a function from the `Patient` to what it found. It only looks, within a bounded time; what it raises is
what it found. The broker's check also sends a message, which changes nothing.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import click
from rich.text import Text
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from dispatcher import broker as broker_check
from dispatcher import config, telemetry, wakeup, wiring
from dispatcher.cli import machine
from dispatcher.cli.output import counted, output_option, print_json, print_line, print_table
from dispatcher.clock import SYSTEM, Clock
from dispatcher.egress.failures import DnsFailure, DnsTimeout, LocalFailure
from dispatcher.egress.resolver import DnsResolver
from dispatcher.errors import ConfigurationError, DispatcherError, Unavailable
from dispatcher.flow import audit
from dispatcher.flow.requests import SECRET_PURPOSE
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import format_id
from dispatcher.local.paths import default_data_dir
from dispatcher.local.running import find_running
from dispatcher.signing import SealError
from dispatcher.store import endpoints, event_types, health, metrics, migrate, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from dispatcher.cli.output import Output
    from dispatcher.config import Settings

DEADLINE_S: Final = 10.0
"""Of each check, whatever it waits for."""

CONNECT_S: Final = 3
STATEMENT_S: Final = 5
DNS_S: Final = 3.0

SKEW_S: Final = (0.5, 5.0)
LAG_S: Final = (60.0, 600.0)
TALLY_S: Final = 60.0
DAYS_AHEAD: Final = 2
FREE_SHARE: Final = (0.15, 0.05)
FREE_BYTES: Final = 1 << 30
SAMPLE: Final = 200

Verdict = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and where that is not well what to do."""

    verdict: Verdict
    found: str
    advice: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def skipped(why: str) -> Finding:
    """There was nothing to look at."""
    return Finding("skipped", why)


class Patient:
    """What is examined. `settings` raises what is wrong with them; the database is asked by `connect`.

    `connect` gives a connection that can only read and waits at most `STATEMENT_S` for a statement.
    """

    def __init__(
        self,
        read: Callable[[], Settings] = machine.settings,
        *,
        data_dir: Callable[[], Path | None] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._read = read
        self.data_dir = data_dir or embedded_data_dir
        self.clock = clock

    @cached_property
    def settings(self) -> Settings:
        """Completed from the running `up` where no database is named."""
        return self._read()

    @cached_property
    def engine(self) -> Engine:
        """Of connections that read only."""
        assert self.settings.database_url is not None
        return _reading_engine(self.settings.database_url)

    def connect(self) -> Connection:
        """A connection to look with; close it."""
        return self.engine.connect()


def _reading_engine(url: str) -> Engine:
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
    sessions.set_up(engine, statement_timeout=f"{STATEMENT_S}s", lock_timeout="2s", default_transaction_read_only="on")
    return engine


@dataclass(frozen=True, slots=True)
class Check:
    """A question. `needs_database`: it is not asked where the database did not answer."""

    name: str
    ask: Callable[[Patient], Finding]
    needs_database: bool = True


def settings(patient: Patient) -> Finding:
    """Every setting and file of ours can be read, and a database is named."""
    read = config.load()
    wiring.profiles(read)
    found = patient.settings
    if found.secret_keys is None:
        return Finding("failed", "DISPATCHER_SECRET_KEYS is not set", "Name the keyring that workers have.")
    wiring.keyring(found)
    return ok("settings, schedules, profiles and keyring can be read")


def database(patient: Patient) -> Finding:
    """It answers, and is not too old."""
    with patient.connect() as connection:
        server = health.server(connection)
        asked_s = patient.clock.monotonic()
        health.clock(connection)
        took_ms = (patient.clock.monotonic() - asked_s) * 1000
    found = f"PostgreSQL {server.version_text} answers in {took_ms:.1f} ms"
    if server.version < migrate.OLDEST_SERVER * 10_000:
        return Finding("failed", found, f"Version {migrate.OLDEST_SERVER} or later is needed.")
    return ok(found)


def pooler(patient: Patient) -> Finding:
    """Workers, schedulers and `migrate` reach the database past a pooler, and it is the one that the API has."""
    direct_url = patient.settings.direct_database_url
    with patient.connect() as connection:
        is_pooled, here = sessions.is_pooled(connection), health.identity(connection)
    if direct_url is None:
        if not is_pooled:
            return ok("none is between: every process reaches PostgreSQL itself")
        found = (
            "DISPATCHER_DATABASE_URL leads through a connection pooler, and DISPATCHER_DIRECT_DATABASE_URL is not set"
        )
        return Finding(
            "failed", found, "Set it to PostgreSQL's own address: workers, schedulers and migrate need that."
        )
    with _reading_engine(direct_url).connect() as connection:
        if sessions.is_pooled(connection):
            found = "DISPATCHER_DIRECT_DATABASE_URL leads through a connection pooler"
            return Finding("failed", found, "Set it to PostgreSQL's own address.")
        if health.identity(connection) != here:
            found = "DISPATCHER_DATABASE_URL and DISPATCHER_DIRECT_DATABASE_URL lead to two databases"
            return Finding("failed", found, "Correct one of them: what the API accepts, workers must find.")
    way = "through a pooler" if is_pooled else "directly"
    return ok(f"the API reaches the database {way}, workers and schedulers directly")


def schema(patient: Patient) -> Finding:
    """The schema is the one that this version has."""
    with patient.connect() as connection:
        revision = migrate.current(connection)
    head = migrate.head()
    if revision == head:
        return ok(f"at {revision}")
    if migrate.serves(revision):
        return Finding("warning", f"at {revision}, newer than this version's {head}", "Replace what runs still.")
    return Finding("failed", f"at {revision or 'nothing'}; this version has {head}", "Run `dispatcher migrate`.")


def clock(patient: Patient) -> Finding:
    """The clock here and the database's agree."""
    with patient.connect() as connection:
        health.clock(connection)  # the first statement also connects
        before = patient.clock.now()
        there = health.clock(connection)
        after = patient.clock.now()
    # The middle of the question is when it was answered, give or take half of how long it took.
    apart_s = abs((there - before - (after - before) / 2).total_seconds())
    apart_s = max(0.0, apart_s - (after - before).total_seconds() / 2)
    found = f"this machine's is {apart_s:.3f} s apart from the database's"
    if apart_s <= SKEW_S[0]:
        return ok(found)
    advice = "Synchronise both (NTP): signatures carry the worker's time, due times are the database's."
    return Finding("warning" if apart_s <= SKEW_S[1] else "failed", found, advice)


def durability(patient: Patient) -> Finding:
    """What is committed is on the disk."""
    with patient.connect() as connection:
        server = health.server(connection)
    off = [
        name
        for name in ("fsync", "synchronous_commit", "full_page_writes")
        if getattr(server, name) in {"off", "false"}
    ]
    if off:
        found = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off"
        return Finding("failed", found, "Turn it on: else a crash of the server loses events that got a 202.")
    return ok(f"fsync is on, synchronous_commit is {server.synchronous_commit}")


def partitions(patient: Patient) -> Finding:
    """Those of the next days are there, and nothing fell beside."""
    with patient.connect() as connection:
        missing = health.missing_partitions(connection, patient.clock.now(), days=DAYS_AHEAD)
        filled = health.filled_defaults(connection)
    if missing:
        found = f"{len(missing)} missing until the day after tomorrow, such as {missing[0]}"
        return Finding(
            "failed", found, "The leading scheduler makes them: is one running? `dispatcher migrate` does, too."
        )
    if filled:
        found = f"rows in {', '.join(filled)}"
        return Finding("warning", found, "Of days that had no partition: they work, but cannot be dropped by the day.")
    return ok("there until the day after tomorrow, nothing beside them")


def autovacuum(patient: Patient) -> Finding:
    """The server cleans up behind us."""
    with patient.connect() as connection:
        server, tables = health.server(connection), health.not_vacuumed(connection)
    off = [name for name in ("autovacuum", "track_counts") if getattr(server, name) != "on"]
    if off or tables:
        found = f"off: {', '.join([*off, *tables])}"
        return Finding("failed", found, "Turn it on: the tables of live deliveries would grow without end.")
    return ok("on, for all tables")


def broker(patient: Patient) -> Finding:
    """It takes a message."""
    url = patient.settings.broker_url
    if url is None:
        return Finding("failed", "none is named", "Set DISPATCHER_BROKER_URL as the workers have it.")
    name = wakeup.broker_name(url)
    if wakeup.redis_url(url) is not None:
        try:
            took_ms = broker_check.try_write(url) * 1000
        except broker_check.BrokerRefuses as error:
            return Finding("failed", str(error), f"{error.advice} Until then workers poll.")
        return ok(f"Redis at {name} takes a message in {took_ms:.1f} ms")
    from dispatcher.workers.app import Bell, make_app  # Celery is slow to import, and only this needs it

    try:
        Bell(make_app(url))(1)
    except Exception as error:  # noqa: BLE001 - whatever the broker's libraries raise
        found = f"the broker {name} takes no message: {telemetry.one_line(error)}"
        return Finding("failed", found, "Start it, free its disk and memory, or correct the setting that names it.")
    return ok(f"RabbitMQ at {name} takes messages; without Redis, schedulers poll")


def wakeups(patient: Patient) -> Finding:
    """Schedulers hear that there is something to do."""
    url = patient.settings.broker_url
    if wakeup.redis_url(url) is None:
        return skipped("without Redis schedulers poll")
    listening = broker_check.listeners(url)
    if not listening:
        return Finding("warning", "no scheduler listens", "Deliveries start at the next poll only: start a scheduler.")
    return ok(f"{counted(listening, 'scheduler')} listening")


def workers(patient: Patient) -> Finding:
    """There are some, with room."""
    with patient.connect() as connection:
        found = health.workers(connection)
    text = f"{found.alive} alive, with room for {counted(found.room, 'delivery', 'deliveries')}"
    if not found.alive:
        return Finding("failed", "none is alive", "Start `dispatcher worker`: nothing is sent until then.")
    if not found.room:
        advice = "All is in flight that may be: add workers, or raise DISPATCHER_MAX_IN_FLIGHT."
        return Finding("warning", text, advice)
    if found.dead:
        return Finding("warning", f"{text}; {found.dead} dead within the last hour", "See why: its log, the kernel's.")
    return ok(text)


def scheduler(patient: Patient) -> Finding:
    """One leads."""
    with patient.connect() as connection:
        for_s = health.leads_for_s(connection)
    if for_s is None or for_s <= 0:
        found = "none has ever led" if for_s is None else f"none leads, since {-for_s:,.0f} s"
        return Finding("failed", found, "Start `dispatcher scheduler`: nothing is rung for, rescued or pruned without.")
    return ok("one leads")


def backlog(patient: Patient) -> Finding:
    """What is due is sent."""
    with patient.connect() as connection:
        found = metrics.read(connection)
    text = (
        f"{found.waiting:,} waiting ({found.held:,} held), {found.in_flight:,} in flight, "
        f"the oldest due for {found.oldest_due_s:,.1f} s"
    )
    if found.oldest_due_s <= LAG_S[0]:
        return ok(text)
    advice = "Work is not taken: look at workers, at their room, and at what `dispatcher deliveries list` says."
    return Finding("warning" if found.oldest_due_s <= LAG_S[1] else "failed", text, advice)


def claims(patient: Patient) -> Finding:
    """Nothing hangs at a dead worker."""
    return _of_now(
        patient,
        audit.CLAIM_OF_DEAD_WORKER,
        "no claim of a dead worker",
        "The leading scheduler rescues them: is one running?",
    )


def lanes(patient: Patient) -> Finding:
    """Nothing that is due sleeps."""
    advice = "`dispatcher endpoints disable` and `enable` of such an endpoint wakes it. Please report it: it is a bug."
    return _of_now(patient, audit.ENDPOINT_ASLEEP, "no due work that nobody would find", advice)


def _of_now(patient: Patient, name: str, well: str, advice: str) -> Finding:
    with patient.connect() as connection, connection.begin():
        found = [one for one in audit.verify_now(connection) if one.check == name and one.count]
    if found:
        return Finding("failed", "; ".join(f"{one.count}: {one.examples[0]}" for one in found), advice)
    return ok(well)


def tallies(patient: Patient) -> Finding:
    """The statistics are kept up."""
    with patient.connect() as connection:
        oldest_s = health.oldest_tally_s(connection)
    if oldest_s is not None and oldest_s > TALLY_S:
        found = f"not folded for {oldest_s:,.0f} s"
        return Finding("failed", found, "Statistics lag behind: is a scheduler running? Its log says what failed.")
    return ok("statistics are up to date")


def schemas(patient: Patient) -> Finding:
    """The schemas of event types can be judged by: those that an earlier version has stored, too."""
    with patient.connect() as connection:
        stored = {row.name: row.schema for row in event_types.list_(connection) if row.schema is not None}
    if not stored:
        return skipped("no event type has a schema")
    try:
        refusals = {name: wiring.schema_refusal(schema) for name, schema in stored.items()}
    except Unavailable as error:
        return Finding("failed", str(error), "The API and whatever emits these types need it, too.")
    refused = [f"{name} ({refusal})" for name, refusal in refusals.items() if refusal is not None]
    if refused:
        found = f"{len(refused)} of {counted(len(stored), 'schema')} refused: {'; '.join(refused)}"
        return Finding("failed", found, "Events of these types are refused: replace the schemas.")
    return ok(f"{counted(len(stored), 'event type')} with a schema")


def signing_keys(patient: Patient) -> Finding:
    """The platform's own keys sign and verify."""
    keyring = wiring.keyring(patient.settings)
    with patient.connect() as connection:
        keys = PlatformKeys.load(connection, keyring, patient.clock)
    keys.self_test()
    if not keys.keys:
        return Finding("warning", "there is none", "`dispatcher signing-keys generate` makes one; a worker does, too.")
    return ok(f"{counted(len(keys.keys), 'key')} published; each that signs was tried")


def secrets(patient: Patient) -> Finding:
    """The keyring opens what endpoints sign with."""
    keyring = wiring.keyring(patient.settings)
    with patient.connect() as connection:
        found = endpoints.list_(connection, limit=SAMPLE)
    closed: list[str] = []
    for one in found:
        place = one.id if one.origin is None else ""
        try:
            for secret in one.secrets:
                keyring.open(secret.sealed, tenant=one.tenant_id, endpoint=place, purpose=SECRET_PURPOSE)
        except SealError as error:
            closed.append(f"{format_id('ep', one.id)}: {error}")
    if closed:
        text = f"those of {len(closed)} of {counted(len(found), 'endpoint')} do not open, such as {closed[0]}"
        return Finding(
            "failed", text, "DISPATCHER_SECRET_KEYS lacks the key that sealed them: add it behind the first."
        )
    if not found:
        return skipped("no endpoint is registered")
    return ok(f"those of the newest {counted(len(found), 'endpoint')} open")


def dns(patient: Patient) -> Finding:
    """Endpoints' names can be looked up, from this machine."""
    with patient.connect() as connection:
        found = endpoints.list_(connection, limit=SAMPLE)
    hosts = [urlsplit(one.url).hostname or "" for one in found]
    names = list(dict.fromkeys(host for host in hosts if _is_name(host)))[:3]
    if not names:
        return skipped("no endpoint has a name to look up")
    return asyncio.run(_look_up(names))


def _is_name(host: str) -> bool:
    return "." in host and not host.rstrip(".").endswith("localhost") and not host.replace(".", "").isdigit()


async def _look_up(names: Sequence[str]) -> Finding:
    """Looks for all of them at once: one that is found will do."""
    resolver = DnsResolver(timeout_s=DNS_S)
    try:
        answers = await asyncio.gather(*(resolver.resolve(name) for name in names), return_exceptions=True)
    finally:
        await resolver.aclose()
    if any(isinstance(answer, tuple) for answer in answers):
        return ok(f"{names[[isinstance(answer, tuple) for answer in answers].index(True)]} has an address")
    failure = next(answer for answer in answers if isinstance(answer, BaseException))
    if not isinstance(failure, DnsFailure | LocalFailure):
        raise failure
    ours = any(isinstance(answer, LocalFailure | DnsTimeout) for answer in answers)
    advice = "Look at /etc/resolv.conf and the way to its servers; workers need the same."
    return Finding("failed" if ours else "warning", str(failure), advice if ours else "Is the endpoint's URL right?")


def disk(patient: Patient) -> Finding:
    """The embedded servers have room for their files."""
    data_dir = patient.data_dir()
    if data_dir is None:
        return skipped("the servers are not embedded")
    usage = shutil.disk_usage(data_dir)
    share = usage.free / usage.total
    found = f"{usage.free / 2**30:,.1f} GiB free, {share:.0%}, where DATA_DIR is"
    if share <= FREE_SHARE[1] or usage.free < FREE_BYTES:
        return Finding("failed", found, "Make room: PostgreSQL stops when it is full.")
    return Finding("warning", found, "Make room before it is full.") if share <= FREE_SHARE[0] else ok(found)


def embedded_data_dir() -> Path | None:
    """Where the embedded servers have their files; None where others are used, or none run."""
    found = config.load()
    if found.database_url is not None:
        return None
    data_dir = found.data_dir or default_data_dir()
    return data_dir if find_running(data_dir) is not None else None


CHECKS: Final = (
    Check("settings", settings, needs_database=False),
    Check("database", database, needs_database=False),
    Check("pooler", pooler),
    Check("schema", schema),
    Check("clock", clock),
    Check("durability", durability),
    Check("partitions", partitions),
    Check("autovacuum", autovacuum),
    Check("broker", broker, needs_database=False),
    Check("wake-ups", wakeups, needs_database=False),
    Check("workers", workers),
    Check("scheduler", scheduler),
    Check("backlog", backlog),
    Check("claims", claims),
    Check("lanes", lanes),
    Check("tallies", tallies),
    Check("event types", schemas),
    Check("signing keys", signing_keys),
    Check("secrets", secrets),
    Check("DNS", dns),
    Check("disk", disk, needs_database=False),
)


def examine(
    patient: Patient, checks: Sequence[Check] = CHECKS, *, deadline_s: float = DEADLINE_S
) -> Iterator[tuple[str, Finding]]:
    """The checks in turn, each with what it found.

    None stops another; but where the database does not answer, what it would have to answer is skipped.
    """
    answers = True
    for check in checks:
        if check.needs_database and not answers:
            yield check.name, skipped("skipped: the database is not available")
            continue
        found = _bounded(check, patient, deadline_s)
        if check.ask is database and found.verdict == "failed":
            answers = False
        yield check.name, found


def _bounded(check: Check, patient: Patient, deadline_s: float) -> Finding:
    """What it found, or that it found nothing in time; in a thread, since some waits cannot be bounded otherwise."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_asked(check, patient)), name=check.name, daemon=True)
    thread.start()
    thread.join(deadline_s)
    return found[0] if found else Finding("failed", f"no answer within {deadline_s:g} s", "It hangs: try again.")


def _asked(check: Check, patient: Patient) -> Finding:
    try:
        return check.ask(patient)
    except ConfigurationError as error:
        return Finding("failed", "; ".join(map(str, error.problems)), "Correct it: docs/configuration.md.")
    except DBAPIError as error:
        return Finding("failed", str(wiring.unavailable(error)), "Look at the database's own log.")
    except Unavailable as error:
        return Finding("failed", str(error), "Start it, or correct the setting that names it.")
    except DispatcherError as error:
        return Finding("failed", str(error))
    except Exception as error:  # noqa: BLE001 - one check that fails must not hide what the others find
        return Finding("failed", f"{type(error).__name__}: {error}", "The check itself failed.")


_MARKS: Final[dict[Verdict, Text]] = {
    "ok": Text("✓", style="green"),
    "warning": Text("!", style="bold yellow"),
    "failed": Text("✗", style="bold red"),
    "skipped": Text("–", style="dim"),
}


@click.command()
@output_option
def doctor(output: Output) -> None:
    """Diagnose the system of this machine.

    It looks at everything that can be wrong, and says what to do. It changes no data, and ends within seconds. ✓ is
    well, ! deserves a look, ✗ is wrong, – was not looked at. It exits with 1 where anything is wrong.
    """
    found = list(examine(Patient(), CHECKS))
    failed = sum(one.verdict == "failed" for _, one in found)
    if output == "json":
        print_json({"ok": not failed, "checks": [{"name": name, **asdict(one)} for name, one in found]})
    else:
        print_table(
            ["", "check", "found", "what to do"],
            [(_MARKS[one.verdict], name, one.found, one.advice) for name, one in found],
        )
        print_line("")
        warned = sum(one.verdict == "warning" for _, one in found)
        print_line(
            f"{counted(failed, 'check')} failed, {warned} {'deserves' if warned == 1 else 'deserve'} a look",
            style="bold red" if failed else "yellow" if warned else "green",
        )
    if failed:
        sys.exit(1)
