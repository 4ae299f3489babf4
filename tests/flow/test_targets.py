"""An event with a target goes there: to the implicit endpoint of its tenant and origin, which is made on first use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from dispatcher import Event
from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.flow.enqueue import Accepted, enqueue, enqueue_each
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.event import Target
from dispatcher.model.profile import Profile
from dispatcher.store import events as store
from dispatcher.store import profiles
from tests.support import walk
from tests.support.producers import count, shared_database, wipe

URL = "https://shop.example.com/orders/8127?paid=1"


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Rolled back at the end, what is published included."""
    with engine.connect() as connection:
        yield connection


def targeted(url: str = URL, method: Any = None, **values: Any) -> Event:
    return Event(type="payment.paid", payload=1, target=Target(url, method), **values)


def add_tenant(connection: Connection, *, parent_id: UUID | None = None, profile: str | None = None) -> UUID:
    id_ = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name, parent_id, profile) VALUES (:id, :name, :parent_id, :profile)"),
        {"id": id_, "name": str(id_), "parent_id": parent_id, "profile": profile},
    )
    return id_


def implicit(connection: Connection) -> list[Any]:
    return walk.rows(connection, "SELECT * FROM dispatcher.endpoints WHERE origin IS NOT NULL ORDER BY id")


def test_it_goes_to_the_target_and_not_to_the_tenants_endpoints(connection: Connection) -> None:
    parent = add_tenant(connection)
    tenant = add_tenant(connection, parent_id=parent)
    walk.add_endpoint(connection, tenant_id=tenant)
    above = walk.add_endpoint(connection, tenant_id=parent)
    (accepted,) = enqueue(connection, [targeted(tenant_id=tenant)])
    assert accepted.fanout == 2
    (endpoint,) = implicit(connection)
    assert (endpoint.tenant_id, endpoint.origin, endpoint.url) == (
        tenant,
        "https://shop.example.com",
        "https://shop.example.com/",
    )
    assert (endpoint.profile, endpoint.schedule, endpoint.secrets) == ("default", "standard", [])
    found = {row.endpoint_id: (row.target_url, row.target_method) for row in walk.live(connection)}
    assert found == {endpoint.id: (URL, "POST"), above.id: (None, None)}
    (history,) = walk.rows(
        connection, "SELECT * FROM dispatcher.endpoint_history WHERE endpoint_id = :id", id=endpoint.id
    )
    assert (history.version, history.status, history.event_types) == (1, "active", None)
    assert walk.lane(connection, endpoint.id).asleep
    (trail,) = walk.rows(connection, "SELECT * FROM dispatcher.audit_log WHERE object = :id", id=f"ep_{endpoint.id}")
    assert (trail.actor, trail.action, trail.tenant_id) == ("target", "endpoint.created", tenant)


def test_there_is_one_implicit_endpoint_a_tenant_and_origin(connection: Connection) -> None:
    other = add_tenant(connection)
    events = [
        targeted("https://shop.example.com/a"),
        targeted("HTTPS://SHOP.example.com/b", "GET"),
        targeted("https://shop.example.net/"),
        targeted("https://shop.example.com/a", tenant_id=other),
    ]
    enqueue(connection, events)
    enqueue(connection, events[:1])
    found = Counter((row.tenant_id, row.origin) for row in implicit(connection))
    assert found == {
        (DEFAULT_TENANT, "https://shop.example.com"): 1,
        (DEFAULT_TENANT, "https://shop.example.net"): 1,
        (other, "https://shop.example.com"): 1,
    }
    sent = Counter((row.target_url, row.target_method) for row in walk.live(connection))
    assert sent[("https://shop.example.com/b", "GET")] == 1
    assert sent[("https://shop.example.com/a", "POST")] == 3


def test_an_ordinary_event_never_goes_to_an_implicit_endpoint(connection: Connection) -> None:
    enqueue(connection, [targeted()])
    (accepted,) = enqueue(connection, [Event(type="payment.paid", payload=1)])
    assert accepted.fanout == 0


def test_a_deleted_implicit_endpoint_is_made_anew(connection: Connection) -> None:
    enqueue(connection, [targeted()])
    connection.execute(text("UPDATE dispatcher.endpoints SET status = 'deleted'"))
    enqueue(connection, [targeted()])
    assert [row.status for row in implicit(connection)] == ["deleted", "active"]


@pytest.mark.parametrize(
    ("profile", "target", "pointer", "said"),
    [
        ("terminal", Target(URL), "/target", "allows no targets"),
        ("multisafepay", Target(URL), None, ""),
        ("standard-webhooks", Target(URL), "/target", "allows no targets"),
        (None, Target("http://shop.example.com/"), "/target/url", "https"),
        (None, Target("https://127.0.0.1/"), "/target/url", "found"),
        (None, Target("https://user:secret@shop.example.com/"), "/target/url", "found"),
        (None, Target("not a URL"), "/target/url", "found"),
        ("nowhere", Target(URL), "/target", "not published"),
    ],
)
def test_the_profile_says_which_target_an_event_may_have(
    connection: Connection, profile: str | None, target: Target, pointer: str | None, said: str
) -> None:
    tenant = add_tenant(connection, profile=profile)
    (answer,) = enqueue_each(connection, [Event(type="a", payload=1, tenant_id=tenant, target=target)])
    if pointer is None:
        assert isinstance(answer, Accepted)
        return
    assert isinstance(answer, InvalidInput)
    assert answer.pointer == pointer
    assert said in str(answer)
    assert "secret" not in str(answer)
    assert implicit(connection) == []


def test_a_method_that_the_profile_lacks_is_refused(connection: Connection) -> None:
    shipped = dict(walk.PROFILES)
    profiles.publish(
        connection, shipped | {"default": replace(shipped["default"], methods=("GET",))}, default="default"
    )
    (refused,) = enqueue_each(connection, [targeted(method="POST")])
    assert isinstance(refused, InvalidInput)
    assert refused.pointer == "/target/method"
    enqueue(connection, [targeted()])
    assert walk.live(connection)[0].target_method == "GET"
    assert implicit(connection)[0].method == "GET"


@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        ("https://shop.example.com/", "/target"),
        (Target(1), "/target/url"),  # type: ignore[arg-type]
        (Target(""), "/target/url"),
        (Target("https://shop.example.com/" + "x" * 2048), "/target/url"),
        (Target(URL, "PUT"), "/target/method"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_target_is_refused_by_name(connection: Connection, target: Any, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        enqueue(connection, [Event(type="a", payload=1, target=target)])
    assert refused.value.pointer == pointer


def test_another_target_is_another_body(connection: Connection) -> None:
    first, again, elsewhere, nowhere = enqueue_each(
        connection,
        [
            targeted(idempotency_key="k"),
            targeted(idempotency_key="k"),
            targeted(URL + "&", idempotency_key="k"),
            Event(type="payment.paid", payload=1, idempotency_key="k"),
        ],
    )
    assert isinstance(first, Accepted)
    assert again == Accepted(first.id, duplicate=True)
    assert isinstance(elsewhere, DispatcherError)
    assert isinstance(nowhere, DispatcherError)
    assert count(connection, "events") == 1


def test_networks_that_the_operator_allows_may_be_targets(connection: Connection) -> None:
    profiles.publish(connection, walk.PROFILES, default="default", networks=(ip_network("127.0.0.0/8"),))
    enqueue(connection, [targeted("http://127.0.0.1:8080/hook")])
    assert implicit(connection)[0].origin == "http://127.0.0.1:8080"


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_the_second_to_use_an_origin_waits_for_the_firsts_end(engine: Engine, ends: str) -> None:
    with engine.connect() as first, engine.connect() as second, ThreadPoolExecutor(1) as pool:
        enqueue(first, [targeted()])
        enqueue(second, [Event(type="a", payload=1), targeted("https://shop.example.net/")])  # waits for nobody
        waiting = pool.submit(enqueue, second, [targeted()])
        walk.wait_until_blocked(engine)
        getattr(first, ends)()
        waiting.result(10)
        second.commit()
        assert len(implicit(second)) == 2
        with engine.connect() as third:
            enqueue(third, [targeted()])  # committed: nothing to wait for, nothing to make
            assert len(implicit(third)) == 2


def test_batches_with_the_same_origins_in_opposite_orders_never_deadlock(engine: Engine) -> None:
    for round_ in range(5):
        events = [targeted(f"https://shop-{round_}-{n}.example.com/") for n in range(20)]

        def emit_all(order: int, events: list[Event] = events) -> None:
            with engine.begin() as connection:
                enqueue(connection, events[::order])

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(emit_all, order) for order in (1, -1, 1, -1)]:
                done.result(30)
    with engine.connect() as connection:
        assert len(implicit(connection)) == 100


@pytest.mark.parametrize(
    "values",
    [
        {"origin": "https://a.example.com/path"},
        {"origin": "https://a.example.com?x"},
        {"origin": "ftp://a.example.com"},
        {"origin": "https://a.example.com:123456"},
        {"origin": "https://A.example.com"},
        {"origin": "https://a.example.com\nx"},
        {"origin": "https://u@a.example.com"},
        {"origin": "https://" + "a" * 300},
        {"profile": "multisafepay"},
        {"profile": "nowhere"},
        {"schedule": "exponential"},
        {"max_in_flight": 0},
        {"max_in_flight": 1000},
        {"tenant_id": UUID("01890a5d-ac96-774b-bcce-b302099a8057")},
        {"endpoint_id": UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")},
    ],
    ids=str,
)
def test_the_function_registers_nothing_but_endpoints_of_targets(engine: Engine, values: dict[str, Any]) -> None:
    allowed: dict[str, Any] = {
        "endpoint_id": uuid7(),
        "tenant_id": DEFAULT_TENANT,
        "origin": "https://a.example.com",
        "profile": "default",
        "schedule": "standard",
        "max_in_flight": 64,
    }
    with engine.connect() as connection:
        given = allowed | values
        with (
            pytest.raises(ProgrammingError, match="only the endpoint of a target"),
            connection.begin_nested(),
        ):
            store.register_implicit_endpoint(connection, given.pop("endpoint_id"), **given)
        assert implicit(connection) == []
        store.register_implicit_endpoint(connection, allowed.pop("endpoint_id"), **allowed)
        assert len(implicit(connection)) == 1


def test_an_id_that_exists_is_not_taken_over(connection: Connection) -> None:
    endpoint = walk.add_endpoint(connection)
    store.register_implicit_endpoint(
        connection,
        endpoint.id,
        tenant_id=DEFAULT_TENANT,
        origin="https://a.example.com",
        profile="default",
        schedule="standard",
        max_in_flight=64,
    )
    assert implicit(connection) == []


def test_what_is_published_is_read_back_as_it_was(connection: Connection) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    profiles.publish(connection, walk.PROFILES, default="terminal", networks=networks)
    tenants = {name: add_tenant(connection, profile=name) for name in walk.PROFILES}
    found = profiles.of_tenants(connection, [*tenants.values(), DEFAULT_TENANT, uuid7()])
    assert found.pop(DEFAULT_TENANT).profile.name == "terminal"
    assert {id_: one.profile for id_, one in found.items()} == {
        id_: walk.PROFILES[name] for name, id_ in tenants.items()
    }
    assert all(one.networks == networks for one in found.values())


def test_publishing_again_changes_the_default_and_withdraws_what_is_gone(connection: Connection) -> None:
    a, b = Profile(name="a"), Profile(name="b", target=False)
    for known, default in (({"a": a, "b": b}, "a"), ({"a": a, "b": b}, "b"), ({"a": a}, "a"), ({"b": b}, "b")):
        profiles.publish(connection, known, default=default)
        rows = walk.rows(connection, "SELECT name, is_default FROM dispatcher.profiles ORDER BY name")
        assert [tuple(row) for row in rows] == [(name, name == default) for name in known]


def test_deliveries_of_an_ordered_endpoint_are_marked_and_numbered_in_order(connection: Connection) -> None:
    ordered, other = walk.add_endpoint(connection), walk.add_endpoint(connection)
    connection.execute(text("UPDATE dispatcher.endpoints SET ordered = true WHERE id = :id"), {"id": ordered.id})
    accepted = [
        one.id
        for _ in range(3)
        for one in enqueue(connection, [Event(type="a", payload=n) for n in range(50)], now=walk.NOW)
    ]
    found = walk.live(connection)
    assert {row.endpoint_id for row in found if row.ordered} == {ordered.id}
    assert {row.endpoint_id for row in found if not row.ordered} == {other.id}
    assert [row.event_id for row in found if row.ordered] == accepted


def test_a_delivery_is_its_endpoints_tenants(engine: Engine) -> None:
    with engine.begin() as connection:
        parent, child = uuid7(), uuid7()
        for id_, above in ((parent, None), (child, parent)):
            connection.exec_driver_sql(
                "INSERT INTO dispatcher.tenants (id, name, parent_id) VALUES (%s, %s, %s)", (id_, str(id_), above)
            )
            walk.add_endpoint(connection, tenant_id=id_)
        walk.emit(connection, tenant_id=child)
        assert {row.tenant_id for row in walk.live(connection)} == {parent, child}
