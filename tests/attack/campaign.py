"""An API process under attack, healthy callers beside the attackers, and what became of both."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil

from tests.attack import attacks
from tests.support import walk
from tests.support.patience import PATIENCE_S, until

REPOSITORY = Path(__file__).parents[2]
KEY = "operator-key-of-the-attacked-api-000001"
EVENTS_PER_S = 50
CALLERS = 5
PROBE_S = 0.1
MEMORY_MB = 512
"""What the process may hold more under attack than without: all unfinished bodies together, 256 MiB, as much for what
the allocator keeps of them, and 20 kB for each of 4,096 connections."""


@dataclass
class Seen:
    """What healthy callers saw during one attack, and what the API's process cost."""

    attack: str
    tried: int = 0
    accepted: int = 0
    refused: list[str] = field(default_factory=list)
    event_s: list[float] = field(default_factory=list)
    probe_s: list[float] = field(default_factory=list)
    failed_probes: list[str] = field(default_factory=list)
    cpu_share: float = 0.0
    memory_mb: float = 0.0

    @property
    def acceptance(self) -> float:
        return self.accepted / max(1, self.accepted + len(self.refused))

    @property
    def faults(self) -> list[str]:
        """What must not be, on any machine: no time is among it."""
        found = [f"an event was not accepted: {one}" for one in self.refused[:3]]
        found += [f"/healthz did not answer: {one}" for one in self.failed_probes[:3]]
        if not self.accepted or not self.probe_s:
            found.append("nothing was measured")
        return found

    def row(self) -> list[str]:
        return [
            self.attack,
            str(self.tried),
            f"{self.accepted} of {self.accepted + len(self.refused)}",
            _ms(_quantile(self.event_s, 50)),
            _ms(_quantile(self.event_s, 99)),
            _ms(max(self.probe_s, default=float("nan"))),
            f"{self.cpu_share:.0%}",
            f"{self.memory_mb:.0f}",
        ]


COLUMNS = ("attack", "tried", "accepted", "p50 ms", "p99 ms", "worst probe ms", "API's CPU", "MB")


class Api:
    """A process that serves the API, on a database of its own."""

    def __init__(self, database_url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        self._database_url = database_url

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")} | {
            "DISPATCHER_DATABASE_URL": self._database_url,
            "DISPATCHER_SECRET_KEYS": walk.KEYS.reveal(),
            "DISPATCHER_BOOTSTRAP_KEY": KEY,
            "DISPATCHER_PORT": str(self.address[1]),
            "PYTHONPATH": str(REPOSITORY),
        }
        process = subprocess.Popen([sys.executable, "-m", "dispatcher", "api"], env=env, cwd=REPOSITORY)
        try:
            until(self._answers, "the API answers")
            yield psutil.Process(process.pid)
            assert process.poll() is None, "the API's process has ended"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def attack(api: Api, process: psutil.Process, name: str, seconds: float) -> Seen:
    """One attack for so long, healthy callers beside it."""
    seen = Seen(name)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(os.getpid)  # it is there
        cpu_s, began_s = _cpu_s(process), time.monotonic()
        attacking = pool.apply_async(attacks.run, (name, api.address, seconds, KEY))
        asyncio.run(_be_healthy(api, seconds, seen))
        seen.cpu_share = (_cpu_s(process) - cpu_s) / (time.monotonic() - began_s)
        seen.memory_mb = process.memory_info().rss / 1e6
        seen.tried = attacking.get(seconds + PATIENCE_S)
    return seen


def campaign(api: Api, names: list[str], seconds: float, shown: Callable[[Seen], Any]) -> list[Seen]:
    """Every attack in turn on one process; `shown` is called with each as it ends."""
    found = []
    with api.running() as process:
        for name in names:
            found.append(attack(api, process, name, seconds))
            shown(found[-1])
    return found


async def _be_healthy(api: Api, seconds: float, seen: Seen) -> None:
    """Sends single events over kept connections at a steady rate, and asks for /healthz over new ones."""
    until_s = time.monotonic() + seconds
    event = {"type": "payment.completed", "payload": {"amount": 1000, "text": "x" * 900}}
    headers = {"authorization": f"Bearer {KEY}"}
    timeout = aiohttp.ClientTimeout(PATIENCE_S)

    async def send(session: aiohttp.ClientSession) -> None:
        wait_s = CALLERS / EVENTS_PER_S
        while (began_s := time.monotonic()) < until_s:
            for is_last in (False, True):
                try:
                    async with session.post(f"{api.url}/v1/events", json=event, headers=headers) as answer:
                        if answer.status == 202:
                            seen.accepted += 1
                        else:
                            seen.refused.append(f"{answer.status} {await answer.text()}"[:200])
                    break
                except aiohttp.ClientConnectionError as error:
                    # A kept connection that was idle may be closed to admit another: every client tries once more.
                    if is_last:
                        seen.refused.append(repr(error))
            took_s = time.monotonic() - began_s
            seen.event_s.append(took_s)
            await asyncio.sleep(max(0.0, wait_s - took_s))

    async def probe() -> None:
        while (began_s := time.monotonic()) < until_s:
            try:
                reader, writer = await asyncio.open_connection(*api.address)
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
                writer.close()
                await writer.wait_closed()
                if answer.startswith(b"HTTP/1.1 200"):
                    seen.probe_s.append(time.monotonic() - began_s)
                else:
                    seen.failed_probes.append(repr(answer[:100]))
            except (OSError, TimeoutError) as error:
                seen.failed_probes.append(repr(error))
            await asyncio.sleep(PROBE_S)

    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(probe(), *(send(session) for _ in range(CALLERS)))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
