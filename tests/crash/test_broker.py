"""A broker that is full, read-only, a replica or filled with what is no bell: workers go on, and use it again."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dispatcher.flow.enqueue import enqueue
from dispatcher.ids import uuid7
from dispatcher.model.event import Event
from dispatcher.workers.app import DELIVER, QUEUE
from tests.crash.load import Target
from tests.support.ledger import Ledger
from tests.support.patience import until
from tests.support.system import System

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def system(ledger: Ledger) -> Iterator[System]:
    with System(workers=1, term_s=6) as found:
        found.register(ledger, [Target("/ok/1", ("broker.tried",))])
        yield found


def deliver(system: System, count: int = 20) -> None:
    """Emits events and waits until they are delivered."""
    ids = [uuid7() for _ in range(count)]
    with system.engine.begin() as connection:
        enqueue(connection, [Event(type="broker.tried", payload={"n": n}, id=id_) for n, id_ in enumerate(ids)])
    system.wakeup.ring()
    ended = "SELECT count(*) FROM dispatcher.ended_deliveries WHERE state = 'delivered' AND event_id = ANY(:ids)"
    until(lambda: system.rows(ended, ids=ids)[0][0] == count, f"{count} deliveries are made")


def notices(system: System) -> bool:
    """Whether the worker has said, by the time that one more is delivered, that the broker cannot be used."""
    deliver(system, 1)
    return bool(lines(system, "broker.unusable"))


def lines(system: System, event: str, process: str = "worker-1") -> list[str]:
    """The lines of this log event that the process has written."""
    return [line for line in list(system.lines) if f" {process} | " in line and f" {event} " in line]


@dataclass(frozen=True)
class Fault:
    """The commands that harm Redis and that heal it, and what the log says of it."""

    harm: str
    heal: str
    said: str


FULL = Fault("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "used memory > 'maxmemory'")
REPLICA = Fault("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica|UNBLOCKED")


def command(system: System, text: str) -> None:
    with system.redis() as client:
        client.execute_command(*text.split())


@pytest.mark.parametrize("fault", [FULL, REPLICA], ids=["full", "a replica of a dead host"])
def test_workers_claim_by_themselves_while_redis_is(fault: Fault, system: System) -> None:
    deliver(system)
    system.lines.clear()
    pid = system.stack.supervisor.children["worker-1"].pid
    command(system, fault.harm)
    until(lambda: notices(system), "the worker notices")
    deliver(system)
    (said,) = lines(system, "broker.unusable")
    assert re.search(fault.said, said)
    command(system, fault.heal)
    until(lambda: lines(system, "broker.usable"), "the worker uses the broker again")
    deliver(system)
    assert system.stack.supervisor.children["worker-1"].pid == pid
    assert len(lines(system, "broker.unusable")) == len(lines(system, "broker.usable")) == 1
    assert len(lines(system, "bell.failed", "scheduler")) <= 1
    assert not any("process.exited" in line or "Traceback" in line for line in system.lines), system.lines


def test_a_worker_that_starts_while_redis_is_full_works_and_stays(system: System) -> None:
    system.lines.clear()
    command(system, FULL.harm)
    system.stack.supervisor.restart("worker-1")
    until(lambda: notices(system), "the worker notices")
    pid = system.stack.supervisor.children["worker-1"].pid
    command(system, FULL.heal)
    until(lambda: lines(system, "broker.usable"), "the worker uses the broker")
    deliver(system)
    assert system.stack.supervisor.children["worker-1"].pid == pid
    assert not any("process.exited" in line or "Traceback" in line for line in system.lines), system.lines


def message(**changes: object) -> bytes:
    """A bell as it lies in Redis's list, changed."""
    headers = {"lang": "py", "task": DELIVER, "id": "1", "root_id": "1", "parent_id": None, "group": None}
    properties = {
        "correlation_id": "1",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid7()),
    }
    body = base64.b64encode(json.dumps([[], {}, {}]).encode()).decode()
    whole: dict[str, object] = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    for name, value in changes.items():
        whole[name.replace("_", "-")] = value
    return json.dumps(whole).encode()


NO_BELLS = (
    b"\xff\xfe\x00",
    b"not JSON",
    b"",
    b"[]",
    b"7",
    b"{}",
    b'{"properties": {}}',
    b"[" * 100_000,
    message(properties=[]),
    message(body="*"),
    message(body=base64.b64encode(b"[[").decode()),
    message(headers=None),
    message(headers={}),
    message(headers={"task": "another.task", "id": "1"}),
    message(headers={"task": ["another.task"], "id": "1"}),
    message(headers={"task": DELIVER}),
    message(content_type="application/x-python-serialize"),
    message(content_type="text/nonsense"),
)


def test_what_is_no_bell_is_logged_and_dropped_and_the_worker_goes_on(system: System) -> None:
    deliver(system)
    system.lines.clear()
    pid = system.stack.supervisor.children["worker-1"].pid
    with system.redis() as client:
        for entry in NO_BELLS:
            client.lpush(QUEUE, entry)
        huge = base64.b64encode(json.dumps([["x" * 20_000_000], {}, {}]).encode()).decode()
        client.lpush(QUEUE, message(body=huge), message())
        until(lambda: not client.llen(QUEUE), "the list is empty")
    deliver(system)
    until(lambda: len(lines(system, "message.dropped")) == len(NO_BELLS), "each of them is logged")
    assert system.stack.supervisor.children["worker-1"].pid == pid
    assert not lines(system, "broker.unusable")
    assert not any("process.exited" in line or "Traceback" in line for line in system.lines), system.lines
    assert not any("x" * 100 in line for line in system.lines)
