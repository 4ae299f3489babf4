"""A decision is read as data, whether it was stored as data, as a sentence, or by two versions side by side."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from dispatcher.model.delivery import RetryAt, Stop
from dispatcher.store import log, migrate
from tests.support import walk
from tests.support.older_schema import migrate_to

Decided = tuple[str, bool, float | None, bool]

SENTENCES: dict[str, Decided] = {
    "delivered": ("delivered", True, None, False),
    "exhausted": ("exhausted", True, None, False),
    "rejected": ("rejected", True, None, False),
    "retry in 5 s": ("retry", True, 5.0, False),
    "retry in 3.14159 s": ("retry", True, 3.14159, False),
    "retry in 1e+06 s": ("retry", True, 1e6, False),
    "retry at 86400 s from the first attempt": ("retry", True, 86400.0, True),
    "not charged, again in 0 s": ("retry", False, 0.0, False),
    "not charged, again in 32.5 s": ("retry", False, 32.5, False),
}
"""Every form of sentence that versions before number 0009 store, and what it says."""

CHANGES: list[tuple[RetryAt | Stop, str]] = [
    (walk.DELIVERED, "delivered"),
    (walk.EXHAUSTED, "exhausted"),
    (Stop("rejected", "http_4xx 404"), "rejected"),
    (walk.retry(5), "retry in 5 s"),
    (walk.retry(1e6), "retry in 1e+06 s"),
    (walk.retry(86400, from_first_attempt=True), "retry at 86400 s from the first attempt"),
    (walk.retry(0, charged=False), "not charged, again in 0 s"),
    (walk.retry(32.5, charged=False), "not charged, again in 32.5 s"),
]

_INSERT_AS_BEFORE = text("""
INSERT INTO dispatcher.attempts
    (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, outcome_known, outcome, method, url,
     request_headers, response_headers, response_body, body_end, decision)
VALUES (:delivery_id, :seq, gen_random_uuid(), gen_random_uuid(), now(), 1, 1, true, 'closed', 'POST',
        'https://receiver.example.com/', '[]', '[]', '', 'complete', :sentence)
""")

DELIVERY_ID = UUID(int=1)


def insert_as_before(connection: Connection, sentences: dict[int, str]) -> None:
    """Inserts attempts of one delivery, by their claims, as versions before number 0009 do."""
    for seq, sentence in sentences.items():
        connection.execute(_INSERT_AS_BEFORE, {"delivery_id": DELIVERY_ID, "seq": seq, "sentence": sentence})


def read(connection: Connection, delivery_id: UUID = DELIVERY_ID) -> list[Decided]:
    return [
        (attempt.decision, attempt.charged, attempt.wait_s, attempt.from_first_attempt)
        for attempt in log.attempts(connection, delivery_id)
    ]


def test_sentences_from_before_the_migration_and_during_the_upgrade_are_read_as_data(database_url: str) -> None:
    before = dict(enumerate(SENTENCES))
    meanwhile = {seq + len(before): sentence for seq, sentence in before.items()}
    engine = create_engine(database_url)
    migrate_to(engine, "0008")
    with engine.begin() as connection:
        insert_as_before(connection, before)
    migrate.migrate(engine)
    with engine.begin() as connection:
        insert_as_before(connection, meanwhile)  # by a worker that was not replaced yet
        assert read(connection) == [*SENTENCES.values(), *SENTENCES.values()]
    engine.dispose()


@pytest.mark.parametrize(("change", "sentence"), CHANGES, ids=[sentence for _, sentence in CHANGES])
def test_what_is_recorded_is_data_and_the_sentence_that_the_version_before_reads(
    engine: Engine, change: RetryAt | Stop, sentence: str
) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
        walk.record(connection, [walk.result(claim, change)])
        assert read(connection, claim.delivery_id) == [SENTENCES[sentence]]
        (attempt,) = walk.attempts(connection)
        _, charged, wait_s, from_first_attempt = SENTENCES[sentence]
        assert attempt.decision == sentence
        assert (attempt.charged, attempt.wait_s) == (charged, wait_s)
        assert attempt.from_first_attempt is (None if wait_s is None else from_first_attempt)


def test_a_retry_without_a_sentence_is_read_as_data(engine: Engine) -> None:
    """As the next schema number stores it, whose processes work beside this version's during an upgrade."""
    with engine.begin() as connection:
        insert_as_before(connection, {1: "retry"})
        connection.execute(
            text("UPDATE dispatcher.attempts SET charged = false, wait_s = 7.5, from_first_attempt = false")
        )
        assert read(connection) == [("retry", False, 7.5, False)]


def test_a_late_success_that_the_version_before_records_overrules_the_data(engine: Engine) -> None:
    """That version changes the sentence of the lost attempt, and knows nothing of the other columns."""
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
        walk.record(connection, [walk.result(claim, walk.retry(0, charged=False))])
        connection.execute(
            text("UPDATE dispatcher.attempts SET outcome = 'ok', was_lost = true, decision = 'delivered'")
        )
        assert read(connection, claim.delivery_id) == [("delivered", True, None, False)]
