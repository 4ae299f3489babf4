"""Producers do not wait for one another, for workers or for partitions; only for who holds the same key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from dispatcher import Accepted, Event, emit_many
from dispatcher.errors import IdempotencyConflict
from dispatcher.flow.enqueue import enqueue
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.store import events, partitions
from tests.support import producers, walk
from tests.support.patience import PATIENCE_S
from tests.support.producers import producer_engine, shared_database, wipe

NO_WAITING = "-c lock_timeout=60000 -c deadlock_timeout=20"


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


@pytest.fixture
def impatient(migrated_database_url: str) -> Iterator[Engine]:
    """A producer's engine on which a wait of a minute, or any deadlock, is an error."""
    engine = producer_engine(
        migrated_database_url, pool_size=20, isolation_level="READ COMMITTED", connect_args={"options": NO_WAITING}
    )
    yield engine
    engine.dispose()


def for_type(name: str, many: int, **values: object) -> list[Event]:
    return [Event(type=name, payload=n, **values) for n in range(many)]  # type: ignore[arg-type]


@pytest.mark.parametrize("many", [1, 50], ids=["single", "bulk"])
def test_two_producers_of_the_same_endpoints_in_opposite_orders(impatient: Engine, many: int) -> None:
    with impatient.begin() as connection:
        for name in ("a", "b"):
            walk.add_endpoint(connection, event_types=(name,))
    with impatient.connect() as one, impatient.connect() as other:
        for first, second in (("a", "b"), ("b", "a"), ("a", "a")):
            enqueue(one, for_type(first, many))
            enqueue(other, for_type(second, many))
        other.commit()
        one.commit()
    with impatient.connect() as connection:
        assert producers.count(connection, "events") == 6 * many
        assert len(walk.live(connection)) == 6 * many


def test_a_claim_and_an_emit_do_not_wait_for_each_other(impatient: Engine) -> None:
    with impatient.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 10)
        worker_id = walk.add_worker(connection)
    with impatient.connect() as claimer, impatient.connect() as producer, impatient.connect() as recorder:
        claims = walk.claim(claimer, worker_id, room=4)
        walk.emit(producer, 10)  # while the claim's transaction is open
        claimer.commit()
        second = walk.claim(claimer, worker_id, room=4)  # while the producer's is
        walk.record(recorder, [walk.result(claim) for claim in claims])
        walk.emit(producer, 10)
        for connection in (recorder, claimer, producer):
            connection.commit()
        assert (len(claims), len(second)) == (4, 4)
        rest = walk.claim_all(claimer, worker_id)
    assert len(rest) == 22
    assert set(walk.per_endpoint(rest)) == {endpoint.id}


def test_making_partitions_and_a_producer_do_not_wait_for_each_other(impatient: Engine) -> None:
    with impatient.begin() as connection:
        walk.add_endpoint(connection)
    with impatient.connect() as keeper, impatient.connect() as producer, impatient.connect() as another:
        enqueue(producer, for_type("a", 1))
        ahead = keeper.execute(text("SELECT statement_timestamp() + interval '3 days'")).scalar_one()
        assert partitions.ensure(keeper, ahead)
        enqueue(another, for_type("a", 1))
        enqueue(producer, for_type("a", 1))
        another.commit()
        keeper.commit()
        producer.commit()
        assert producers.count(keeper, "events") == 3


def test_many_threads_on_the_same_endpoints_lose_nothing_and_never_deadlock(impatient: Engine) -> None:
    with impatient.begin() as connection:
        for name in "abcd":
            walk.add_endpoint(connection, event_types=(name, "all"))
        worker_id = walk.add_worker(connection, now=None)
    emitting = threading.Event()
    numbers = count()

    def produce(seed: int) -> int:
        for n in range(8):
            with Session(impatient) as session, session.begin():
                for name in "abcd"[:: 1 if (seed + n) % 2 else -1]:
                    emit_many(session, for_type(name, 3))
                key = f"key {next(numbers)}"
                emit_many(session, [Event(type="all", payload=1, idempotency_key=key)] * 2)
        return 8 * (4 * 3 + 4)

    def claim() -> int:
        taken = 0
        while not emitting.wait(0.005) or taken < expected:
            with impatient.begin() as connection:
                claims = walk.claim_all(connection, worker_id, now=None)
                walk.record(connection, [walk.result(one) for one in claims], now=None)
            taken += len(claims)
        return taken

    expected = 6 * 8 * (4 * 3 + 4)
    with ThreadPoolExecutor(7) as pool:
        claiming = pool.submit(claim)
        produced = [pool.submit(produce, seed) for seed in range(6)]
        try:
            assert sum(one.result(PATIENCE_S) for one in produced) == expected
        finally:
            emitting.set()
        assert claiming.result(PATIENCE_S) == expected
    assert walk.broken_promises(impatient) == []


def keyed(*keys: str, payload: int = 1) -> list[Event]:
    return [Event(type="a", payload=payload, idempotency_key=key) for key in keys]


def together(*works: Callable[[], list[Accepted]]) -> list[list[Accepted]]:
    barrier = threading.Barrier(len(works))

    def start(work: Callable[[], list[Accepted]]) -> list[Accepted]:
        barrier.wait(PATIENCE_S)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [done.result(PATIENCE_S) for done in [pool.submit(start, work) for work in works]]


def test_batches_with_the_same_keys_in_opposite_orders_wait_and_never_deadlock(impatient: Engine) -> None:
    def emit_all(keys: list[str]) -> list[Accepted]:
        with Session(impatient) as session, session.begin():
            return emit_many(session, keyed(*keys))

    for round_ in range(5):
        keys = [f"{round_} {n}" for n in range(40)]
        answers = together(*(partial(emit_all, keys[::order]) for order in (1, -1, 1, -1)))
        assert sum(not one.duplicate for answer in answers for one in answer) == 40
        forward = [answer[:: 1 if n % 2 == 0 else -1] for n, answer in enumerate(answers)]
        assert len({tuple(one.id for one in answer) for answer in forward}) == 1


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_the_second_user_of_a_key_waits_for_the_first_ones_end(engine: Engine, ends: str) -> None:
    with engine.connect() as first, engine.connect() as second, ThreadPoolExecutor(1) as pool:
        (mine,) = enqueue(first, keyed("k"))
        waiting = pool.submit(enqueue, second, keyed("k"))
        walk.wait_until_blocked(engine)
        getattr(first, ends)()
        (theirs,) = waiting.result(PATIENCE_S)
        second.commit()
        assert theirs.duplicate == (ends == "commit")
        assert (theirs.id == mine.id) == (ends == "commit")
        assert producers.count(second, "events") == 1


def test_the_second_user_of_a_key_with_another_body_conflicts_after_the_wait(engine: Engine) -> None:
    with engine.connect() as first, engine.connect() as second, ThreadPoolExecutor(1) as pool:
        enqueue(first, keyed("k"))
        waiting = pool.submit(enqueue, second, keyed("k", payload=2))
        walk.wait_until_blocked(engine)
        first.commit()
        with pytest.raises(IdempotencyConflict):
            waiting.result(PATIENCE_S)
        enqueue(second, keyed("k"))
        second.commit()
        assert producers.count(second, "events") == 1


def test_a_wait_for_a_key_that_times_out_leaves_the_transaction_usable(impatient: Engine) -> None:
    with impatient.connect() as first, impatient.connect() as second:
        enqueue(first, keyed("k"))
        second.execute(text("SET LOCAL lock_timeout = 50"))
        with pytest.raises(OperationalError, match="lock timeout"):
            enqueue(second, keyed("k", "l"))
        enqueue(second, keyed("l"))
        second.commit()


def test_single_emits_of_the_same_keys_in_opposite_orders_end_in_one_error_and_no_second_event(
    impatient: Engine,
) -> None:
    """The documented limit: a transaction that takes keys one by one takes them in an order, or the server picks."""

    def produce(*keys: str) -> list[Accepted]:
        with impatient.begin() as connection:
            (first,) = enqueue(connection, keyed(keys[0]))
            both.wait(PATIENCE_S)
            (second,) = enqueue(connection, keyed(keys[1]))
        return [first, second]

    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(produce, "k", "l"), pool.submit(produce, "l", "k")]
        errors = [end.exception(30) for end in ends]
    assert sum(isinstance(error, DBAPIError) for error in errors) == 1
    with impatient.connect() as connection:
        assert producers.count(connection, "events") == 2


def test_the_first_use_of_a_key_by_many_threads_makes_one_event(impatient: Engine) -> None:
    def first_use() -> list[Accepted]:
        with impatient.begin() as connection:
            return enqueue(connection, keyed("k"))

    answers = [one for answer in together(*[first_use] * 8) for one in answer]
    assert sum(not one.duplicate for one in answers) == 1
    assert len({one.id for one in answers}) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_key_that_a_stricter_transaction_cannot_see_is_an_error_to_run_again(engine: Engine, level: str) -> None:
    def ids(connection: Connection) -> list[UUID]:
        return [row.id for row in walk.rows(connection, "SELECT id FROM dispatcher.events")]

    with engine.connect() as first, engine.connect().execution_options(isolation_level=level) as second:
        assert ids(second) == []  # its snapshot is older than the key
        (mine,) = enqueue(first, keyed("k"))
        first.commit()
        with pytest.raises(OperationalError, match="could not serialize"):
            enqueue(second, keyed("k"))
        second.rollback()
        (theirs,) = enqueue(second, keyed("k"))
        assert (theirs.id, theirs.duplicate) == (mine.id, True)
        assert ids(second) == [mine.id]


def test_pruning_keys_skips_those_in_use(impatient: Engine) -> None:
    later = walk.NOW + timedelta(hours=24)
    with impatient.connect() as producer, impatient.connect() as pruner:
        enqueue(producer, keyed("k"), now=walk.NOW)
        producer.commit()
        assert not enqueue(producer, keyed("k"), now=later)[0].duplicate  # it takes the key anew
        events.forget(pruner, batch=10, now=later)
        pruner.commit()
        producer.commit()
        assert enqueue(producer, keyed("k"), now=later)[0].duplicate
