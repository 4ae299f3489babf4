"""What mypy must say about both clients: checked by `test_typing`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from dispatcher.client import AsyncClient, Client
from dispatcher.shapes import AcceptedEvent, BatchItem, CreatedEndpoint, Delivery, Event, Page


def waits(client: Client) -> None:
    assert_type(client.events.create(type="a", payload={"b": 1}, mode="test"), AcceptedEvent)
    assert_type(client.events.create_many([{"type": "a", "payload": 1}]), list[BatchItem])
    assert_type(client.events.get("evt_1"), Event)
    assert_type(client.endpoints.create(url="https://a.example/"), CreatedEndpoint)
    assert_type(client.deliveries.list(status="failed"), Page[Delivery])
    assert_type(client.deliveries.iterate(status="failed"), Iterator[Delivery])
    assert_type([one["attempt_count"] for one in client.deliveries.iterate()], list[int])
    assert_type(client.metrics(), str)
    client.endpoints.delete("ep_1")


async def awaits(client: AsyncClient) -> None:
    assert_type(await client.events.create(type="a", payload={"b": 1}, mode="test"), AcceptedEvent)
    assert_type(await client.events.create_many([{"type": "a", "payload": 1}]), list[BatchItem])
    assert_type(await client.events.get("evt_1"), Event)
    assert_type(await client.endpoints.create(url="https://a.example/"), CreatedEndpoint)
    assert_type(await client.deliveries.list(status="failed"), Page[Delivery])
    assert_type(client.deliveries.iterate(status="failed"), AsyncIterator[Delivery])
    assert_type([one["attempt_count"] async for one in client.deliveries.iterate()], list[int])
    assert_type(await client.metrics(), str)
    await client.endpoints.delete("ep_1")


async def mistakes(client: Client, other: AsyncClient) -> None:
    client.events.create(type="a")  # type: ignore[call-arg]
    client.events.create(type="a", payload=1, mod="test")  # type: ignore[call-arg]
    client.events.create(type="a", payload=1, mode="real")  # type: ignore[arg-type]
    client.events.get(1)  # type: ignore[arg-type]
    client.events.get("evt_1")["nothing"]  # type: ignore[misc]
    client.deliveries.list(sort="first")  # type: ignore[arg-type]
    client.endpoints.create(urls="https://a.example/")  # type: ignore[call-arg]
    client.nothing.create()  # type: ignore[attr-defined]
    other.events.get("evt_1")["id"]  # type: ignore[index]
    for _ in other.deliveries.iterate():  # type: ignore[attr-defined]
        pass
