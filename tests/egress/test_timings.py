"""Where the time of an attempt went, also of one that got no answer."""

from __future__ import annotations

import ssl

import pytest

from dispatcher.egress import AddressPolicy, PinnedTransport, Pool
from dispatcher.egress.failures import DnsFailure
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from tests.egress.conftest import LOOPBACK
from tests.egress.test_transport import black_hole, post
from tests.support.receivers import FIN, HANG, OK, RST, Names, RawReceiver, dead_port, play, play_each
from tests.support.tls import Authority

DNS, CONNECT, TLS, WAIT = range(4)


class Nobody(Names):
    """Knows no name."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        raise DnsFailure(f"{host} cannot be resolved")

    def cached(self, host: str) -> tuple[str, ...] | None:
        return None


def known(outcome: Outcome) -> list[int]:
    """Which steps have a time; none of them can be below zero or longer than the attempt."""
    assert outcome.timings_ms is not None
    given = [one for one in outcome.timings_ms if one is not None]
    assert all(one >= 0 for one in given)
    assert sum(given) <= outcome.duration_ms
    return [step for step, one in enumerate(outcome.timings_ms) if one is not None]


async def test_a_name_that_cannot_be_resolved_took_its_time_in_the_look_up() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Nobody())
    outcome = await post(transport, "http://shop.example.com/")
    assert outcome.kind is OutcomeClass.DNS
    assert known(outcome) == [DNS]
    await transport.aclose()


async def test_an_address_that_may_not_be_dialled_has_a_look_up_only() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(default=["10.0.0.1"]))
    outcome = await post(transport, "http://shop.example.com/")
    assert outcome.kind is OutcomeClass.BLOCKED_ADDRESS
    assert known(outcome) == [DNS]
    await transport.aclose()


async def test_a_refused_dial_has_its_look_up_and_its_dial(transport: PinnedTransport) -> None:
    async with dead_port() as port:
        outcome = await post(transport, f"http://shop.example.com:{port}/")
    assert outcome.kind is OutcomeClass.CONNECT
    assert known(outcome) == [DNS, CONNECT]


async def test_a_dial_that_nobody_accepts_took_its_time_there() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(), connect_timeout_s=0.1)
    with black_hole() as port:
        outcome = await post(transport, f"http://shop.example.com:{port}/")
    assert known(outcome) == [DNS, CONNECT]
    assert outcome.timings_ms is not None
    assert (outcome.timings_ms[CONNECT] or 0) > (outcome.timings_ms[DNS] or 0)
    await transport.aclose()


async def test_a_certificate_that_nobody_vouches_for_took_its_time_in_the_handshake(authority: Authority) -> None:
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK), resolver=Names(), ssl_context=ssl.create_default_context()
    )
    context = authority.server_context("shop.example.com")
    async with RawReceiver(play(OK), ssl_context=context) as receiver:
        outcome = await post(transport, f"https://shop.example.com:{receiver.port}/")
    assert (outcome.kind, outcome.phase) == (OutcomeClass.TLS_CERT, Phase.TLS)
    assert known(outcome) == [DNS, CONNECT, TLS]
    await transport.aclose()


async def test_a_handshake_that_falls_silent_took_its_time_there(authority: Authority) -> None:
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK),
        resolver=Names(),
        ssl_context=authority.client_context(),
        connect_timeout_s=0.1,
    )
    async with RawReceiver(play(HANG, read_first=False)) as receiver:
        outcome = await post(transport, f"https://shop.example.com:{receiver.port}/")
    assert (outcome.kind, outcome.phase) == (OutcomeClass.DEADLINE, Phase.TLS)
    assert known(outcome) == [DNS, CONNECT, TLS]
    await transport.aclose()


@pytest.mark.parametrize(
    ("step", "kind"), [(HANG, OutcomeClass.DEADLINE), (FIN, OutcomeClass.CLOSED), (RST, OutcomeClass.RESET)]
)
async def test_an_answer_that_never_came_was_waited_for(
    transport: PinnedTransport, step: object, kind: OutcomeClass
) -> None:
    async with RawReceiver(play(step)) as receiver:  # type: ignore[arg-type]
        outcome = await post(
            transport, f"http://shop.example.com:{receiver.port}/", deadline_s=0.5 if step is HANG else 60
        )
    assert outcome.kind is kind
    assert known(outcome) == [DNS, CONNECT, WAIT]


async def test_over_tls_every_step_is_known(transport: PinnedTransport, authority: Authority) -> None:
    context = authority.server_context("shop.example.com")
    async with RawReceiver(play(HANG), ssl_context=context) as receiver:
        outcome = await post(transport, f"https://shop.example.com:{receiver.port}/", deadline_s=0.5)
    assert outcome.kind is OutcomeClass.DEADLINE
    assert known(outcome) == [DNS, CONNECT, TLS, WAIT]


async def test_on_a_kept_connection_there_is_a_wait_only(transport: PinnedTransport) -> None:
    async with RawReceiver(play_each((OK,), (HANG,))) as receiver:
        url = f"http://shop.example.com:{receiver.port}/"
        first = await post(transport, url)
        second = await post(transport, url, deadline_s=0.5)
    assert receiver.connections == 1
    assert known(first) == [DNS, CONNECT, WAIT]
    assert second.kind is OutcomeClass.DEADLINE
    assert known(second) == [WAIT]


async def test_a_request_that_can_never_be_sent_has_no_times(transport: PinnedTransport) -> None:
    outcome = await post(transport, "http://shop.example.com/", headers=[(b"X", b"a\0b")])
    assert outcome.kind is OutcomeClass.INVALID_CONFIG
    assert outcome.timings_ms is None


async def test_a_pool_without_room_fails_at_the_dial() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(), pool=Pool(max_connections=0))
    outcome = await post(transport, "http://shop.example.com/")
    assert outcome.kind is OutcomeClass.INTERNAL
    assert known(outcome) == [DNS, CONNECT]
    await transport.aclose()
