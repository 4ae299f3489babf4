"""Endpoints that exist elsewhere, with the secrets that they have there."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.flow.requests import SECRET_PURPOSE
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.store import endpoints
from tests.api.callers import bearer
from tests.api.conftest import other_tenant
from tests.api.receiving import answering, of_profile, serving
from tests.support import walk

URL = "https://shop.example.com/hook"


def secret(n: int) -> str:
    return "whsec_" + base64.b64encode(b"planted-secret-of-24-%03d" % n).decode()


def item(n: int = 0, **values: Any) -> dict[str, Any]:
    return {"url": f"{URL}/{n}", "secret": secret(n)} | values


async def import_(api: httpx.AsyncClient, items: list[Any], **options: Any) -> Any:
    answer = await api.post("/v1/endpoints/import", json={"endpoints": items}, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def opened(engine: Engine, id_: str) -> list[bytes]:
    wanted = parse_id("ep", id_)
    with engine.connect() as connection:
        found = endpoints.fetch(connection, [wanted])[wanted]
    return [
        walk.KEYS.open(one.sealed, tenant=found.tenant_id, endpoint=wanted, purpose=SECRET_PURPOSE).reveal()
        for one in found.secrets
    ]


async def test_an_imported_endpoint_signs_with_the_secrets_that_it_had(api: httpx.AsyncClient, engine: Engine) -> None:
    rotating = {"url": URL, "secrets": [secret(1), secret(2)], "name": "two", "event_types": ["payment.*"]}
    result = await import_(api, [item(0), rotating])
    assert (result["created"], result["failed"]) == (2, 0)
    first, second = result["data"]
    assert (first["index"], first["status"], first["error"], first["warnings"]) == (0, "created", None, [])
    assert opened(engine, first["id"]) == [b"planted-secret-of-24-000"]
    assert opened(engine, second["id"]) == [b"planted-secret-of-24-001", b"planted-secret-of-24-002"]
    shown = (await api.get(f"/v1/endpoints/{second['id']}")).json()
    assert (shown["name"], shown["event_types"]) == ("two", ["payment.*"])
    (entry,) = (await api.get("/v1/audit_log", params={"object": first["id"]})).json()["data"]
    assert entry["action"] == "endpoint.imported"


BAD: list[tuple[Any, str | None]] = [
    (item(url="http://shop.example.com/"), "/url"),
    (item(secret="hidden-word"), "/secret"),
    (item(secret=5), "/secret"),
    ({"url": URL}, "/secret"),
    ({"secret": secret(7)}, "/url"),
    (item(secrets=[secret(1)]), "/secrets"),
    ({"url": URL, "secrets": []}, "/secrets"),
    ({"url": URL, "secrets": [secret(1), "hidden-word"]}, "/secrets/1"),
    (item(profile="musepay"), "/secret"),
    (item(profile="nobodys"), "/profile"),
    (item(tenant_id=format_id("ten", uuid7())), "/tenant_id"),
    (item(tenant_id="ten_1"), "/tenant_id"),
    (item(auth={"type": "basic", "username": "a", "password": 5}), "/auth/password"),
    (item(colour="hidden-word"), "/colour"),
    ("hidden-word", None),
    (None, None),
    ([item()], None),
]


async def test_bad_ones_say_why_and_do_not_stop_the_good_ones(api: httpx.AsyncClient) -> None:
    items = [item(0), *(bad for bad, _ in BAD), item(1)]
    result = await import_(api, items)
    assert (result["created"], result["failed"]) == (2, len(BAD))
    assert [one["index"] for one in result["data"]] == list(range(len(items)))
    assert [one["status"] for one in result["data"]] == ["created", *["failed"] * len(BAD), "created"]
    for (_, pointer), one in zip(BAD, result["data"][1:-1], strict=True):
        assert one["id"] is None
        assert one["error"]["code"] == "INVALID_INPUT"
        assert one["error"]["detail"]
        assert pointer is None or pointer in [fault["pointer"] for fault in one["error"]["errors"]], one
    assert len((await api.get("/v1/endpoints")).json()["data"]) == 2


async def test_an_invalid_tenant_is_not_taken_for_the_one_of_the_query(api: httpx.AsyncClient) -> None:
    for invalid in ("", " ", "null", "ten_"):
        answer = await import_(api, [item(tenant_id=invalid)])
        assert answer["failed"] == 1, invalid
        assert answer["data"][0]["error"]["errors"][0]["pointer"] == "/tenant_id"


async def test_no_secret_is_in_an_answer_a_log_or_the_database(
    api: httpx.AsyncClient, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    items = [item(0), *(bad for bad, _ in BAD)]
    headers = {"idempotency-key": "import-1"}
    answer = await api.post("/v1/endpoints/import", json={"endpoints": items}, headers=headers)
    again = await api.post("/v1/endpoints/import", json={"endpoints": items}, headers=headers)
    assert again.json() == answer.json()
    said = [answer.text, caplog.text, (await api.get("/v1/endpoints")).text, (await api.get("/v1/audit_log")).text]
    with engine.connect() as connection:
        names = walk.rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'dispatcher'")
        said += [str(walk.rows(connection, f"SELECT t::text FROM dispatcher.{name} t")) for (name,) in names]
    hidden = ["hidden-word", *(secret(n).removeprefix("whsec_") for n in range(10))]
    assert [word for word in hidden for text in said if word in text and word != "hidden-word"] == []
    assert not any(word in answer.text for word in hidden)


async def test_endpoints_are_imported_for_the_tenants_that_they_name(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    result = await import_(api, [item(0), item(1, tenant_id=tenant_id)])
    shown = [(await api.get(f"/v1/endpoints/{one['id']}")).json()["tenant_id"] for one in result["data"]]
    assert shown[0] != tenant_id
    assert shown[1] == tenant_id
    by_query = await import_(api, [item(2)], params={"tenant_id": tenant_id})
    assert (await api.get(f"/v1/endpoints/{by_query['data'][0]['id']}")).json()["tenant_id"] == tenant_id
    refused = await api.post("/v1/endpoints/import", json={"endpoints": [item()]}, headers=bearer(key))
    assert refused.status_code == 403


async def test_a_profile_keeps_its_rules(migrated_database_url: str) -> None:
    def by_path(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if request.url.path == "/down" else 200)

    seen: list[httpx.Request] = []
    async with serving(migrated_database_url, answering(by_path, seen)) as client:
        tenant = await of_profile(client, "terminal")
        items = [item(n, tenant_id=tenant) for n in range(18)]
        items.insert(3, item(0, tenant_id=tenant, url="https://shop.example.com/down"))
        result = await import_(client, items)
        codes = [one["error"]["code"] for one in result["data"] if one["error"] is not None]
        assert result["created"] == 16
        assert codes == ["ENDPOINT_VALIDATION_FAILED", "ENDPOINT_LIMIT_REACHED", "ENDPOINT_LIMIT_REACHED"]
        assert len(seen) == 19
        checkout = await of_profile(client, "checkout", "account")
        named = [item(n, tenant_id=checkout, name="a") for n in range(2)]
        assert [len(one["warnings"]) for one in (await import_(client, named))["data"]] == [0, 1]


async def test_the_request_is_bounded(api: httpx.AsyncClient) -> None:
    for body in ({"endpoints": []}, {"endpoints": [item()] * 1001}, {"endpoints": {}}, {}, [item()]):
        answer = await api.post("/v1/endpoints/import", json=body)
        assert answer.status_code == 422
        assert secret(0).removeprefix("whsec_") not in answer.text
    many = await import_(api, [item(n, metadata={"pad": "x" * 500}) for n in range(600)])
    assert many["created"] == 600, "more than the bytes of a request for one"
