"""Events of many requests share a commit, and nothing else: what happens to one is nobody else's matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from dispatcher import Event
from dispatcher.api.app import make_app
from dispatcher.api.caller import Caller
from dispatcher.api.context import Context
from dispatcher.api.ingest import Ingest
from dispatcher.config import Settings
from dispatcher.errors import IdempotencyConflict, InvalidInput, Unauthorized
from dispatcher.flow.enqueue import Accepted, enqueue
from dispatcher.ids import uuid7
from dispatcher.model.access import ALL
from dispatcher.store import tenants
from tests.api.conftest import other_tenant
from tests.support import walk
from tests.support.producers import Bell, count

LOCAL = Caller(None, ALL, "test")


@pytest.fixture
async def context(migrated_database_url: str) -> AsyncIterator[Context]:
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal()))
    async with app.router.lifespan_context(app):
        yield app.state.context


def paid(n: int = 0, **values: Any) -> Event:
    return Event(type=values.pop("type", "payment.paid"), payload=n, **values)


def transactions(engine: Engine) -> int:
    """How many have written events."""
    with engine.connect() as connection:
        return int(walk.rows(connection, "SELECT count(DISTINCT xmin::text) FROM dispatcher.events")[0][0])


def add_key(engine: Engine, name: str) -> UUID:
    key_id = uuid7()
    with engine.begin() as connection:
        tenants.add_key(connection, key_id, name, name=name, tenant_id=None)
    return key_id


async def test_what_comes_at_once_shares_a_commit_and_one_ring(context: Context, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    bell = Bell()
    ingest = Ingest(replace(context, wakeup=bell))
    accepted = await asyncio.gather(*(ingest.accept(paid(n), LOCAL) for n in range(60)))
    assert len({one.id for one in accepted}) == 60
    assert {one.fanout for one in accepted} == {1}
    assert transactions(engine) == len(bell.rung) == 1
    await ingest.accept(paid(), LOCAL)
    assert transactions(engine) == len(bell.rung) == 2


async def test_more_than_a_group_is_written_in_several(context: Context, engine: Engine) -> None:
    await asyncio.gather(*(context.ingest.accept(paid(n), LOCAL) for n in range(1200)))
    assert transactions(engine) == 3
    with engine.connect() as connection:
        assert count(connection, "events") == 1200


async def test_good_and_bad_ones_each_get_their_own_answer(context: Context, engine: Engine) -> None:
    first = await context.ingest.accept(paid(idempotency_key="old"), LOCAL)
    events = [
        paid(1),
        paid(type="a b"),
        paid(tenant_id=uuid7()),
        paid(idempotency_key="old"),
        paid(5, idempotency_key="old"),
        paid(idempotency_key="new"),
        paid(idempotency_key="new"),
        paid(7, id=first.id),
        paid(id=uuid7()),
        paid(2),
    ]
    answers = await asyncio.gather(*(context.ingest.accept(event, LOCAL) for event in events), return_exceptions=True)
    kinds = [type(one) for one in answers]
    assert kinds == [
        Accepted, InvalidInput, InvalidInput, Accepted, IdempotencyConflict,
        Accepted, Accepted, InvalidInput, Accepted, Accepted,
    ]  # fmt: skip
    assert answers[3] == Accepted(first.id, duplicate=True)
    assert isinstance(answers[5], Accepted)
    assert answers[6] == Accepted(answers[5].id, duplicate=True)
    with engine.connect() as connection:
        assert count(connection, "events") == 5
        assert count(connection, "idempotency") == 3
    assert walk.broken_promises(engine) == []


async def test_a_key_revoked_a_moment_ago_accepts_nothing_and_spoils_nothing(context: Context, engine: Engine) -> None:
    good, bad = add_key(engine, "good"), add_key(engine, "bad")
    with engine.begin() as connection:
        tenants.revoke_key(connection, bad)
    callers = [replace(LOCAL, key_id=key_id) for key_id in (good, bad, None, uuid7())] * 5
    answers = await asyncio.gather(*(context.ingest.accept(paid(), one) for one in callers), return_exceptions=True)
    assert [type(one) for one in answers] == [Accepted, Unauthorized, Accepted, Unauthorized] * 5
    with engine.connect() as connection:
        assert count(connection, "events") == 10
        used = walk.rows(connection, "SELECT name FROM dispatcher.api_keys WHERE last_used_at IS NOT NULL")
        assert [row.name for row in used] == ["good"]


async def test_over_http_a_revoked_key_is_refused_at_its_next_event(api: httpx.AsyncClient, engine: Engine) -> None:
    _, key = other_tenant(engine)
    event = {"type": "a", "payload": 1}
    headers = {"authorization": f"Bearer {key}"}
    assert (await api.post("/v1/events", json=event, headers=headers)).status_code == 202
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = now() WHERE name = 'theirs'"))
    for _ in range(2):
        answer = await api.post("/v1/events", json=event, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_request_that_is_cancelled_takes_nothing_from_the_others(context: Context, engine: Engine) -> None:
    asked = [asyncio.create_task(context.ingest.accept(paid(n), LOCAL)) for n in range(30)]
    await asyncio.sleep(0)  # they are in the queue, and nothing is written yet
    for task in asked[::3]:
        task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in answers[::3])
    assert sum(isinstance(one, Accepted) for one in answers) == 20
    with engine.connect() as connection:
        assert 20 <= count(connection, "events") <= 30
    assert isinstance(await context.ingest.accept(paid(), LOCAL), Accepted)


async def test_a_request_that_is_cancelled_while_it_is_written_breaks_nothing(context: Context, engine: Engine) -> None:
    tasks: list[asyncio.Task[Accepted]] = []

    async def cancelling(work: Callable[[Connection], Any], **_: object) -> Any:
        done = await context.transaction(work)
        tasks[0].cancel()
        await asyncio.sleep(0)
        return done

    ingest = _over(context, cancelling)
    tasks += [asyncio.create_task(ingest.accept(paid(n), LOCAL)) for n in range(3)]
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert all(isinstance(one, Accepted) for one in others)
    with engine.connect() as connection:
        assert count(connection, "events") == 3


def _over(context: Context, transaction: Callable[..., Any]) -> Ingest:
    """An ingest whose transactions are run by this function."""

    class Other:
        wakeup = context.wakeup
        ingest_engine = context.ingest_engine

    other: Any = Other()
    other.transaction = transaction
    return Ingest(other)


async def test_what_was_committed_before_a_kill_is_found_again_by_its_key(context: Context, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    killed = OperationalError("COMMIT", {}, Exception("the process is gone before it could answer"))

    async def committed_and_gone(work: Callable[[Connection], Any], **_: object) -> Any:
        await context.transaction(work)
        raise killed

    events = [paid(n, idempotency_key=f"k{n}") for n in range(10)]
    ingest = _over(context, committed_and_gone)
    answers = await asyncio.gather(*(ingest.accept(one, LOCAL) for one in events), return_exceptions=True)
    assert all(isinstance(one, DBAPIError) for one in answers)
    repeated = await asyncio.gather(*(context.ingest.accept(one, LOCAL) for one in events))
    assert all(one.duplicate for one in repeated)
    with engine.connect() as connection:
        assert count(connection, "events") == count(connection, "deliveries") == 10


async def test_what_a_transaction_did_not_commit_can_be_sent_again(context: Context, engine: Engine) -> None:
    async def rolled_back(work: Callable[[Connection], Any], **_: object) -> Any:
        def fail(connection: Connection) -> None:
            work(connection)
            raise OperationalError("INSERT", {}, Exception("the database is gone"))

        await context.transaction(fail)

    events = [paid(n, idempotency_key=f"k{n}") for n in range(10)]
    ingest = _over(context, rolled_back)
    answers = await asyncio.gather(*(ingest.accept(one, LOCAL) for one in events), return_exceptions=True)
    assert all(isinstance(one, DBAPIError) for one in answers)
    repeated = await asyncio.gather(*(context.ingest.accept(one, LOCAL) for one in events))
    assert not any(one.duplicate for one in repeated)


async def test_a_group_that_waits_for_a_lock_does_not_hold_up_the_next(context: Context, engine: Engine) -> None:
    with engine.connect() as producer:
        mine = enqueue(producer, [paid(idempotency_key="k")])[0]
        waiting = asyncio.create_task(context.ingest.accept(paid(idempotency_key="k"), LOCAL))
        await asyncio.to_thread(walk.wait_until_blocked, engine)
        assert isinstance(await context.ingest.accept(paid(1), LOCAL), Accepted)
        assert not waiting.done()
        producer.commit()
        assert await waiting == Accepted(mine.id, duplicate=True)


async def test_one_that_waits_too_long_for_a_lock_is_told_and_the_others_of_its_group_are_accepted(
    context: Context, engine: Engine, migrated_database_url: str
) -> None:
    impatient = create_async_engine(migrated_database_url, connect_args={"options": "-c lock_timeout=50"})
    ingest = Ingest(replace(context, ingest_engine=impatient))
    with engine.connect() as producer:
        enqueue(producer, [paid(idempotency_key="held")])
        events = [paid(n, idempotency_key="held" if n == 5 else f"free {n}") for n in range(12)]
        answers = await asyncio.gather(*(ingest.accept(event, LOCAL) for event in events), return_exceptions=True)
        assert isinstance(answers[5], OperationalError)
        assert all(isinstance(one, Accepted) and not one.duplicate for n, one in enumerate(answers) if n != 5)
    await impatient.dispose()
    with engine.connect() as connection:
        assert count(connection, "events") == 11
