"""Who may call: bearer keys, requests signed by HMAC, scopes, rates; and who may no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.flow.prune import prune
from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id
from dispatcher.model.access import Scope
from dispatcher.store import idempotency, tenants
from tests.api.callers import AT, Time, bearer, make_key, serving, signature_headers
from tests.api.conftest import OPERATOR
from tests.support import walk
from tests.support.patience import eventually

EVENT = {"type": "payment.completed", "payload": {"amount": 1000}}
LISTED = "/v1/endpoints?limit=1"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def client(migrated_database_url: str, time: Time) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(migrated_database_url, time) as client:
        yield client


def used_at(engine: Engine, key: Any) -> datetime | None:
    with engine.connect() as connection:
        found = tenants.find_key_by_id(connection, parse_id("key", key["id"]))
    assert found is not None
    return found.last_used_at


async def get(client: httpx.AsyncClient, headers: dict[str, str], target: str = LISTED) -> int:
    return (await client.get(target, headers=headers)).status_code


# Bearer keys


async def test_a_key_is_taken_with_and_without_bearer(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    for form in ("Bearer {}", "bearer {}", "BEARER {}", "{}"):
        assert await get(client, {"authorization": form.format(key["key"])}) == 200, form


async def test_what_is_no_key_is_401(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    forms = ("", "Bearer", "Bearer ", "Basic {}", "Bearer {}x", "Bearer  {}", "Bearer {} x", "Bearer é")
    for value in [form.format(key["key"]) for form in forms] + [f"Bearer {key['id']}"]:
        answer = await client.get(LISTED, headers=[(b"authorization", value.encode("latin-1"))])
        assert answer.status_code == 401, value
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "UNAUTHORIZED"
        assert key["key"] not in answer.text


async def test_the_last_use_of_a_key_is_noted(client: httpx.AsyncClient, engine: Engine) -> None:
    key = await make_key(client)
    assert used_at(engine, key) is None
    await get(client, bearer(key["key"]))
    await eventually(lambda: used_at(engine, key))
    first = used_at(engine, key)
    assert first is not None
    await get(client, bearer(key["key"]))
    assert used_at(engine, key) == first, "to the minute"
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.api_keys SET last_used_at = now() - interval '2 minutes'"))
    await client.get(LISTED, headers=signature_headers(key, "GET", LISTED))
    await eventually(lambda: (used_at(engine, key) or first) > first)


# Revocation


async def test_a_revoked_key_is_refused_at_once_by_every_route(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    asked = [
        ("GET", "/v1/endpoints", None),
        ("POST", "/v1/endpoints", {"url": "https://shop.example.com/"}),
        ("POST", "/v1/events", EVENT),
        ("POST", "/v1/events/batch", {"events": [EVENT]}),
    ]
    existing = [
        one
        for one in asked
        if (await client.request(one[0], one[1], json=one[2], headers=bearer(key["key"]))).status_code != 405
    ]
    assert len(existing) >= 3
    assert (await client.delete(f"/v1/keys/{key['id']}", headers=bearer())).status_code == 204
    for method, path, body in existing:
        answer = await client.request(method, path, json=body, headers=bearer(key["key"]))
        assert answer.status_code == 401, path
        assert answer.json()["code"] == "UNAUTHORIZED"


async def test_a_revoked_key_accepts_no_event_in_an_application_that_knew_it(
    client: httpx.AsyncClient, migrated_database_url: str, engine: Engine
) -> None:
    key = await make_key(client)
    async with serving(migrated_database_url) as other:
        assert (await other.post("/v1/events", json=EVENT, headers=bearer(key["key"]))).status_code == 202
        await client.delete(f"/v1/keys/{key['id']}", headers=bearer())
        assert (await other.post("/v1/events", json=EVENT, headers=bearer(key["key"]))).status_code == 401
    with engine.connect() as connection:
        assert len(walk.rows(connection, "SELECT id FROM dispatcher.events")) == 1


# Requests signed by HMAC


async def test_a_signed_request_is_its_keys(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    for target in ("/v1/endpoints", LISTED, "/v1/deliveries?object_id=pay%201%2F2&event_type=a.b"):
        answer = await client.get(target, headers=signature_headers(key, "GET", target))
        assert answer.status_code == 200, (target, answer.text)
    body = json.dumps(EVENT | {"payload": "ü"}, ensure_ascii=False).encode()
    headers = signature_headers(key, "POST", "/v1/events", body) | {"content-type": "application/json"}
    assert (await client.post("/v1/events", content=body, headers=headers)).status_code == 202


async def test_the_key_itself_may_stand_for_its_id(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    headers = signature_headers(key, "GET", LISTED) | {"x-api-key": key["key"]}
    assert await get(client, headers) == 200


async def test_a_timestamp_counts_for_300_s_either_way(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    for seconds, status in ((300, 200), (-300, 200), (300.001, 401), (-300.001, 401), (86400, 401), (-86400, 401)):
        timestamp = (AT + timedelta(seconds=seconds)).isoformat()
        assert await get(client, signature_headers(key, "GET", LISTED, timestamp=timestamp)) == status, seconds


INSTANTS = [
    AT.isoformat().replace("+00:00", "Z"),
    AT.isoformat(timespec="microseconds"),
    AT.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
    AT.strftime("%Y%m%dT%H%M%SZ"),
]
NO_INSTANTS = [
    "",
    "now",
    str(int(AT.timestamp())),
    "2026-03-02T09:00:00",
    "2026-03-02",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "0" * 5000,
]


async def test_any_iso_8601_instant_with_a_zone_is_read_and_nothing_else(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    for timestamp in INSTANTS:
        assert await get(client, signature_headers(key, "GET", LISTED, timestamp=timestamp)) == 200, timestamp
    for timestamp in NO_INSTANTS:
        headers = signature_headers(key, "GET", LISTED, timestamp=timestamp or " ") | {"x-timestamp": timestamp}
        answer = await client.get(LISTED, headers=headers)
        assert answer.status_code == 401, timestamp
        assert "x-timestamp" in answer.json()["detail"]


NO_SIGNATURES = ["", "AAAA", "!" * 44, "A" * 43, "A" * 43 + "B", "A" * 44 + "====", "é" * 44, "00" * 32, " " * 44]


async def test_what_is_no_signature_is_401(client: httpx.AsyncClient) -> None:
    signed = signature_headers(await make_key(client), "GET", LISTED)
    for signature in NO_SIGNATURES:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in signed.items() if name != "x-signature"]
        answer = await client.get(LISTED, headers=[*headers, (b"x-signature", signature.encode("latin-1"))])
        assert answer.status_code == 401, signature
        assert "x-signature" in answer.json()["detail"]


async def test_each_of_the_three_headers_is_needed(client: httpx.AsyncClient) -> None:
    signed = signature_headers(await make_key(client), "GET", LISTED)
    for lacking in signed:
        assert await get(client, {name: value for name, value in signed.items() if name != lacking}) == 401, lacking


async def test_a_signature_is_of_one_request_only(client: httpx.AsyncClient) -> None:
    key, body = await make_key(client), json.dumps(EVENT).encode()
    query = f"?tenant_id={format_id('ten', DEFAULT_TENANT)}"
    signed = signature_headers(key, "POST", f"/v1/events{query}", body) | {"content-type": "application/json"}
    for method, target, content in (
        ("PATCH", f"/v1/events{query}", body),
        ("POST", f"/v1/endpoints{query}", body),
        ("POST", f"/v1/events{query}&limit=1", body),
        ("POST", "/v1/events", body),
        ("POST", f"/v1/events{query}", body + b" "),
        ("POST", f"/v1/events{query}", b""),
    ):
        answer = await client.request(method, target, content=content, headers=signed)
        assert answer.status_code == 401, (method, target)
    later = (AT + timedelta(seconds=1)).isoformat()
    assert (
        await client.post(f"/v1/events{query}", content=body, headers=signed | {"x-timestamp": later})
    ).status_code == 401
    other = await make_key(client)
    assert (
        await client.post(f"/v1/events{query}", content=body, headers=signed | {"x-api-key": other["id"]})
    ).status_code == 401
    assert (await client.post(f"/v1/events{query}", content=body, headers=signed)).status_code == 202


async def test_keys_that_cannot_sign_are_refused_alike(client: httpx.AsyncClient, engine: Engine) -> None:
    key, revoked, mute, broken = [await make_key(client) for _ in range(4)]
    await client.delete(f"/v1/keys/{revoked['id']}", headers=bearer())
    with engine.begin() as connection:
        change = text("UPDATE dispatcher.api_keys SET signing_secret = :value WHERE id = :id")
        connection.execute(change, {"id": parse_id("key", mute["id"]), "value": None})
        # Moved from another row: it does not open there.
        (sealed,) = walk.rows(
            connection, "SELECT signing_secret FROM dispatcher.api_keys WHERE id = :id", id=parse_id("key", key["id"])
        )
        connection.execute(change, {"id": parse_id("key", broken["id"]), "value": sealed[0]})
    unknown = key | {"id": "key_00000000-0000-7000-8000-00000000dead"}
    named = [revoked, mute, broken, unknown, key | {"id": "key_nonsense"}, key | {"id": "nonsense"}, key | {"id": ""}]
    bodies = []
    for one in named:
        answer = await client.get(LISTED, headers=signature_headers(one, "GET", LISTED))
        assert answer.status_code == 401, one["id"]
        bodies.append(answer.json()["detail"])
    assert len(set(bodies)) == 1
    # A secret of zeros is what an unknown key is computed with.
    zeros = unknown | {"signing_secret": "hmsec_" + "A" * 43 + "="}
    assert await get(client, signature_headers(zeros, "GET", LISTED)) == 401


async def test_a_signature_that_was_seen_is_refused_also_by_another_process(
    client: httpx.AsyncClient, migrated_database_url: str, time: Time
) -> None:
    headers = signature_headers(await make_key(client), "GET", LISTED)
    assert await get(client, headers) == 200
    answer = await client.get(LISTED, headers=headers)
    assert answer.status_code == 401
    assert "seen before" in answer.json()["detail"]
    async with serving(migrated_database_url, time) as other:
        assert await get(other, headers) == 401


async def test_a_signature_that_did_not_hold_is_not_remembered(client: httpx.AsyncClient, time: Time) -> None:
    key = await make_key(client)
    headers = signature_headers(key, "GET", LISTED)
    time.pass_(301)
    assert await get(client, headers) == 401
    time.pass_(-301)
    assert await get(client, headers) == 200


async def test_a_refused_request_has_used_its_signature_up(client: httpx.AsyncClient) -> None:
    key = await make_key(client, scopes=["events:write"])
    headers = signature_headers(key, "GET", "/v1/keys")
    assert await get(client, headers, "/v1/keys") == 403
    assert await get(client, headers, "/v1/keys") == 401


async def test_signatures_are_forgotten_only_when_their_time_no_longer_counts(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    assert await get(client, signature_headers(await make_key(client), "GET", LISTED)) == 200
    now = datetime.now(UTC)
    with engine.begin() as connection:
        remembered = "SELECT signature_sha256 FROM dispatcher.request_signatures"
        idempotency.remember(connection, walk.uuid7(), "k", idempotency.Answered(b"", 200, "{}"), lifetime_s=0)
        prune(connection, now=now + timedelta(seconds=600))
        assert len(walk.rows(connection, remembered)) == 1
        assert walk.rows(connection, "SELECT key FROM dispatcher.idempotent_requests") == []
        prune(connection, now=now + timedelta(seconds=1200))
        assert walk.rows(connection, remembered) == []


async def test_a_body_beyond_the_limit_is_refused_before_it_is_hashed(client: httpx.AsyncClient) -> None:
    key, body = await make_key(client), b"1" * 300_000
    headers = signature_headers(key, "POST", "/v1/endpoints", body)
    assert (await client.post("/v1/endpoints", content=body, headers=headers)).status_code == 413


async def test_an_authorization_header_is_what_counts_where_both_are_there(client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    signed = signature_headers(key, "GET", LISTED)
    assert await get(client, signed | bearer("wrong")) == 401
    assert await get(client, signed | bearer(key["key"])) == 200


# Rates


async def test_beyond_the_rate_it_is_429_until_the_time_it_says(client: httpx.AsyncClient, time: Time) -> None:
    key = await make_key(client, rate_limit=2)
    assert [await get(client, bearer(key["key"])) for _ in range(2)] == [200, 200]
    answer = await client.get(LISTED, headers=bearer(key["key"]))
    assert answer.status_code == 429
    assert answer.json()["code"] == "TOO_MANY_REQUESTS"
    time.pass_(int(answer.headers["retry-after"]))
    assert [await get(client, bearer(key["key"])) for _ in range(3)] == [200, 200, 429]
    time.pass_(3600)
    assert [await get(client, bearer(key["key"])) for _ in range(3)] == [200, 200, 429], "no more than a second brings"


async def test_a_rate_below_one_says_how_long_to_wait(client: httpx.AsyncClient, time: Time) -> None:
    key = await make_key(client, rate_limit=0.01)
    assert await get(client, bearer(key["key"])) == 200
    time.pass_(40)
    answer = await client.get(LISTED, headers=bearer(key["key"]))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    time.pass_(60)
    assert await get(client, bearer(key["key"])) == 200


async def test_a_rate_is_of_one_key_however_it_calls(client: httpx.AsyncClient) -> None:
    key, other = await make_key(client, rate_limit=1), await make_key(client, rate_limit=1)
    assert await get(client, bearer(key["key"])) == 200
    assert await get(client, signature_headers(key, "GET", LISTED)) == 429
    assert (await client.post("/v1/events", json=EVENT, headers=bearer(key["key"]))).status_code == 429
    assert await get(client, bearer(other["key"])) == 200
    assert await get(client, bearer(OPERATOR)) == 200


# Scopes

ASKED: dict[Scope, tuple[str, str, Any]] = {
    Scope.EVENTS_WRITE: ("POST", "/v1/events", EVENT),
    Scope.ENDPOINTS_WRITE: ("POST", "/v1/endpoints", {"url": "https://shop.example.com/"}),
    Scope.DELIVERIES_READ: ("GET", "/v1/deliveries", None),
    Scope.ADMIN: ("GET", "/v1/keys", None),
}


async def test_a_scope_allows_what_is_its_own_and_nothing_else(client: httpx.AsyncClient) -> None:
    keys = {scope: await make_key(client, scopes=[scope]) for scope in Scope}
    for (needed, (method, path, body)), (scope, key) in product(ASKED.items(), keys.items()):
        answer = await client.request(method, path, json=body, headers=bearer(key["key"]))
        if scope in (needed, Scope.ADMIN):
            assert answer.is_success, (path, answer.text)
        else:
            assert answer.status_code == 403, path
            assert answer.json()["code"] == "FORBIDDEN"
            assert needed in answer.json()["detail"]
