"""CPU per POST of the client alone: bare aiohttp, our transport, and `send` with everything around it.

`python -m bench.egress_micro` prints one JSON object. One process is the receiver, the other the sender; only the
sender's CPU is counted (time.process_time). Keep-alive, 1 kB body, 64-byte answer body, uvloop, loopback. The
variants take turns, and the median round of each counts, so that a noisy neighbour meets them all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import uvloop

from dispatcher.clock import SYSTEM
from dispatcher.egress import AddressPolicy, PinnedTransport, UrlPolicy, build_request, parse_url, send

BODY = b'{"payment":"' + b"x" * 1_000 + b'"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 64\r\nConnection: keep-alive\r\n\r\n" + b"o" * 64
)
HEADERS = [
    (b"Content-Type", b"application/json"),
    (b"User-Agent", b"Dispatcher/1.0"),
    (b"webhook-id", b"evt_01890a5d-ac96-774b-bcce-b302099a8057"),
    (b"webhook-timestamp", b"1700000000"),
    (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
]
Post = Callable[[], Awaitable[None]]


class _Receiver(asyncio.Protocol):
    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._expected = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._expected == 0:
            self._expected = data.index(b"\r\n\r\n") + 4 + len(BODY)
        self._expected -= len(data)
        if self._expected == 0:
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._reply)
            else:
                self._reply()

    def _reply(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)


def _receive(ports: Connection, delay_s: float) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Receiver(delay_s), "127.0.0.1", 0, backlog=4_096
        )
        ports.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(serve())


async def _cpu_us(post: Post, posts: int, at_once: int) -> tuple[float, float]:
    """Return CPU microseconds per POST, and POSTs per second."""

    async def run(count: int) -> None:
        for _ in range(count):
            await post()

    await asyncio.gather(*(run(3) for _ in range(at_once)))
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(run(posts // at_once) for _ in range(at_once)))
    return (time.process_time() - cpu) / posts * 1e6, posts / (time.perf_counter() - wall)


async def _measure(port: int, posts: int, rounds: int, at_once: int) -> dict[str, object]:
    url = f"http://127.0.0.1:{port}/hooks/payments?shop=1"
    target = parse_url(url, UrlPolicy(allow_http=True, allow_ports=True, allow_ip_literals=True))
    transport = PinnedTransport(addresses=AddressPolicy(["127.0.0.0/8"]))
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=15), auto_decompress=False
    )
    text_headers = {name.decode(): value.decode() for name, value in HEADERS}
    ready = build_request(target, HEADERS, BODY)

    async def bare_aiohttp() -> None:
        async with session.post(url, data=BODY, headers=text_headers, allow_redirects=False) as response:
            await response.read()
            assert response.status == 200

    async def exchange() -> None:
        answer = await transport.exchange(ready, deadline_s=15.0, body_bytes=16_384)
        assert answer.status == 200

    async def handle() -> None:
        response = await transport.handle_async_request(ready)
        assert response.status_code == 200

    async def send_ready() -> None:
        outcome = await send(transport, ready, success="any_2xx", clock=SYSTEM)
        assert outcome.ok

    async def build_and_send() -> None:
        request = build_request(parse_url(url, policy), HEADERS, BODY)
        outcome = await send(transport, request, success="any_2xx", clock=SYSTEM)
        assert outcome.ok

    policy = UrlPolicy(allow_http=True, allow_ports=True, allow_ip_literals=True)
    variants: dict[str, Post] = {
        "aiohttp_bare": bare_aiohttp,
        "pinned_exchange": exchange,
        "pinned_handle_async_request": handle,
        "send_ready_request": send_ready,
        "parse_build_send": build_and_send,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, post in variants.items():
            found[name].append(await _cpu_us(post, posts, at_once))
    await session.close()
    await transport.aclose()
    return {
        name: {
            "cpu_us_per_post": round(statistics.median(cpu for cpu, _ in values), 1),
            "posts_per_s": round(statistics.median(rate for _, rate in values)),
        }
        for name, values in found.items()
    }


async def _memory(port: int, at_once: int) -> dict[str, object]:
    """Resident kB per delivery in flight: `at_once` POSTs wait for an answer together."""
    target = parse_url(
        f"http://127.0.0.1:{port}/", UrlPolicy(allow_http=True, allow_ports=True, allow_ip_literals=True)
    )
    transport = PinnedTransport(addresses=AddressPolicy(["127.0.0.0/8"]))

    async def one() -> None:
        await send(transport, build_request(target, HEADERS, BODY), success="any_2xx", clock=SYSTEM)

    await one()
    gc.collect()
    before = _resident_kb()
    tasks = [asyncio.create_task(one()) for _ in range(at_once)]
    await asyncio.sleep(0.7)
    waiting = sum(not task.done() for task in tasks)
    after = _resident_kb()
    await asyncio.gather(*tasks)
    await transport.aclose()
    return {"in_flight": waiting, "kb_each": round((after - before) / waiting, 1)}


def _resident_kb() -> float:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
            return int(statm.read().split()[1]) * resource.getpagesize() / 1_024
    except FileNotFoundError:  # no /proc: the highest so far must do
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1_024 if sys.platform == "darwin" else 1)


def _with_receiver(delay_s: float, measure: Callable[[int], Awaitable[dict[str, object]]]) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    receiver = context.Process(target=_receive, args=(theirs, delay_s), daemon=True)
    receiver.start()
    try:
        port = ours.recv()

        async def run() -> dict[str, object]:
            return await measure(port)

        return uvloop.run(run())
    finally:
        receiver.terminate()
        receiver.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=4_000, help="POSTs per round and variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=32, help="POSTs in flight")
    parser.add_argument("--in-flight", type=int, default=800, help="POSTs waiting when memory is read")
    options = parser.parse_args()
    result: dict[str, object] = {
        "python": sys.version.split()[0],
        "body_bytes": len(BODY),
        "at_once": options.at_once,
        **_with_receiver(0.0, lambda port: _measure(port, options.posts, options.rounds, options.at_once)),
        "memory": _with_receiver(1.5, lambda port: _memory(port, options.in_flight)),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
