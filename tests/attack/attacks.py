"""What strangers do to the API, each bounded in connections and time. All of it goes to loopback, from one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

Address = tuple[str, int]

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


@dataclass
class Attacker:
    """Whoever attacks: where, until when, with a key if one is known. `done` counts what was tried."""

    address: Address
    until_s: float
    key: str
    done: int = 0
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until_s

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.open.append(writer)
        self.done += 1
        return reader, writer

    def close(self) -> None:
        for writer in self.open:
            if not writer.is_closing():
                writer.transport.abort()


async def endless_head(attacker: Attacker) -> None:
    """Four connections that send one header without an end, and begin again when they are refused."""

    async def one() -> None:
        while attacker.goes_on:
            _, writer = await attacker.connect()
            with contextlib.suppress(OSError):
                writer.write(GET + b"x: ")
                while attacker.goes_on and not writer.is_closing():
                    writer.write(b"a" * 65536)
                    await writer.drain()

    await asyncio.gather(*(one() for _ in range(4)))


async def slow_head(attacker: Attacker) -> None:
    """2,000 requests of which half a head has come, and a byte more now and then."""
    for _ in range(2000):
        if attacker.goes_on:
            (await attacker.connect())[1].write(GET)
    while attacker.goes_on:
        await asyncio.sleep(0.5)
        for writer in attacker.open:
            if not writer.is_closing():
                writer.write(b"x: 1\r\n")


async def slow_body(attacker: Attacker) -> None:
    """500 events of which the body does not come, half of them by a caller with a key."""
    for n in range(500):
        if attacker.goes_on:
            key = attacker.key if n % 2 else "wrong"
            _, writer = await attacker.connect()
            headers = {"authorization": f"Bearer {key}", "content-length": "200000"}
            writer.write(_head("POST", "/v1/events", headers) + b"{")
    await asyncio.sleep(max(0.0, attacker.until_s - time.monotonic()))


async def large_bodies(attacker: Attacker) -> None:
    """60 callers at a time who name a key that does not exist, and send 16 MB."""

    async def one() -> None:
        while attacker.goes_on:
            reader, writer = await attacker.connect()
            headers = {
                "x-api-key": "nobody",
                "x-timestamp": datetime.now(UTC).isoformat(),
                "x-signature": "A" * 43 + "=",
                "content-type": "application/json",
                "content-length": "16000000",
            }
            writer.write(_head("POST", "/v1/events/batch", headers))
            with contextlib.suppress(OSError):
                for _ in range(250):
                    if writer.is_closing() or not attacker.goes_on:
                        break
                    writer.write(b"[" * 64000)
                    await asyncio.wait_for(writer.drain(), 1)
                await asyncio.wait_for(reader.read(), 1)
            writer.close()

    with contextlib.suppress(TimeoutError):
        await asyncio.gather(*(one() for _ in range(60)), return_exceptions=True)


async def idle(attacker: Attacker) -> None:
    """10,000 connections that say nothing, 200 opened at a time."""
    for _ in range(50):
        if attacker.goes_on:
            await asyncio.gather(*(attacker.connect() for _ in range(200)), return_exceptions=True)
    await asyncio.sleep(max(0.0, attacker.until_s - time.monotonic()))


async def wrong_keys(attacker: Attacker) -> None:
    """100 connections that each ask as fast as they are answered, with another wrong key each time."""

    async def one(number: int) -> None:
        n = 0
        while attacker.goes_on:
            reader, writer = await attacker.connect()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                while attacker.goes_on:
                    n += 1
                    writer.write(_head("GET", "/v1/events", {"authorization": f"Bearer wrong-{number}-{n}"}))
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    attacker.done += 1

    await asyncio.gather(*(one(number) for number in range(100)))


async def junk(attacker: Attacker) -> None:
    """What is no HTTP, thousands of requests ahead of their answers, trailers and extensions without an end."""
    chunked = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = (
        b"\x16\x03\x01\x02\x00\x01\x00",
        (GET + b"\r\n") * 3000,
        b"GET / HTTP/1.1\r\n" + b"x: 1\r\n" * 5000,
        b"\r\n" * 100_000,
        chunked + b"1;" + b"x" * 200_000,
        chunked + b"0\r\n" + b"x: 1\r\n" * 50_000,
    )
    while attacker.goes_on:
        for part in parts:
            with contextlib.suppress(OSError, TimeoutError):
                reader, writer = await attacker.connect()
                writer.write(part)
                await asyncio.wait_for(reader.read(65536), 0.2)
                writer.transport.abort()


async def hostile_schemas(attacker: Attacker) -> None:
    """An operator's key that describes types by schemas whose judgement has no bound, and events of these types."""
    chain = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 3} for n in range(40)} | {"a40": {"type": "null"}}
    schemas = {
        "hostile.unique": {"type": "array", "uniqueItems": True},
        "hostile.pattern": {"type": "string", "pattern": "^([A-Z0-9]+)+$"},
        "hostile.chain": {"$defs": chain, "$ref": "#/$defs/a0"},
        "hostile.look": {"type": "string", "pattern": "^(?=(a+)+$)"},
    }
    payloads = {
        "hostile.unique": [{"n": n} for n in range(8000)],
        "hostile.pattern": "A" * 60_000 + "!",
        "hostile.chain": 1,
        "hostile.look": "a" * 60_000 + "!",
    }
    while attacker.goes_on:
        for name, schema in schemas.items():
            await _ask(attacker, "PUT", f"/v1/event_types/{name}", {"schema": schema})
            await _ask(attacker, "POST", "/v1/events", {"type": name, "payload": payloads[name]})


async def _ask(attacker: Attacker, method: str, path: str, body: object) -> None:
    content = json.dumps(body).encode()
    reader, writer = await attacker.connect()
    headers = {"authorization": f"Bearer {attacker.key}", "connection": "close", "content-length": str(len(content))}
    writer.write(_head(method, path, headers) + content)
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def nobody(attacker: Attacker) -> None:
    """No attack: what healthy callers see without one."""
    await asyncio.sleep(max(0.0, attacker.until_s - time.monotonic()))


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        nobody,
        endless_head,
        slow_head,
        slow_body,
        large_bodies,
        idle,
        wrong_keys,
        junk,
        hostile_schemas,
    )
}


def run(name: str, address: Address, seconds: float, key: str) -> int:
    """Runs one attack for so long; returns how many connections or requests it made. For a process of its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacker = Attacker(address, time.monotonic() + seconds, key)

    async def bounded() -> None:
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(ATTACKS[name](attacker), seconds + 5)
        attacker.close()

    asyncio.run(bounded())
    return attacker.done
