"""What one would write without this project: a Celery task for each delivery, which Celery retries.

Written to its advantage: a kept `httpx.Client`, early acknowledgement, no result backend, one line of log, one row and
one commit an attempt, solo pools in as many processes as ours. It promises less: what is in Redis is lost with Redis.

The module is the Celery application itself (`celery -A bench.naive_celery worker`) and configured by environment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, Self

import httpx
from celery import Celery
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench import processes
from bench.generator import payload
from dispatcher.ids import format_id, uuid7

BROKER = "BENCH_NAIVE_BROKER_URL"
DATABASE = "BENCH_NAIVE_DATABASE_URL"

app = Celery("naive", broker=os.environ.get(BROKER))
app.conf.update(
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
_log = logging.getLogger("naive")


class Base(DeclarativeBase):
    pass


class Attempt(Base):
    __tablename__ = "naive_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(index=True)
    url: Mapped[str]
    number: Mapped[int]
    started_at: Mapped[datetime]
    duration_ms: Mapped[float]
    status_code: Mapped[int]
    response_body: Mapped[str]


@cache
def _client() -> httpx.Client:
    return httpx.Client(timeout=15)


@cache
def _engine() -> Engine:
    return create_engine(os.environ[DATABASE])


@app.task(bind=True, autoretry_for=(httpx.HTTPError,), retry_backoff=True, max_retries=8)  # type: ignore[untyped-decorator]  # Celery has no types
def deliver(self: Any, event_id: str, url: str, data: dict[str, Any], secret: str) -> None:
    started_at = datetime.now(UTC)
    begun_s = time.monotonic()
    timestamp = str(int(started_at.timestamp()))
    body = json.dumps({"id": event_id, "type": "payment.completed", "timestamp": timestamp, "data": data}).encode()
    mac = hmac.new(base64.b64decode(secret), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
    response = _client().post(url, content=body, headers=headers)
    duration_ms = (time.monotonic() - begun_s) * 1000
    with Session(_engine()) as session:
        session.add(
            Attempt(
                event_id=event_id,
                url=url,
                number=self.request.retries + 1,
                started_at=started_at,
                duration_ms=duration_ms,
                status_code=response.status_code,
                response_body=response.text,
            )
        )
        session.commit()
    _log.warning("attempt.made event=%s status=%d duration_ms=%.1f", event_id, response.status_code, duration_ms)
    response.raise_for_status()


def create_tables(database_url: str) -> None:
    engine = create_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()


def attempts(database_url: str) -> int:
    """How many rows there are."""
    engine = create_engine(database_url)
    with Session(engine) as session:
        found = session.scalar(select(func.count()).select_from(Attempt))
    engine.dispose()
    return found or 0


def _produce(pipe: Connection, broker_url: str, targets: Sequence[tuple[str, str]], payload_bytes: int) -> None:
    producing = Celery("naive", broker=broker_url)
    data = payload(payload_bytes)
    try:
        while True:
            count = pipe.recv()
            ids = []
            with producing.producer_pool.acquire(block=True) as producer:
                for n in range(count):
                    url, secret = targets[n % len(targets)]
                    ids.append(format_id("evt", uuid7()))
                    producing.send_task(deliver.name, (ids[-1], url, data, secret), producer=producer)
            pipe.send(None)
            pipe.recv()
            pipe.send(ids)
    except EOFError:
        return


class Producer:
    """A process of its own that sends a task for each event. A context manager."""

    def __init__(self, broker_url: str, targets: Sequence[tuple[str, str]], *, payload_bytes: int) -> None:
        context = processes.context()
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, broker_url, targets, payload_bytes)
        self._process = context.Process(target=_produce, args=arguments, daemon=True, name="bench-naive-producer")
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def start(self, count: int) -> None:
        self._pipe.send(count)

    def sent(self) -> list[str]:
        """Waits for what was begun; the events' ids."""
        self._pipe.recv()
        self._pipe.send(None)
        ids: list[str] = self._pipe.recv()
        return ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()
