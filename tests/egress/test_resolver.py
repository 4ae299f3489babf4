"""Names to addresses, bounded in time and number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dispatcher.clock import SYSTEM
from dispatcher.egress import AddressPolicy, DnsResolver, PinnedTransport, UrlPolicy, build_request, parse_url, send
from dispatcher.egress.failures import DnsFailure, DnsTimeout, LocalFailure
from dispatcher.model.outcome import OutcomeClass
from tests.egress.dns_server import SERVFAIL, DnsServer
from tests.support.receivers import LedgerReceiver, dead_port


@asynccontextmanager
async def resolver_of(server: DnsServer, **settings: Any) -> AsyncIterator[DnsResolver]:
    async with server:
        resolver = DnsResolver(nameservers=[server.address], **settings)
        yield resolver
        await resolver.aclose()


async def test_both_families_are_asked() -> None:
    server = DnsServer({"shop.example.com": ["192.0.2.1", "2001:db8::1"]})
    async with resolver_of(server) as resolver:
        assert set(await resolver.resolve("shop.example.com")) == {"192.0.2.1", "2001:db8::1"}
    assert {kind for _, kind in server.questions} == {1, 28}


async def test_one_family_is_enough() -> None:
    server = DnsServer({"four.example": ["192.0.2.1"], "six.example": ["2001:db8::1"]})
    async with resolver_of(server) as resolver:
        assert await resolver.resolve("four.example") == ("192.0.2.1",)
        assert await resolver.resolve("six.example") == ("2001:db8::1",)


async def test_concurrent_look_ups_of_a_name_are_one_and_its_answer_is_kept() -> None:
    server = DnsServer({"shop.example.com": ["192.0.2.1"]}, delay_s=0.05)
    async with resolver_of(server) as resolver:
        assert resolver.cached("shop.example.com") is None
        await asyncio.gather(*(resolver.resolve("shop.example.com") for _ in range(20)))
        assert resolver.cached("shop.example.com") == ("192.0.2.1",)
        await resolver.resolve("shop.example.com")
    assert server.asked("shop.example.com") == 1


async def test_an_answer_is_kept_for_its_time_only() -> None:
    server = DnsServer({"shop.example.com": ["192.0.2.1"]})
    async with resolver_of(server, ttl_s=0.05) as resolver:
        await resolver.resolve("shop.example.com")
        await asyncio.sleep(0.06)
        assert resolver.cached("shop.example.com") is None


async def test_the_cache_is_bounded() -> None:
    server = DnsServer({f"{n}.example": ["192.0.2.1"] for n in range(10)})
    async with resolver_of(server, max_names=3) as resolver:
        for n in range(10):
            await resolver.resolve(f"{n}.example")
            assert len(resolver._fresh) <= 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [(3, "not found|does not exist|NXDOMAIN"), (SERVFAIL, "fail"), ([], "no data|no address")],
)
async def test_a_name_without_an_answer_is_said_to_have_none(answer: Any, why: str) -> None:
    async with resolver_of(DnsServer({"shop.example.com": answer})) as resolver:
        with pytest.raises(DnsFailure, match=f"(?i){why}"):
            await resolver.resolve("shop.example.com")


async def test_a_name_with_too_many_addresses_is_refused() -> None:
    addresses = [f"192.0.2.{n}" for n in range(70)]
    async with resolver_of(DnsServer({"shop.example.com": addresses})) as resolver:
        with pytest.raises(DnsFailure, match="70 addresses"):
            await resolver.resolve("shop.example.com")


async def test_a_slow_name_ends_in_time_and_delays_no_other() -> None:
    server = DnsServer({"slow.example": None, "shop.example.com": ["192.0.2.1"]})
    async with resolver_of(server, timeout_s=1) as resolver:
        slow = asyncio.create_task(resolver.resolve("slow.example"))
        await resolver.resolve("shop.example.com")
        assert not slow.done()
        with pytest.raises(DnsFailure):
            await slow


async def test_whoever_gives_up_does_not_end_the_look_up_of_others() -> None:
    async with resolver_of(DnsServer({"shop.example.com": ["192.0.2.1"]}, delay_s=0.05)) as resolver:
        first = asyncio.create_task(resolver.resolve("shop.example.com"))
        second = asyncio.create_task(resolver.resolve("shop.example.com"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == ("192.0.2.1",)
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_look_ups_under_way_are_bounded() -> None:
    async with resolver_of(DnsServer({"a.example": None, "b.example": None}), max_lookups=1) as resolver:
        first = asyncio.create_task(resolver.resolve("a.example"))
        await asyncio.sleep(0.01)
        with pytest.raises(LocalFailure):
            await resolver.resolve("b.example")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_resolver_that_answers_for_no_name_is_our_failure() -> None:
    names = [f"{n}.example" for n in range(9)]
    server = DnsServer({**dict.fromkeys(names), "shop.example.com": ["192.0.2.1"]})
    async with resolver_of(server, timeout_s=0.1) as resolver:
        results = await asyncio.gather(*(resolver.resolve(name) for name in names), return_exceptions=True)
        assert [type(result) for result in results].count(DnsTimeout) == 7
        assert [type(result) for result in results].count(LocalFailure) == 2
        await resolver.resolve("shop.example.com")
        with pytest.raises(DnsFailure):
            await resolver.resolve("0.example")


async def test_a_name_server_that_is_not_there_is_our_failure() -> None:
    async with dead_port() as port:
        resolver = DnsResolver(nameservers=[f"127.0.0.1:{port}"], timeout_s=1.0)
        with pytest.raises(LocalFailure):
            await resolver.resolve("shop.example.com")
        await resolver.aclose()


async def test_the_hosts_file_is_read_and_its_answers_are_checked_too() -> None:
    resolver = DnsResolver()
    assert set(await resolver.resolve("localhost")) <= {"127.0.0.1", "::1"}
    transport = PinnedTransport(resolver=resolver)
    target = parse_url("http://localhost/", UrlPolicy(allow_http=True, allow_private_names=True))
    outcome = await send(transport, build_request(target, [], b""), success="any_2xx", clock=SYSTEM)
    assert outcome.kind is OutcomeClass.BLOCKED_ADDRESS
    await transport.aclose()


async def test_the_whole_way_from_a_name_to_an_answer() -> None:
    server = DnsServer({"shop.example.com": ["127.0.0.1"], "inner.example.com": ["127.0.0.1", "10.0.0.1"]})
    async with resolver_of(server) as resolver, LedgerReceiver() as receiver:
        transport = PinnedTransport(addresses=AddressPolicy(["127.0.0.0/8"]), resolver=resolver)
        kinds = []
        for name in ("shop.example.com", "inner.example.com", "none.example.com"):
            target = parse_url(f"http://{name}:{receiver.port}/", UrlPolicy(allow_http=True, allow_ports=True))
            outcome = await send(transport, build_request(target, [], b""), success="any_2xx", clock=SYSTEM)
            kinds.append(outcome.kind)
        assert kinds == [OutcomeClass.OK, OutcomeClass.BLOCKED_ADDRESS, OutcomeClass.DNS]
        await transport.aclose()
