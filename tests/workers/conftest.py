"""A worker's loop in this process, on a real database, with a receiver in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from dispatcher.config import Settings
from dispatcher.ids import uuid7
from dispatcher.wiring import hot_engine
from dispatcher.workers.loop import WorkerLoop
from tests.support import walk
from tests.support.patience import PATIENCE_S


async def until(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Lets the loop run until the condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.005)


@dataclass
class Receiver:
    """Answers 200, but keeps hosts in `hanging` waiting until `let_go`."""

    posts: list[str] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    defect: Exception | None = None
    body: bytes = b""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.posts.append(request.headers["webhook-id"])
        if self.defect is not None:
            raise self.defect
        if request.url.host in self.hanging:
            await self.let_go.wait()
        return httpx.Response(200, content=self.body)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hot(migrated_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = hot_engine(Settings(database_url=migrated_database_url), connections=3)
    yield engine
    await engine.dispose()


@pytest.fixture
async def make_worker(hot: AsyncEngine, receiver: Receiver, engine: Engine) -> AsyncIterator[Callable[..., WorkerLoop]]:
    """Builds a loop; one that was started is stopped in the end."""
    made: list[WorkerLoop] = []

    def make(**values: Any) -> WorkerLoop:
        worker_id = uuid7()
        clock = values.pop("clock", walk.SYSTEM)
        worker = WorkerLoop(
            hot,
            lambda schedules, may_post, platform_keys: walk.deliver(
                httpx.MockTransport(receiver),
                schedules,
                worker_id=worker_id,
                may_post=may_post,
                clock=clock,
                platform_keys=platform_keys,
            ),
            worker_id=worker_id,
            **({"max_in_flight": 100, "term_s": 30.0, "grace_s": 0.2} | values),
        )
        made.append(worker)
        return worker

    yield make
    receiver.let_go.set()
    for worker in made:
        if worker._duties and not worker._drained:
            await worker.stop()
