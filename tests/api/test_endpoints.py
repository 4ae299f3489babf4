"""What can be done with an endpoint through the API, whatever its profile."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.egress import AddressPolicy, PinnedTransport
from dispatcher.egress.failures import DnsFailure
from dispatcher.ids import format_id, parse_id, uuid7
from tests.api.callers import bearer, make_key
from tests.api.conftest import other_tenant
from tests.api.receiving import serving
from tests.support import walk
from tests.support.receivers import Names

URL = "https://shop.example.com/hook"
AUTH = {"type": "basic", "username": "shop", "password": "planted-password"}
HEADERS = {"X-Api-Key": "planted-header", "x-shop": "8127"}


async def create(api: httpx.AsyncClient, **asked: Any) -> Any:
    answer = await api.post("/v1/endpoints", json={"url": URL} | asked)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_every_field_that_is_asked_for_is_kept_and_shown_but_what_is_secret(api: httpx.AsyncClient) -> None:
    asked = {
        "name": "orders",
        "description": "till 4",
        "event_types": ["payment.*", "refund.created"],
        "metadata": {"store": "Utrecht", "n": 1},
        "schedule": "exponential",
        "signature": ["standard_webhooks_v1", "rsa_sha256"],
        "method": "GET",
        "max_in_flight": 3,
        "rate_limit": 0.5,
        "ordered": True,
        "status": "disabled",
    }
    made = await create(api, auth=AUTH, headers=HEADERS, **asked)
    assert {name: made[name] for name in asked} == asked
    assert made["auth"] == {"type": "basic", "username": "shop"}
    assert made["headers"] == ["X-Api-Key", "x-shop"]
    assert made["status_reason"] == "created disabled"
    assert made["warnings"] == []
    secret, _ = made.pop("secret"), made.pop("warnings")
    assert secret.startswith("whsec_")
    assert (await api.get(f"/v1/endpoints/{made['id']}")).json() == made


async def test_what_is_not_asked_for_is_as_the_profile_has_it(api: httpx.AsyncClient) -> None:
    made = await create(api, name=None, event_types=None, auth=None, headers=None, max_in_flight=None)
    assert {name: made[name] for name in ("event_types", "schedule", "signature", "auth", "headers", "method")} == {
        "event_types": None,
        "schedule": "standard",
        "signature": None,
        "auth": None,
        "headers": [],
        "method": "POST",
    }
    assert (made["max_in_flight"], made["rate_limit"], made["ordered"], made["status"]) == (64, None, False, "active")
    assert (made["profile"], made["origin"], made["version"]) == ("default", None, 1)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"auth": {"type": "basic", "username": "a:b", "password": "hidden-word"}}, "/auth/username"),
    ({"auth": {"type": "basic", "username": "a", "password": "hidden-word\n"}}, "/auth/password"),
    ({"auth": {"type": "digest", "username": "a", "password": "hidden-word"}}, "/auth/type"),
    ({"auth": {"username": "a", "password": "hidden-word"}}, "/auth/type"),
    ({"auth": "hidden-word"}, "/auth"),
    ({"password": "hidden-word"}, "/password"),
    ({"secret": "hidden-word"}, "/secret"),
    ({"headers": {"x a": "hidden-word"}}, "/headers"),
    ({"headers": {"x-a": "hidden-word\r\nx: y"}}, "/headers/x-a"),
    ({"headers": {"x-a": "hidden-wörd"}}, "/headers/x-a"),
    ({"headers": {"x-a": ""}}, "/headers/x-a"),
    ({"headers": {"x-a": "v" * 4097}}, "/headers/x-a"),
    ({"headers": {f"x-{n}": "v" for n in range(21)}}, "/headers"),
    ({"headers": {"X-a": "v", "x-A": "v"}}, "/headers/x-A"),
    *(
        ({"headers": {name: "hidden-word"}}, f"/headers/{name}")
        for name in (
            *("Host", "content-length", "Transfer-Encoding", "connection", "content-type", "User-Agent"),
            *("webhook-id", "Webhook-Anything", "sign", "expect", "upgrade"),
        )
    ),
    ({"headers": {"Authorization": "hidden-word"}, "auth": AUTH}, "/headers"),
    ({"signature": []}, "/signature"),
    ({"signature": ["md5"]}, "/signature/0"),
    ({"method": "PUT"}, "/method"),
    ({"rate_limit": 0}, "/rate_limit"),
    ({"rate_limit": 10_001}, "/rate_limit"),
    ({"max_in_flight": 1001}, "/max_in_flight"),
    ({"metadata": {"a": "x" * 20_000}}, "/metadata"),
    ({"metadata": []}, "/metadata"),
    ({"profile": "nobodys"}, "/profile"),
    ({"tenant_id": format_id("ten", uuid7())}, "/tenant_id"),
    ({"ordered": "yes"}, "/ordered"),
    ({"colour": "red"}, "/colour"),
]


async def test_a_bad_field_is_named_and_a_secret_in_it_is_not_repeated(api: httpx.AsyncClient) -> None:
    for asked, pointer in BAD:
        answer = await api.post("/v1/endpoints", json={"url": URL} | asked)
        assert pointer in [one["pointer"] for one in answer.json()["errors"]], (asked, answer.text)
        for refused in (answer, await api.post("/v1/endpoints", json=asked)):  # the second one lacks its URL
            assert refused.status_code == 422
            assert "hidden" not in refused.text
            assert "planted" not in refused.text
    assert (await api.get("/v1/endpoints")).json()["data"] == []


async def test_what_is_left_out_of_a_change_stays_and_null_goes_back_to_the_default(api: httpx.AsyncClient) -> None:
    made = await create(
        api, name="orders", event_types=["payment.*"], auth=AUTH, headers=HEADERS, rate_limit=5, max_in_flight=2
    )
    path = f"/v1/endpoints/{made['id']}"
    changed = (await api.patch(path, json={"description": "new", "max_in_flight": 9, "event_types": None})).json()
    assert changed["version"] == made["version"] + 1
    same = {"version", "updated_at", "description", "max_in_flight", "event_types"}
    assert {name: changed[name] for name in changed.keys() - same} == {
        name: made[name] for name in changed.keys() - same
    }
    assert (changed["description"], changed["max_in_flight"], changed["event_types"]) == ("new", 9, None)
    nothing = dict.fromkeys(("name", "auth", "headers", "rate_limit", "max_in_flight", "metadata", "schedule"))
    bare = (await api.patch(path, json=nothing)).json()
    assert {name: bare[name] for name in nothing} == {
        "name": None,
        "auth": None,
        "headers": [],
        "rate_limit": None,
        "max_in_flight": 64,
        "metadata": {},
        "schedule": "standard",
    }
    assert (await api.patch(path, json={})).json() == bare, "nothing asked for is no change"


async def test_a_bad_change_changes_nothing(api: httpx.AsyncClient) -> None:
    made = await create(api, headers={"authorization": "Token x"})
    path = f"/v1/endpoints/{made['id']}"
    for changes, pointer in (
        ({"url": "http://shop.example.com/"}, "/url"),
        ({"url": None}, "/url"),
        ({"name": "a", "event_types": []}, "/event_types"),
        ({"name": "a", "schedule": "nightly"}, "/schedule"),
        ({"auth": AUTH}, "/headers"),
        ({"status": "disabled"}, "/status"),
        ({"tenant_id": made["tenant_id"]}, "/tenant_id"),
        ({"profile": "terminal"}, "/profile"),
    ):
        answer = await api.patch(path, json=changes)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert (await api.get(path)).json() == {name: made[name] for name in made if name not in ("secret", "warnings")}


async def test_deliveries_of_an_endpoint_that_becomes_ordered_take_turns_and_no_longer_after(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    made = await create(api)
    for _ in range(3):
        await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})
    for ordered in (True, None):
        await api.patch(f"/v1/endpoints/{made['id']}", json={"ordered": ordered})
        with engine.connect() as connection:
            assert [one.ordered for one in walk.live(connection)] == [bool(ordered)] * 3


async def test_a_disabled_endpoint_says_why_and_is_enabled_again(api: httpx.AsyncClient) -> None:
    made = await create(api)
    path = f"/v1/endpoints/{made['id']}"
    disabled = (await api.post(f"{path}/disable", json={"reason": "moving"})).json()
    assert (disabled["status"], disabled["status_reason"]) == ("disabled", "moving")
    again = (await api.post(f"{path}/disable")).json()
    assert again["status_reason"] == "disabled by an operator"
    for status, count in (("disabled", 1), ("active", 0)):
        assert len((await api.get("/v1/endpoints", params={"status": status})).json()["data"]) == count
    enabled = (await api.post(f"{path}/enable")).json()
    assert (enabled["status"], enabled["status_reason"]) == ("active", None)
    assert (await api.post(f"{path}/disable", json={"reason": "x" * 501})).status_code == 422


async def test_endpoints_are_chosen_by_profile_and_paged(api: httpx.AsyncClient) -> None:
    for profile in ("default", "gateway", "default"):
        await create(api, profile=profile)
    assert len((await api.get("/v1/endpoints", params={"profile": "default"})).json()["data"]) == 2
    first = (await api.get("/v1/endpoints", params={"limit": 2})).json()
    rest = (await api.get("/v1/endpoints", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [one["profile"] for one in first["data"] + rest["data"]] == ["default", "gateway", "default"]


async def test_deleting_says_what_becomes_of_what_waits(api: httpx.AsyncClient) -> None:
    made = await create(api)
    path = f"/v1/endpoints/{made['id']}"
    for _ in range(2):
        await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})
    deleted = await api.delete(path)
    assert deleted.status_code == 200
    assert deleted.json() == {"id": made["id"], "status": "deleted", "cancelled_deliveries": 2}
    for answer in (
        await api.get(path),
        await api.patch(path, json={"name": "a"}),
        await api.delete(path),
        *[await api.post(f"{path}/{verb}") for verb in ("enable", "disable", "ping", "rotate_secret")],
    ):
        assert answer.status_code == 404
    found = (await api.get("/v1/deliveries")).json()["data"]
    assert {(one["status"], one["status_reason"]) for one in found} == {("cancelled", "the endpoint was deleted")}


async def test_a_rotated_secret_signs_beside_the_old_one_for_the_overlap_only(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    made = await create(api)
    rotated = await api.post(f"/v1/endpoints/{made['id']}/rotate_secret", json={"overlap_s": 60})
    assert rotated.status_code == 200
    assert rotated.json()["secret"] not in (None, made["secret"])
    with engine.connect() as connection:
        ((secrets,),) = walk.rows(connection, "SELECT secrets FROM dispatcher.endpoints")
    assert [one["expires_at"] is None for one in secrets] == [True, False]
    await api.post(f"/v1/endpoints/{made['id']}/rotate_secret", json={"overlap_s": 0})
    with engine.connect() as connection:
        assert len(walk.rows(connection, "SELECT secrets FROM dispatcher.endpoints")[0][0]) == 1
    assert (await api.post(f"/v1/endpoints/{made['id']}/rotate_secret", json={"overlap_s": 1e9})).status_code == 422


async def test_a_repeat_gets_the_same_endpoint_without_its_secret(api: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "register-1"}
    first = await api.post("/v1/endpoints", json={"url": URL, "auth": AUTH}, headers=headers)
    again = await api.post("/v1/endpoints", json={"url": URL, "auth": AUTH}, headers=headers)
    other = await api.post("/v1/endpoints", json={"url": URL}, headers=headers)
    assert again.status_code == 201
    assert again.json() == {name: value for name, value in first.json().items() if name != "secret"}
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_CONFLICT")
    assert len((await api.get("/v1/endpoints")).json()["data"]) == 1


async def test_every_change_is_in_the_audit_log_with_before_and_after(api: httpx.AsyncClient) -> None:
    made = await create(api, auth=AUTH, headers=HEADERS)
    path = f"/v1/endpoints/{made['id']}"
    await api.patch(path, json={"description": "new", "auth": {**AUTH, "password": "planted-too"}})
    await api.post(f"{path}/disable", json={"reason": "moving"})
    await api.post(f"{path}/enable")
    await api.post(f"{path}/rotate_secret")
    await api.delete(path)
    answer = await api.get("/v1/audit_log", params={"object": made["id"]})
    entries = answer.json()["data"][::-1]
    assert [one["action"].removeprefix("endpoint.") for one in entries] == [
        *("created", "updated", "disabled", "enabled", "secret_rotated", "deleted")
    ]
    created, updated, disabled, _, _, deleted = entries
    assert created["before"] is None
    assert created["after"]["url"] == URL
    assert created["after"]["headers"] == list(HEADERS)
    basic = {"type": "basic", "username": "shop"}
    assert updated["before"] == {"description": None, "auth": basic}
    assert updated["after"] == {"description": "new", "auth": basic}
    assert disabled["after"] == {"status": "disabled", "status_reason": "moving"}
    assert deleted["after"]["cancelled_deliveries"] == 0
    assert all(one["actor"].startswith("key_") for one in entries)
    assert "planted" not in answer.text


async def test_no_secret_is_in_any_answer_log_or_dump_after_it_was_told(
    api: httpx.AsyncClient, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = await api.post(
        "/v1/endpoints", json={"url": URL, "auth": AUTH, "headers": HEADERS}, headers={"idempotency-key": "k"}
    )
    id_, told = made.json()["id"], made.json()["secret"]
    told_later = (await api.post(f"/v1/endpoints/{id_}/rotate_secret")).json()["secret"]
    hidden = [AUTH["password"], HEADERS["X-Api-Key"], *(one.removeprefix("whsec_") for one in (told, told_later))]
    said = [
        (await api.get(f"/v1/endpoints/{id_}")).text,
        (await api.get("/v1/endpoints")).text,
        (await api.patch(f"/v1/endpoints/{id_}", json={"name": "a"})).text,
        (await api.post(f"/v1/endpoints/{id_}/disable")).text,
        (await api.get("/v1/audit_log")).text,
        caplog.text,
    ]
    with engine.connect() as connection:
        names = walk.rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'dispatcher'")
        said += [str(walk.rows(connection, f"SELECT t::text FROM dispatcher.{name} t")) for (name,) in names]
    assert [word for word in hidden for text in said if word in text] == []


async def test_a_tenants_key_changes_its_own_endpoints_only(api: httpx.AsyncClient, engine: Engine) -> None:
    made = await create(api)
    _, key = other_tenant(engine)
    path = f"/v1/endpoints/{made['id']}"
    for method, to in (
        ("PATCH", path),
        ("DELETE", path),
        *(("POST", f"{path}/{verb}") for verb in ("enable", "disable", "ping", "rotate_secret")),
    ):
        answer = await api.request(method, to, json={} if method != "DELETE" else None, headers=bearer(key))
        assert answer.status_code == 404, (method, to)
    reading = (await make_key(api, tenant_id=made["tenant_id"], scopes=["deliveries:read"]))["key"]
    assert (await api.get(path, headers=bearer(reading))).status_code == 200
    assert (await api.delete(path, headers=bearer(reading))).status_code == 403


async def test_the_endpoint_of_targets_has_its_tenants_secret_and_no_url_to_change(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    event = {"type": "order.paid", "payload": 1, "target": {"url": "https://shop.example.com/orders/1"}}
    assert (await api.post("/v1/events", json=event)).status_code == 202
    (found,) = (await api.get("/v1/endpoints")).json()["data"]
    assert found["origin"] == "https://shop.example.com"
    path = f"/v1/endpoints/{found['id']}"
    refused = await api.patch(path, json={"url": URL})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/url")
    assert (await api.patch(path, json={"rate_limit": 5})).json()["rate_limit"] == 5
    rotation = await api.post(f"{path}/rotate_secret")
    assert (rotation.status_code, rotation.json()["code"]) == (409, "NO_SECRET")
    pinged = (await api.post(f"{path}/ping")).json()
    assert (pinged["ok"], pinged["outcome"]) == (False, "invalid_config")
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT secrets FROM dispatcher.endpoints")[0][0] == []
    parse_id("ep", found["id"])


@pytest.mark.parametrize(
    ("answers", "networks", "operators", "owners"),
    [
        (
            ["127.0.0.1", "::1"],
            ("127.0.0.0/8",),
            [
                (
                    "localhost leads to an address that may not be dialled: ::1;"
                    " DISPATCHER_ALLOW_NETWORKS says which networks may be"
                )
            ],
            ["localhost leads to an address that may not be dialled"],
        ),
        (["127.0.0.1", "::1"], ("127.0.0.0/8", "::1/128"), [], []),
        (DnsFailure("localhost does not exist"), ("127.0.0.0/8",), [], []),
    ],
)
async def test_a_host_that_would_not_be_dialled_now_is_registered_with_a_warning(
    migrated_database_url: str,
    answers: list[str] | DnsFailure,
    networks: tuple[str, ...],
    operators: list[str],
    owners: list[str],
) -> None:
    transport = PinnedTransport(addresses=AddressPolicy(networks), resolver=Names({"localhost": answers}))
    async with serving(migrated_database_url, transport, private=True) as client:
        made = await client.post("/v1/endpoints", json={"url": "http://localhost:3000/hook"})
        tenant = (await client.post("/v1/tenants", json={"name": "shop"})).json()["id"]
        key = await make_key(client, tenant_id=tenant)
        own = await client.post("/v1/endpoints", json={"url": "http://localhost:3000/"}, headers=bearer(key["key"]))
    assert (made.status_code, made.json()["warnings"]) == (201, operators)
    assert (own.status_code, own.json()["warnings"]) == (201, owners)


async def test_hosts_are_not_looked_up_where_only_public_ones_are_allowed(migrated_database_url: str) -> None:
    resolver = Names(default=["10.0.0.1"])
    async with serving(migrated_database_url, PinnedTransport(resolver=resolver)) as client:
        made = await client.post("/v1/endpoints", json={"url": "https://shop.example.com/hook"})
    assert (made.status_code, made.json()["warnings"], resolver.asked) == (201, [], [])
