"""Registering endpoints and changing them, below the API."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow import register, registration
from dispatcher.flow.register import NewEndpoint, Register
from dispatcher.flow.requests import AUTH_PURPOSE, HEADERS_PURPOSE
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.model.endpoint import EndpointStatus
from dispatcher.model.profile import Profile
from dispatcher.signing import SCHEMES, Keyring
from dispatcher.store import endpoints
from tests.support import walk

DESK = Register(walk.KEYS, walk.PROFILES)
URL = "https://shop.example.com/"


def test_of_two_rotations_at_once_neither_forgets_the_secret_of_the_other(engine: Engine) -> None:
    desk = Register(Keyring.generate(), walk.PROFILES)
    with engine.begin() as connection:
        endpoint, first = desk.create(connection, NewEndpoint(url=URL))
    shown = [first]

    def rotate() -> None:
        with engine.begin() as connection:
            shown.append(desk.rotate_secret(connection, endpoint.id))

    with engine.begin() as connection:
        shown.append(desk.rotate_secret(connection, endpoint.id))
        other = threading.Thread(target=rotate)
        other.start()
        walk.wait_until_blocked(engine)
    other.join()
    with engine.connect() as connection:
        kept = register.find(connection, endpoint.id).secrets
    opened = [
        desk.keyring.open(one.sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=register.SECRET_PURPOSE)
        for one in kept
    ]
    assert opened == list(reversed(shown))


def test_of_two_changes_at_once_neither_undoes_the_other(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))

    def rename() -> None:
        with engine.begin() as connection:
            DESK.update(connection, endpoint.id, {"name": "new"})

    with engine.begin() as connection:
        DESK.update(connection, endpoint.id, {"description": "new"})
        other = threading.Thread(target=rename)
        other.start()
        walk.wait_until_blocked(engine)
    other.join()
    with engine.connect() as connection:
        found = register.find(connection, endpoint.id)
    assert (found.name, found.description, found.version) == ("new", "new", 3)


def test_a_plan_stores_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        planned = DESK.plan(connection, NewEndpoint(url=URL, headers={"x-a": "b"}))
        assert endpoints.list_(connection) == []
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))
        before, after = DESK.plan_update(connection, endpoint.id, {"url": URL + "2"})
        assert register.find(connection, endpoint.id) == before
    assert (planned.url, planned.secrets, after.url) == (URL, (), URL + "2")


def test_headers_and_authentication_are_sealed_for_their_endpoint_alone(engine: Engine) -> None:
    auth = {"type": "basic", "username": "u", "password": "p"}
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL, headers={"X-A": "b c"}, auth=auth))
    place: dict[str, Any] = {"tenant": endpoint.tenant_id, "endpoint": endpoint.id}
    assert endpoint.headers is not None
    assert endpoint.auth is not None
    opened = walk.KEYS.open(endpoint.headers, purpose=HEADERS_PURPOSE, **place).reveal()
    assert orjson.loads(opened) == [["X-A", "b c"]]
    assert orjson.loads(walk.KEYS.open(endpoint.auth, purpose=AUTH_PURPOSE, **place).reveal()) == auth


def test_what_the_keyring_does_not_open_hides_no_endpoint(engine: Engine) -> None:
    from dispatcher.api import forms

    auth = {"type": "basic", "username": "u", "password": "p"}
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL, headers={"X-A": "b"}, auth=auth))
    shown = forms.endpoint(endpoint, Keyring.generate())
    assert shown["headers"] is None
    assert shown["auth"] == {"type": "basic", "username": None}


def test_the_history_has_what_was_heard_after_every_change(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL, event_types=["a_b.c", "a_b.*"]))
        DESK.update(connection, endpoint.id, {"event_types": None})
        register.disable(connection, endpoint.id, "moving")
        register.disable(connection, endpoint.id, "moving")
        register.enable(connection, endpoint.id)
        DESK.update(connection, endpoint.id, {"event_types": ["x.*"]})
        found = walk.rows(
            connection,
            """SELECT version, event_types, status, status_reason FROM dispatcher.endpoint_history
            WHERE endpoint_id = :id ORDER BY version""",
            id=endpoint.id,
        )
    assert [tuple(one) for one in found] == [
        (1, ["a_b.c", "a_b.*"], "active", None),
        (2, None, "active", None),
        (3, None, "disabled", "moving"),
        (4, None, "active", None),
        (5, ["x.*"], "active", None),
    ]


def test_a_new_url_and_an_enabling_forget_the_addresses_that_were_blocked(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))

        def blocked() -> int:
            (row,) = walk.rows(connection, "SELECT blocked FROM dispatcher.endpoints")
            connection.exec_driver_sql("UPDATE dispatcher.endpoints SET blocked = 3")
            return int(row.blocked)

        blocked()
        DESK.update(connection, endpoint.id, {"name": "a"})
        assert blocked() == 3
        DESK.update(connection, endpoint.id, {"url": URL + "2"})
        assert blocked() == 0
        register.disable(connection, endpoint.id, "moving")
        assert blocked() == 3
        register.enable(connection, endpoint.id)
        assert blocked() == 0


def test_every_change_wakes_the_lane(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))
        for change in (
            lambda: DESK.update(connection, endpoint.id, {"max_in_flight": 5}),
            lambda: register.disable(connection, endpoint.id, "moving"),
            lambda: register.enable(connection, endpoint.id),
            lambda: DESK.rotate_secret(connection, endpoint.id),
        ):
            connection.exec_driver_sql("DELETE FROM dispatcher.wakes")
            change()
            assert len(walk.rows(connection, "SELECT FROM dispatcher.wakes")) == 1


def test_what_is_recorded_right_now_does_not_hold_up_a_change_of_order(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))
        walk.emit(connection, 3, now=None)
        first = walk.live(connection)[0].id
    with engine.begin() as recorder, engine.begin() as connection:
        walk.rows(recorder, "SELECT FROM dispatcher.deliveries WHERE id = :id FOR UPDATE", id=first)
        DESK.update(connection, endpoint.id, {"ordered": True})
        assert [one.ordered for one in walk.live(connection)] == [False, True, True]


def test_nobodys_endpoint_and_anothers_are_the_same(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL))
        for id_, own in ((uuid7(), None), (endpoint.id, uuid7())):
            for act in (
                lambda id_=id_, own=own: DESK.update(connection, id_, {"name": "a"}, tenant_id=own),
                lambda id_=id_, own=own: DESK.rotate_secret(connection, id_, tenant_id=own),
                lambda id_=id_, own=own: register.enable(connection, id_, tenant_id=own),
                lambda id_=id_, own=own: register.disable(connection, id_, "a", tenant_id=own),
                lambda id_=id_, own=own: register.delete(connection, id_, tenant_id=own),
            ):
                with pytest.raises(NotFound):
                    act()
        assert register.find(connection, endpoint.id) == endpoint


def test_a_tenants_profile_that_is_not_here_is_said(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dispatcher.tenants SET profile = 'gone'")
        with pytest.raises(InvalidInput) as caught:
            DESK.create(connection, NewEndpoint(url=URL))
        assert caught.value.pointer == "/profile"
        endpoint, _ = DESK.create(connection, NewEndpoint(url=URL, profile="default"))
    with pytest.raises(Conflict):
        replace(DESK, profiles={}).profile_of(endpoint)


def test_a_limit_counts_what_is_registered_and_not_what_targets_made(engine: Engine) -> None:
    limited = replace(DESK, profiles={"default": Profile(name="default", endpoint_limit=1)})
    with engine.begin() as connection:
        walk.add_endpoint(connection, origin="https://shop.example.com")
        walk.add_endpoint(connection, profile="gateway")
        gone = walk.add_endpoint(connection)
        register.delete(connection, gone.id)
        endpoint, _ = limited.create(connection, NewEndpoint(url=URL))
        for again in (limited.create, limited.plan):
            with pytest.raises(Conflict) as caught:
                again(connection, NewEndpoint(url=URL))
            assert caught.value.code == "ENDPOINT_LIMIT_REACHED"
        register.disable(connection, endpoint.id, "a disabled one counts")
        with pytest.raises(Conflict):
            limited.create(connection, NewEndpoint(url=URL))
        assert endpoints.count(connection, DEFAULT_TENANT, "default") == 1
    assert endpoint.status is EndpointStatus.ACTIVE


# The rules, without a database

KEYLESS = Profile(name="keyless", secret=False, signature_schemes=("rsa_sha256",), auth=("basic",))


def test_without_secrets_only_the_platforms_schemes_sign() -> None:
    for name, scheme in SCHEMES.items():
        if scheme.key_owner == "platform":
            assert registration.signature([name, name], KEYLESS) == (name,)
        else:
            with pytest.raises(InvalidInput):
                registration.signature([name], KEYLESS)


def test_a_header_that_the_profile_sends_under_another_name_is_not_the_endpoints() -> None:
    renaming = Profile(name="renaming", signature_headers=(("webhook-signature", "x-signature"),))
    with pytest.raises(InvalidInput):
        registration.headers({"X-Signature": "mine"}, renaming)
    assert registration.headers({"x-signature": "mine"}, Profile(name="p")) == [("x-signature", "mine")]


@given(st.text(max_size=20), st.text(max_size=20))
def test_headers_that_are_taken_are_tokens_and_visible_ascii(name: str, value: str) -> None:
    try:
        ((kept, sent),) = registration.headers({name: value}, Profile(name="p"))
    except InvalidInput:
        return
    assert (kept, sent) == (name, value)
    assert kept.isascii()
    assert not set(kept) & set(' \t\r\n:,;"()[]{}@\\/<>=?')
    assert sent.strip() == sent != ""
    assert all(" " <= one <= "~" for one in sent)


families = st.sampled_from(["payment.*", "order.*", "payment.completed", "payment.failed", "refund.created", "*"])


@given(st.lists(families, min_size=1, max_size=4), st.lists(families, min_size=1, max_size=4))
def test_a_closed_profile_has_an_endpoint_hear_what_it_asks_for_of_what_is_offered(
    asked: list[str], catalogue: list[str]
) -> None:
    def matches(patterns: list[str] | tuple[str, ...], kind: str) -> bool:
        return any(p in ("*", kind) or (p.endswith(".*") and kind.startswith(p[:-1])) for p in patterns)

    profile = Profile(name="p", event_choice="closed", catalogue=tuple(catalogue))
    heard = profile.heard(asked)
    assert heard is not None
    for kind in ("payment.completed", "payment.failed", "payment.x", "order.x", "refund.created", "refund.x"):
        assert matches(heard, kind) == (matches(asked, kind) and matches(catalogue, kind))
