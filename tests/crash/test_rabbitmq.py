"""RabbitMQ as the broker: not there yet, out of disk, killed, and back. Nothing is lost, and workers use it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatcher.local.guard import Guard
from tests.crash.load import Target
from tests.crash.test_broker import deliver, lines
from tests.support.ledger import Ledger
from tests.support.patience import until
from tests.support.rabbitmq import RabbitMQ, is_installed
from tests.support.system import System

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not is_installed(), reason="no RabbitMQ: Debian's package rabbitmq-server is not installed"),
]


@pytest.fixture(scope="module")
def rabbitmq(servers_guard: Guard) -> Iterator[RabbitMQ]:
    with RabbitMQ(servers_guard) as found:
        yield found


@pytest.fixture(scope="module")
def system(ledger: Ledger, rabbitmq: RabbitMQ) -> Iterator[System]:
    with System(workers=1, term_s=6, env={"DISPATCHER_BROKER_URL": rabbitmq.url}) as found:
        found.register(ledger, [Target("/ok/1", ("broker.tried",))])
        yield found


def test_workers_go_on_without_rabbitmq_and_use_it_when_it_is_back(system: System, rabbitmq: RabbitMQ) -> None:
    pid = system.stack.supervisor.children["worker-1"].pid
    deliver(system)
    until(lambda: len(lines(system, "broker.usable")) == len(lines(system, "broker.unusable")), "RabbitMQ has started")

    def unusable() -> bool:
        deliver(system, 1)
        return len(lines(system, "broker.unusable")) == len(lines(system, "broker.usable")) + 1

    def usable() -> bool:
        return len(lines(system, "broker.unusable")) == len(lines(system, "broker.usable"))

    rabbitmq.set_disk_alarm(on=True)
    until(unusable, "the worker notices that RabbitMQ takes nothing")
    deliver(system)
    rabbitmq.set_disk_alarm(on=False)
    until(usable, "the worker uses it again")
    deliver(system)

    rabbitmq.kill()
    until(unusable, "the worker notices that RabbitMQ is gone")
    deliver(system)
    rabbitmq.start()
    deliver(system)
    until(usable, "the worker uses it again")
    deliver(system)
    assert system.stack.supervisor.children["worker-1"].pid == pid
    assert len(lines(system, "broker.unusable")) >= 2
    assert not any("process.exited" in line or "Traceback" in line for line in system.lines), system.lines
