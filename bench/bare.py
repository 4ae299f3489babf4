"""The least that a POST costs: a bare aiohttp client, and our own transport under `send`, with nothing else around."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench import processes
from dispatcher.clock import SYSTEM
from dispatcher.egress import AddressPolicy, PinnedTransport, UrlPolicy, build_request, parse_url, send
from dispatcher.wiring import USER_AGENT

CONCURRENCY = 64

HEADERS = [
    (b"content-type", b"application/json"),
    (b"user-agent", USER_AGENT),
    (b"webhook-timestamp", b"1700000000"),
    (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
]


async def _client_aiohttp(
    url: str, body: bytes, authority: Path | None
) -> tuple[Callable[[int], Awaitable[None]], Any]:
    trusted = ssl.create_default_context(cafile=authority) if authority is not None else True
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=trusted))
    fixed = {name.decode(): value.decode() for name, value in HEADERS}

    async def post(n: int) -> None:
        async with session.post(url, data=body, headers={**fixed, "webhook-id": f"evt_{n}"}) as response:
            await response.read()
            assert response.status == 200

    return post, session.close


async def _client_transport(
    url: str, body: bytes, authority: Path | None
) -> tuple[Callable[[int], Awaitable[None]], Any]:
    target = parse_url(url, UrlPolicy(allow_http=True, allow_ports=True, allow_ip_literals=True))
    trusted = ssl.create_default_context(cafile=authority) if authority is not None else None
    transport = PinnedTransport(addresses=AddressPolicy(["127.0.0.0/8"]), ssl_context=trusted)

    async def post(n: int) -> None:
        request = build_request(target, [*HEADERS, (b"webhook-id", b"evt_%d" % n)], body)
        outcome = await send(transport, request, success="any_2xx", clock=SYSTEM)
        assert outcome.ok

    return post, transport.aclose


_CLIENTS = {"aiohttp": _client_aiohttp, "transport": _client_transport}


async def _measure(client: str, url: str, body: bytes, posts: int, authority: Path | None) -> tuple[float, float]:
    post, close = await _CLIENTS[client](url, body, authority)

    async def run(numbers: range) -> None:
        for n in numbers:
            await post(n)

    await asyncio.gather(*(run(range(10)) for _ in range(CONCURRENCY)))  # connects and warms up
    gc.collect()
    wall_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(run(range(first, posts, CONCURRENCY)) for first in range(CONCURRENCY)))
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    await close()
    return cpu_s / posts * 1e6, posts / wall_s


def _run(pipe: Connection, *arguments: Any) -> None:
    pipe.send(uvloop.run(_measure(*arguments)))


def cpu_us_per_post(
    client: str, url: str, body: bytes, posts: int, *, authority: Path | None = None
) -> tuple[float, float]:
    """CPU microseconds of a client's process for each POST, and POSTs per second.

    `client` is aiohttp or transport; `authority` the file of who signed the receiver's certificate.
    """
    context = processes.context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, client, url, body, posts, authority), daemon=True)
    process.start()
    theirs.close()
    try:
        measured: tuple[float, float] = ours.recv()
    except EOFError as error:
        raise RuntimeError("the bare client failed: its traceback stands above") from error
    finally:
        process.join()
    return measured
