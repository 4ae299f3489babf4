"""The search of the log, against the same filter in plain Python over everything there is."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, event, text

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT, first_id, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.delivery import FAILED, LIVE, DeliveryState, Released
from dispatcher.model.event import Mode
from dispatcher.model.filter import Filter
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.retry import schedule
from dispatcher.store import limits, log
from dispatcher.store import search as store
from dispatcher.store.log import LoggedDelivery
from tests.support import walk
from tests.support.servers import drop_database, fresh_database
from tests.support.walk import NOW

HOSTS = ("shop.example.com", "Pay.example.com", "old.example.net")
TYPES = ("payment.completed", "payment.failed", "refund.failed")
ERRORS = ("certificate has expired", "connection refused", "the receiver's answer: certificate unknown & | !")
OUTCOMES = (
    Outcome(OutcomeClass.OK, Phase.BODY, status_code=200),
    Outcome(OutcomeClass.HTTP_RETRYABLE, Phase.BODY, status_code=503),
    Outcome(OutcomeClass.HTTP_4XX, Phase.BODY, status_code=404),
    *(Outcome(OutcomeClass.TLS_CERT, Phase.TLS, error=error) for error in ERRORS),
)


@pytest.fixture(scope="module")
def connection(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[Connection]:
    """Some sixty deliveries: live and ended, of three tenants, after one to three attempts."""
    url = fresh_database(postgres, migrated_template)
    engine = create_engine(url)
    with engine.begin() as connection:
        fill(connection)
    with engine.connect() as connection:
        yield connection
    engine.dispose()
    drop_database(postgres, url)


def fill(connection: Connection) -> None:
    chance = random.Random(7)
    tenants = [DEFAULT_TENANT, uuid7(), uuid7()]
    for n, tenant_id in enumerate(tenants):
        if n:
            connection.execute(
                text("INSERT INTO dispatcher.tenants (id, name) VALUES (:id, CAST(:id AS text))"), {"id": tenant_id}
            )
        for host in HOSTS[: n + 1]:
            walk.add_endpoint(connection, url=f"https://{host}/hook", tenant_id=tenant_id)
    worker_id = walk.add_worker(connection)
    for n in range(30):
        walk.emit(
            connection,
            type_=chance.choice(TYPES),
            tenant_id=chance.choice(tenants),
            object_id=f"pay_{n % 5}",
            mode=Mode.TEST if n % 4 == 1 else Mode.LIVE,
            now=NOW - timedelta(hours=n),
        )
    for share in (1.0, 0.6, 0.5):
        for claim in walk.claim_all(connection, worker_id):
            if chance.random() > share:
                change, outcome = Released(), None  # type: ignore[assignment]
            elif (outcome := chance.choice(OUTCOMES)).ok:
                change = walk.DELIVERED
            else:
                change = chance.choice([walk.EXHAUSTED, walk.retry(0.0), walk.retry(3600.0)])
            walk.record(connection, [walk.result(claim, change, outcome)])


def everything(connection: Connection) -> list[LoggedDelivery]:
    live = connection.execute(text("SELECT id FROM dispatcher.deliveries")).scalars().all()
    ended = connection.execute(text("SELECT id FROM dispatcher.ended_deliveries")).scalars().all()
    found = [log.find(connection, id_) for id_ in (*live, *ended)]
    return [one for one in found if one is not None]


def error_of(connection: Connection, id_: UUID) -> str:
    for table in ("deliveries", "ended_deliveries"):
        row = connection.execute(text(f"SELECT last_error FROM dispatcher.{table} WHERE id = :id"), {"id": id_}).first()
        if row is not None:
            return row[0] or ""
    return ""


def matches(connection: Connection, one: LoggedDelivery, chosen: Filter) -> bool:
    """What `Filter` says of itself, without SQL."""
    words = [word.lower() for word in re.findall(r"\w+", chosen.error or "")]
    said = re.findall(r"\w+", error_of(connection, one.id).lower())
    host = one.url.split("/")[2].lower()
    return all(
        (
            not chosen.states or one.state in chosen.states,
            not chosen.undelivered or one.state is not DeliveryState.DELIVERED,
            chosen.tenant_id in (None, one.tenant_id),
            chosen.endpoint_id in (None, one.endpoint_id),
            chosen.event_type in (None, one.event_type),
            chosen.mode in (None, one.mode),
            chosen.object_id in (None, one.object_id),
            chosen.host is None or chosen.host.lower() == host,
            chosen.outcome in (None, one.last_outcome),
            chosen.status_code in (None, one.last_status_code),
            chosen.attempts_min is None or one.attempts >= chosen.attempts_min,
            chosen.attempts_max is None or one.attempts <= chosen.attempts_max,
            chosen.created_after is None or one.id >= first_id(chosen.created_after),
            chosen.created_before is None or one.id < first_id(chosen.created_before),
            chosen.error is None
            or (bool(words) and set(words[:-1]) <= set(said) and any(one.startswith(words[-1]) for one in said)),
        )
    )


def filters(connection: Connection) -> st.SearchStrategy[Filter]:
    endpoints = connection.execute(text("SELECT id, tenant_id FROM dispatcher.endpoints")).all()

    def some(values: Any) -> st.SearchStrategy[Any]:
        return st.none() | st.sampled_from(list(values))

    return st.builds(
        Filter,
        states=st.sampled_from([(), FAILED, LIVE, (DeliveryState.DELIVERED,), (DeliveryState.WAITING, *FAILED)]),
        undelivered=st.booleans(),
        tenant_id=some({row.tenant_id for row in endpoints}),
        endpoint_id=some(row.id for row in endpoints),
        event_type=some(TYPES),
        mode=some(Mode),
        object_id=some(["pay_0", "pay_3", "nobody"]),
        host=some([*HOSTS, "PAY.example.com", "example.com"]),
        outcome=some(["ok", "tls_cert", "http_4xx", "dns"]),
        status_code=some([200, 503, 404, 418]),
        attempts_min=some([0, 1, 2, 3]),
        attempts_max=some([0, 1, 2, 100]),
        error=some(["certificate", "certificate exp", "refused connection", "EXPIRED has", "nothing", "answer"]),
        created_after=some([NOW - timedelta(hours=20), NOW - timedelta(minutes=30)]),
        created_before=some([NOW - timedelta(hours=3)]),
    )


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_search_finds_what_the_filter_says_in_both_orders(connection: Connection, data: st.DataObject) -> None:
    # One or two conditions at a time find something more often than twelve.
    full = data.draw(filters(connection))
    names = data.draw(st.sets(st.sampled_from([field.name for field in dataclasses.fields(Filter)]), max_size=3))
    chosen = Filter(**{name: getattr(full, name) for name in names})
    wanted = sorted(one.id for one in everything(connection) if matches(connection, one, chosen))
    assert [one.id for one in store.search(connection, chosen, limit=500)] == wanted[::-1]
    assert [one.id for one in store.search(connection, chosen, limit=500, oldest_first=True)] == wanted


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("chosen", [Filter(), Filter(undelivered=True), Filter(host=HOSTS[0]), Filter(attempts_min=2)])
def test_the_pages_of_a_search_show_each_delivery_once(
    connection: Connection, chosen: Filter, oldest_first: bool
) -> None:
    whole = store.search(connection, chosen, limit=500, oldest_first=oldest_first)
    assert len(whole) > 7
    paged: list[LoggedDelivery] = []
    while page := store.search(
        connection, chosen, past=paged[-1].id if paged else None, limit=7, oldest_first=oldest_first
    ):
        paged += page
    assert paged == whole


@pytest.mark.parametrize("oldest_first", [False, True])
def test_a_search_ends_at_the_delivery_that_is_its_limit(connection: Connection, oldest_first: bool) -> None:
    found = store.search(connection, Filter(), oldest_first=oldest_first, limit=1000)
    until = found[len(found) // 2].id
    expected = [delivery.id for delivery in found[: len(found) // 2 + 1]]
    searched = store.search(connection, Filter(), until=until, oldest_first=oldest_first, limit=1000)
    assert [delivery.id for delivery in searched] == expected


@pytest.mark.parametrize(
    "error", ["'", "a & | ! b", ":*", "foo:*bar", "\\", "((", "<->", "%", "e\u0301", " ", "x" * 200]
)
def test_no_text_is_refused_as_a_search_for_an_error(connection: Connection, error: str) -> None:
    assert store.search(connection, Filter(error=error)) == []


def test_a_tenant_with_very_many_endpoints_is_searched_all_the_same(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = store.search(connection, Filter(tenant_id=DEFAULT_TENANT), limit=500)
    monkeypatch.setattr(store, "MANY", 0)
    assert store.search(connection, Filter(tenant_id=DEFAULT_TENANT), limit=500) == wanted != []


def test_a_delivery_that_ends_in_mid_search_is_found_once(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 3)
        claims = walk.claim(connection, walk.add_worker(connection))

    def end(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM dispatcher.ended_deliveries d" in statement and claims:
            with engine.begin() as other:
                walk.record(other, [walk.result(claims.pop())])

    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", end)
        found = store.search(connection, Filter())
    assert sorted(one.state for one in found) == ["delivered", "in_flight", "in_flight"]
    assert len({one.id for one in found}) == 3


def test_a_search_that_takes_too_long_says_what_to_narrow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEARCH_S", 0.001)
    monkeypatch.setattr(store, "COLUMNS", f"{log.COLUMNS}, pg_sleep(1)")
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        with pytest.raises(InvalidInput) as refused:
            store.search(connection, Filter())
    assert (refused.value.code, refused.value.pointer) == ("SEARCH_TOO_BROAD", "/created_after")


def test_the_most_attempts_are_those_of_a_schedule() -> None:
    assert store.MAX_ATTEMPTS == schedule.MAX_ATTEMPTS


def test_an_attempt_is_found_by_its_id(connection: Connection) -> None:
    rows = connection.execute(text("SELECT id, delivery_id FROM dispatcher.attempts")).all()
    assert len(rows) > 30
    for id_, delivery_id in rows:
        found = log.find_attempt(connection, id_)
        assert found is not None
        assert (found[0], found[1].id) == (delivery_id, id_)
    assert log.find_attempt(connection, first_id(NOW)) is None


@pytest.mark.parametrize("owned", [False, True], ids=["of all tenants", "of a tenant"])
def test_the_few_deliveries_of_a_sandbox_are_found_by_an_index_of_their_own(
    connection: Connection, owned: bool
) -> None:
    row = connection.execute(text("SELECT * FROM dispatcher.ended_deliveries WHERE mode = 'test' LIMIT 1")).one()
    columns = [name for name in row._fields if name not in ("id", "mode")]
    with connection.begin_nested() as nested:
        for days in range(2):
            connection.execute(
                text(f"""
                INSERT INTO dispatcher.ended_deliveries (id, mode, {", ".join(columns)})
                SELECT overlay(CAST(gen_random_uuid() AS text) PLACING :beginning FROM 1)::uuid, 'live',
                       {", ".join(columns)}
                FROM dispatcher.ended_deliveries CROSS JOIN generate_series(1, 10000) WHERE id = :id"""),
                {"id": row.id, "beginning": str(first_id(NOW - timedelta(days=days)))[:13]},
            )
        connection.execute(text("ANALYZE dispatcher.ended_deliveries"))
        chosen = Filter(mode=Mode.TEST, tenant_id=row.tenant_id if owned else None)
        indexes = set()
        with limits.limited(connection):
            for part in store.parts(connection, chosen, limit=50):
                if not part.is_live:
                    plan = connection.execute(text(f"EXPLAIN {part.sql}"), part.values).scalars().all()
                    indexes |= set(re.findall(r"using (ended\w*) on ended_deliveries\w* d", "\n".join(plan)))
        parents = connection.execute(
            text("""
            SELECT parent.relname FROM pg_inherits i JOIN pg_class child ON child.oid = i.inhrelid
            JOIN pg_class parent ON parent.oid = i.inhparent WHERE child.relname = ANY (:indexes)"""),
            {"indexes": list(indexes)},
        )
        assert set(parents.scalars()) == {"ended_test_endpoint" if owned else "ended_test"}
        nested.rollback()
