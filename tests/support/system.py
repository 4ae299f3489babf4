"""The whole system as real processes on a temporary data directory, a load for it, and the judge of the outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import config, wiring
from dispatcher.flow import audit
from dispatcher.flow.enqueue import enqueue
from dispatcher.flow.register import NewEndpoint
from dispatcher.ids import first_id, format_id, uuid7
from dispatcher.local import Stack, find_running
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.secret_keys import secret_keys
from dispatcher.model.event import Event
from dispatcher.wakeup import Wakeup
from tests.support.ledger import Ledger, Post
from tests.support.patience import PATIENCE_S, until

REPOSITORY = Path(__file__).parents[2]
SCHEDULE = ("crash", 'description = "Short."\nwaits = ["0s", "500ms", "500ms", "1s"]\n')
# On the wire nothing happened, and the log knows it.
NOT_SENT = frozenset({"dns", "connect", "blocked_address", "invalid_config", "tls_cert", "tls_protocol"})


class System:
    """Servers, schedulers and workers; `data_dir` None makes a temporary one, removed at the end."""

    def __init__(
        self,
        *,
        workers: int = 2,
        schedulers: int = 1,
        term_s: float = 3.0,
        grace_s: float = 5.0,
        data_dir: Path | None = None,
        api: bool = False,
        **env: str,
    ) -> None:
        self._top = Path(tempfile.mkdtemp(prefix="dispatcher-crash-"))
        self._top.chmod(0o711)  # the servers' account passes through
        schedules_dir = self._top / "schedules"
        schedules_dir.mkdir()
        (schedules_dir / f"{SCHEDULE[0]}.toml").write_text(SCHEDULE[1])
        self.data_dir = data_dir or self._top / "data"
        self.term_s = term_s
        self._engine: Engine | None = None
        self.lines: deque[str] = deque(maxlen=20_000)
        self._env = {
            "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8",
            "DISPATCHER_SCHEDULES_DIR": str(schedules_dir),
            "DISPATCHER_WORKER_TERM_S": str(term_s),
            "DISPATCHER_SHUTDOWN_GRACE_S": str(grace_s),
            "PYTHONPATH": str(REPOSITORY),
            **env,
        }
        self.stack = Stack(
            migrate=lambda url: wiring.prepare_database(self._settings(url)),
            data_dir=self.data_dir,
            workers=workers,
            schedulers=schedulers,
            api=api,
            env=self._env,
            output=self._note,
            grace_s=grace_s + 3,
        )

    def _settings(self, url: str) -> config.Settings:
        ours = {name: value for name, value in self._env.items() if name.startswith(config.PREFIX)}
        return config.with_database(config.load(ours), url)

    def _note(self, name: str, line: str) -> None:
        self.lines.append(f"{time.strftime('%H:%M:%S')} {name} | {line}")

    def start(self) -> None:
        try:
            self.stack.start()
            self._reach(self.stack.database_url, self.stack.broker_url)
            expected = len(self.names("worker"))
            alive = "SELECT count(*) FROM dispatcher.workers WHERE heartbeat_until > now()"
            until(lambda: self.rows(alive)[0][0] >= expected, "the workers live")
        except BaseException:
            self.stack.stop()
            raise

    def _reach(self, database_url: str, broker_url: str) -> None:
        self.database_url, self.broker_url = database_url, broker_url
        if self._engine is None:  # the database's URL stays; a producer may be using it
            self._engine = create_engine(database_url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        self.wakeup = Wakeup(broker_url)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def stop(self) -> None:
        self.engine.dispose()
        self.stack.stop()

    def remove(self) -> None:
        remove_data_dir(self._top, server_account())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    # --- faults

    def names(self, kind: str) -> list[str]:
        """The processes of a kind: worker, scheduler."""
        return [name for name in self.stack.supervisor.children if name.startswith(kind)]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signals a process once it runs and, for SIGKILL, waits until it is gone; the supervisor restarts it."""
        child = self.stack.supervisor.children[name]
        until(lambda: child.pid is not None, f"{name} runs")
        killed = self.stack.supervisor.kill(name, number)
        if number == signal.SIGKILL:
            until(lambda: child.pid != killed, f"{name} is gone")

    def busy_workers(self, patience_s: float = 2.0) -> list[str]:
        """The workers that hold deliveries right now; those with a heartbeat where none gets any in that time."""
        deadline = time.monotonic() + patience_s
        while not (found := self._workers("EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.claimed_by = w.id)")):
            if time.monotonic() > deadline and (found := self._workers("true")):
                break
            assert time.monotonic() < deadline + PATIENCE_S, "no worker lives"
            time.sleep(0.02)
        return found

    def _workers(self, condition: str) -> list[str]:
        pids = {self.stack.supervisor.children[name].pid: name for name in self.names("worker")}
        rows = self.rows(f"SELECT pid FROM dispatcher.workers w WHERE heartbeat_until > now() AND {condition}")
        return [pids[pid] for (pid,) in rows if pid in pids]

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.broker_url, socket_timeout=5)

    def flush_redis(self) -> None:
        with self.redis() as client:
            until(lambda: _answers(client), "Redis answers")
            client.flushall()

    def restart_postgres(self) -> None:
        """A restart in immediate mode: connections are cut, what was not committed is gone, the log is replayed."""
        postgres = self.stack.postgres
        assert postgres is not None
        self.stack.supervisor.restart("postgres", lambda: postgres.stop("immediate"))

    # --- what the database says

    def rows(self, sql: str, **values: Any) -> list[Any]:
        """Of one statement, tried again while the database is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.engine.connect() as connection:
                    return list(connection.execute(text(sql), values))
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def in_flight(self) -> int:
        return self.rows("SELECT count(*) FROM dispatcher.deliveries WHERE state = 'in_flight'")[0][0]

    def register(self, ledger: Ledger, paths: dict[str, list[str]]) -> None:
        """Registers an endpoint for each path, with its event types, and tells the ledger their secrets."""
        settings = self._settings(self.database_url)
        register = wiring.register(replace(settings, secret_keys=secret_keys(self.data_dir)))
        secrets = {}
        with self.engine.begin() as connection:
            for path, types in paths.items():
                asked = NewEndpoint(url=ledger.url + path, schedule=SCHEDULE[0], event_types=types)
                _, secret = register.create(connection, asked)
                secrets[path] = secret.reveal_whsec()
        ledger.know(secrets)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


class UpSystem(System):
    """The same through `python -m dispatcher up`: its supervisor is a process of its own, which can be killed."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "dispatcher", "up", "--port", "0", "--workers", "2"]

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command(),
            env={**os.environ, **self._env, "DISPATCHER_DATA_DIR": str(self.data_dir)},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready))
        self._reader.start()
        if not ready.wait(PATIENCE_S) or (running := find_running(self.data_dir)) is None:
            self._process.kill()
            raise AssertionError("\n".join(self.lines))
        self._reach(running.database_url, running.broker_url)

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._note("up", line.rstrip())
                if line.startswith("ready "):
                    ready.set()
        ready.set()

    def kill_supervisor(self) -> None:
        """As the kernel would: no handler runs. Its guard may still be stopping the others when this returns."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def wait(self) -> int:
        """Wait until `up` has left by itself; its exit code."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def stop(self) -> None:
        self.engine.dispose()
        self._process.terminate()
        self.wait()


KINDS = ["ok"] * 14 + ["fail-1", "fail-1", "fail-2", "slow-150", "slow-150", "down"]
TYPES = [f"load.t{n:02}" for n in range(len(KINDS))]


def standard_paths() -> dict[str, list[str]]:
    """Twenty-four endpoints: one a type, four of them in trouble at first or for ever, and four that want two types."""
    paths = {f"/{kind}/{n}": [TYPES[n]] for n, kind in enumerate(KINDS)}
    return paths | {f"/ok/two-{n}": [TYPES[n], TYPES[n + 4]] for n in range(4)}


def type_of(n: int) -> str:
    """The type of the n-th event. What fails is sent to one at a time for a while, so it is asked for less."""
    place = n % len(TYPES)
    return TYPES[place if KINDS[place] in ("ok", "slow-150") or n // len(TYPES) % 5 == 0 else n % KINDS.count("ok")]


@dataclass
class Load:
    """Producers that emit `count` events in transactions of `chunk`, over `seconds`, in a thread.

    `committed` holds the ids of every transaction whose commit was confirmed, at first or on a repetition with the
    same ids: what a producer may rely on.
    """

    system: System
    count: int = 2000
    seconds: float = 5.0
    chunk: int = 20
    committed: set[UUID] = field(default_factory=set)
    repeated: int = 0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._first = first_id(self.since)
        self._thread = threading.Thread(target=self._run, name="producer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for start in range(0, self.count, self.chunk):
                time.sleep(max(0.0, began + self.seconds * start / self.count - time.monotonic()))
                self._emit(
                    [
                        Event(
                            type=type_of(n),
                            payload={"n": n, "amount": 1000 + n, "note": "x" * 200},
                            id=uuid7(),
                            object_id=f"pay_{n}",
                        )
                        for n in range(start, min(start + self.chunk, self.count))
                    ]
                )
        except BaseException as error:
            self.errors.append(error)

    def _emit(self, events: list[Event]) -> None:
        """Until the commit is confirmed: the ids make a repetition safe."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.system.engine.begin() as connection:
                    enqueue(connection, events)
                break
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                self.repeated += 1
                time.sleep(0.1)
        self.system.wakeup.ring()
        self.committed.update(event.id for event in events if event.id is not None)

    def open_deliveries(self) -> int:
        return self.system.rows(
            "SELECT count(*) FROM dispatcher.deliveries WHERE event_id >= :first", first=self._first
        )[0][0]

    def drain(self) -> float:
        """Waits until every delivery of this load has ended; seconds since the call."""
        return until(lambda: self.open_deliveries() == 0, "everything has ended")


@dataclass(frozen=True)
class Verdict:
    """What the ledger, the log and the checker agree on, or not.

    `lost`: committed events of which some delivery has not ended, or ended as delivered without an accepted POST.
    `duplicates`: POSTs after one that the receiver had accepted. `unknown`: attempts whose outcome is not known;
    `admitted`: these and those whose outcome came late, after a rescue. `unexplained`: duplicates beyond what is
    admitted of the same event and endpoint. `unlogged`: POSTs without any attempt that could be theirs; `phantom`:
    attempts logged as sent and answered without a POST. `forged`: POSTs whose signature does not verify.
    """

    events: int
    deliveries: int
    posts: int
    attempts: int
    unknown: int
    lost: int
    admitted: int
    duplicates: int
    unexplained: int
    unlogged: int
    phantom: int
    forged: int
    states: dict[str, int]
    violations: list[audit.Violation]
    examples: list[str]

    @property
    def sound(self) -> bool:
        """Whether every promise held that holds whatever the fault was."""
        return not (self.lost or self.unexplained or self.unlogged or self.phantom or self.forged or self.violations)

    def __str__(self) -> str:
        numbers = " ".join(
            f"{name}={getattr(self, name)}"
            for name in (
                *("events", "deliveries", "posts", "attempts", "unknown", "admitted", "lost", "duplicates"),
                *("unexplained", "unlogged", "phantom", "forged"),
            )
        )
        trouble = [str(violation) for violation in self.violations] + self.examples
        return "\n  ".join([f"{numbers} {self.states}", *trouble])


def judge(system: System, ledger: Ledger, load: Load) -> Verdict:
    """Compares the receivers' ledger with the delivery log, both ways, and runs the checker. After `drain` only."""
    first = load._first
    committed = {format_id("evt", id_) for id_ in load.committed}
    deliveries = {
        id_: (format_id("evt", event_id), url.removeprefix(ledger.url), state)
        for id_, event_id, url, state in system.rows(
            """SELECT d.id, d.event_id, e.url, d.state FROM (
                 SELECT id, event_id, endpoint_id, state FROM dispatcher.deliveries WHERE event_id >= :first UNION ALL
                 SELECT id, event_id, endpoint_id, state FROM dispatcher.ended_deliveries WHERE event_id >= :first) d
               JOIN dispatcher.endpoints e ON e.id = d.endpoint_id""",
            first=first,
        )
    }
    attempts = system.rows(
        """SELECT a.delivery_id, a.outcome, a.outcome_known, coalesce(a.was_lost, false) FROM dispatcher.attempts a
           JOIN dispatcher.ended_deliveries d ON d.id = a.delivery_id WHERE d.event_id >= :first""",
        first=first,
    )
    known: Counter[tuple[str, str]] = Counter()
    unknown: Counter[tuple[str, str]] = Counter()
    admitted: Counter[tuple[str, str]] = Counter()
    for delivery_id, outcome, is_known, was_lost in attempts:
        pair = deliveries[delivery_id][:2]
        # A lost worker that was only late has told its outcome since. The decision may be its own too: it ends a
        # delivery that waits after the rescue, unless the next claim is just being made.
        admitted[pair] += not is_known or was_lost
        if not is_known:
            unknown[pair] += 1
        elif outcome not in NOT_SENT:
            known[pair] += 1
    posts: dict[tuple[str, str], list[Post]] = defaultdict(list)
    ours = {pair[0] for pair in deliveries.values()} | committed
    for post in ledger.posts():
        if post.webhook_id in ours:
            posts[post.webhook_id, post.path].append(post)

    examples: list[str] = []

    def count(what: str, found: Iterable[tuple[tuple[str, str], int]]) -> int:
        total = 0
        for pair, number in found:
            total += number
            if len(examples) < 10:
                examples.append(f"{what}: {pair[0]} {pair[1]}")
        return total

    pairs = posts.keys() | known.keys()
    surplus = {pair: _after_acceptance(found) for pair, found in posts.items()}
    reached = {pair[0] for pair in deliveries.values()}
    lost = count("not in the database", (((id_, ""), 1) for id_ in committed - reached))
    for id_, path, state in deliveries.values():
        if state in ("waiting", "in_flight"):
            lost += count(f"still {state}", [((id_, path), 1)])
        elif state == "delivered" and not any(post.status == 200 for post in posts[id_, path]):
            lost += count("delivered, not received", [((id_, path), 1)])
    with system.engine.connect() as connection:
        violations = audit.verify(connection, since=load.since, tolerance_s=0.02)
    return Verdict(
        events=len(load.committed),
        deliveries=len(deliveries),
        posts=sum(map(len, posts.values())),
        attempts=len(attempts),
        unknown=sum(unknown.values()),
        admitted=sum(admitted.values()),
        lost=lost,
        duplicates=sum(surplus.values()),
        unexplained=count(
            "a duplicate that the log does not admit",
            ((pair, n - admitted[pair]) for pair, n in surplus.items() if n > admitted[pair]),
        ),
        unlogged=count(
            "a POST without an attempt",
            ((pair, extra) for pair in pairs if (extra := len(posts[pair]) - known[pair] - unknown[pair]) > 0),
        ),
        phantom=count(
            "an attempt without a POST",
            ((pair, missing) for pair in pairs if (missing := known[pair] - len(posts[pair])) > 0),
        ),
        forged=count(
            "a signature that does not verify",
            ((pair, 1) for pair, found in posts.items() for post in found if post.verified is not True),
        ),
        states=dict(Counter(state for *_, state in deliveries.values())),
        violations=violations,
        examples=examples,
    )


def _after_acceptance(found: list[Post]) -> int:
    """How many POSTs came after one that had been accepted: what a merchant sees twice."""
    for n, post in enumerate(found):
        if 200 <= post.status < 300:
            return len(found) - n - 1
    return 0
