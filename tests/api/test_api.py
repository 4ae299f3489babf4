"""The first HTTP API, over ASGI on a real database."""

from __future__ import annotations

import json

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from tests.api.conftest import OPERATOR, other_tenant
from tests.support import walk
from tests.support.answers import Checked

EVENT = {"type": "payment.completed", "payload": {"amount": 1000}, "object_id": "pay_1"}


async def test_an_event_is_accepted_and_found_by_its_object(api: httpx.AsyncClient) -> None:
    endpoint = (await api.post("/v1/endpoints", json={"url": "https://shop.example.com/hook"})).json()
    answer = await api.post("/v1/events", json=EVENT)
    assert answer.status_code == 202
    body = answer.json()
    assert body["deliveries"] == 1
    assert body["duplicate"] is False
    parse_id("evt", body["id"])
    (found,) = (await api.get("/v1/deliveries", params={"object_id": "pay_1"})).json()["data"]
    assert found["event_id"] == body["id"]
    assert found["endpoint_id"] == endpoint["id"]
    assert found["status"] == "waiting"
    assert found["attempt_count"] == 0
    assert found["schedule"]["name"] == "standard"
    assert (await api.get(f"/v1/deliveries/{found['id']}")).json() == found
    attempts = await api.get(f"/v1/deliveries/{found['id']}/attempts")
    assert attempts.json() == {"data": [], "has_more": False, "next_cursor": None}


async def test_a_payload_is_kept_as_it_was_written(api: httpx.AsyncClient, engine: Engine) -> None:
    payload = b'{"amount": 12345678901234567890.10, "id": 18446744073709551616, "rate": 1.10}'
    answer = await api.post("/v1/events", content=b'{ "type": "fx.rate", "payload" : %b , "mode": "test"}' % payload)
    assert answer.status_code == 202
    with engine.connect() as connection:
        assert [bytes(row.payload) for row in walk.rows(connection, "SELECT payload FROM dispatcher.events")] == [
            payload
        ]


async def test_a_secret_is_shown_once(api: httpx.AsyncClient) -> None:
    created = await api.post("/v1/endpoints", json={"url": "https://shop.example.com/", "event_types": ["payment.*"]})
    assert created.status_code == 201
    secret = created.json()["secret"]
    assert secret.startswith("whsec_")
    listed = await api.get("/v1/endpoints")
    shown = await api.get(f"/v1/endpoints/{created.json()['id']}")
    assert shown.json()["event_types"] == ["payment.*"]
    assert secret not in listed.text + shown.text
    assert "sealed" not in listed.text + shown.text


async def test_the_same_key_and_body_answer_the_first_event(api: httpx.AsyncClient) -> None:
    first = await api.post("/v1/events", json=EVENT, headers={"idempotency-key": "k1"})
    again = await api.post("/v1/events", json=EVENT, headers={"idempotency-key": "k1"})
    other = await api.post("/v1/events", json=EVENT | {"payload": 2}, headers={"idempotency-key": "k1"})
    assert (first.json()["duplicate"], again.json()["duplicate"]) == (False, True)
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 422
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"


async def test_no_valid_key_is_401(api: httpx.AsyncClient) -> None:
    for method, path in (
        ("POST", "/v1/events"),
        ("GET", "/v1/endpoints"),
        ("POST", "/v1/endpoints"),
        ("GET", "/v1/deliveries"),
    ):
        for key in ("", "Bearer wrong", "wrong", "Bearer "):
            answer = await api.request(method, path, json={}, headers={"authorization": key})
            assert answer.status_code == 401, (path, key)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "UNAUTHORIZED"
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_key_without_bearer_is_taken(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/endpoints", headers={"authorization": OPERATOR})).status_code == 200


async def test_a_revoked_key_is_401(api: httpx.AsyncClient, engine: Engine) -> None:
    _, key = other_tenant(engine)
    headers = {"authorization": f"Bearer {key}"}
    assert (await api.get("/v1/endpoints", headers=headers)).status_code == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = now() WHERE name = 'theirs'"))
    assert (await api.get("/v1/endpoints", headers=headers)).status_code == 401


async def test_another_tenants_objects_are_not_there(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = (await api.post("/v1/endpoints", json={"url": "https://shop.example.com/"})).json()
    await api.post("/v1/events", json=EVENT)
    (delivery,) = (await api.get("/v1/deliveries")).json()["data"]
    tenant_id, key = other_tenant(engine)
    headers = {"authorization": key}
    theirs = [
        await api.get(path, headers=headers)
        for path in (
            f"/v1/endpoints/{endpoint['id']}",
            f"/v1/deliveries/{delivery['id']}",
            f"/v1/deliveries/{delivery['id']}/attempts",
        )
    ]
    nobodys = [
        await api.get(path, headers=headers)
        for path in (
            f"/v1/endpoints/{format_id('ep', uuid7())}",
            f"/v1/deliveries/{format_id('dlv', uuid7())}",
            f"/v1/deliveries/{format_id('dlv', uuid7())}/attempts",
        )
    ]
    assert [answer.status_code for answer in theirs + nobodys] == [404] * 6
    assert [answer.json()["code"] for answer in theirs] == [answer.json()["code"] for answer in nobodys]
    assert (await api.get("/v1/deliveries", headers=headers)).json()["data"] == []
    assert (await api.get("/v1/endpoints", headers=headers)).json()["data"] == []
    assert (await api.post("/v1/events", json=EVENT, headers=headers)).json()["tenant_id"] == tenant_id
    default = {"tenant_id": format_id("ten", DEFAULT_TENANT)}
    assert (await api.post("/v1/events", json=EVENT | default, headers=headers)).status_code == 404


async def test_an_operator_acts_for_any_tenant(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, _ = other_tenant(engine)
    by_query = await api.post("/v1/events", json=EVENT, params={"tenant_id": tenant_id})
    by_body = await api.post("/v1/endpoints", json={"url": "https://a.example.com/", "tenant_id": tenant_id})
    assert by_query.json()["tenant_id"] == by_body.json()["tenant_id"] == tenant_id
    unknown = await api.post("/v1/events", json=EVENT, params={"tenant_id": format_id("ten", uuid7())})
    assert unknown.status_code == 422


async def test_pages_follow_one_another_to_the_end(api: httpx.AsyncClient) -> None:
    await api.post("/v1/endpoints", json={"url": "https://shop.example.com/"})
    sent = [(await api.post("/v1/events", json=EVENT | {"payload": n})).json()["id"] for n in range(7)]
    found: list[str] = []
    cursor = None
    for _ in range(10):
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/deliveries", params=params)).json()
        found += [one["event_id"] for one in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert cursor is None
    assert sorted(found) == sorted(sent)
    assert len(found) == 7


LISTS = ("deliveries", "events", "endpoints", "pauses", "replays", "tenants", "keys", "audit_log", "erasures")


async def test_a_cursor_of_another_list_is_refused(api: httpx.AsyncClient) -> None:
    for n in range(2):
        await api.post("/v1/endpoints", json={"url": f"https://{n}.example.com/"})
    await api.post("/v1/events", json=EVENT)
    cursors = {}
    for path in ("endpoints", "deliveries"):
        cursors[path] = (await api.get(f"/v1/{path}", params={"limit": 1})).json()["next_cursor"]
    for path, cursor in cursors.items():
        for other in LISTS:
            answer = await api.get(f"/v1/{other}", params={"cursor": cursor})
            if other == path:
                assert (answer.status_code, len(answer.json()["data"])) == (200, 1)
                continue
            assert answer.status_code == 422, other
            (error,) = answer.json()["errors"]
            assert error["pointer"] == "cursor"
            assert error["detail"].endswith(f"an earlier page of the same list, which begins with {other}.")


async def test_a_path_that_is_not_there_names_the_documentation_and_is_404_by_every_method(
    api: httpx.AsyncClient,
) -> None:
    for path in ("/", "/docs/x", "/v2/events"):
        for method in ("GET", "PATCH", "POST"):
            answer = await api.request(method, path)
            assert answer.status_code == 404, (method, path)
            assert answer.json()["detail"] == "there is no such path; /docs and /openapi.json describe the API"


BAD_EVENTS: list[tuple[dict[str, object], str | None]] = [
    ({"type": "has space"}, "/type"),
    ({"type": 5}, "/type"),
    ({"type": None}, "/type"),
    ({"mode": "loud"}, "/mode"),
    ({"mode": []}, "/mode"),
    ({"object_id": ""}, "/object_id"),
    ({"object_id": 5}, "/object_id"),
    ({"object_id": "a\u0000b"}, "/object_id"),
    ({"tenant_id": 5}, "/tenant_id"),
    ({"tenant_id": "ten_nonsense"}, "/tenant_id"),
    ({"id": "evt_nonsense"}, "/id"),
    ({"id": "evt_00000000-0000-4000-8000-000000000000"}, "/id"),
    ({"not_before": "tomorrow"}, "/not_before"),
    ({"not_before": "2026-01-01T00:00:00"}, "/not_before"),
    ({"colour": "red"}, "/colour"),
    ({"payload": "x" * 300_000}, None),
]


async def test_a_bad_event_is_refused_with_its_pointer(api: httpx.AsyncClient, engine: Engine) -> None:
    for change, pointer in BAD_EVENTS:
        answer = await api.post("/v1/events", content=json.dumps(EVENT | change))
        problem = answer.json()
        if pointer is None:
            assert answer.status_code == 413
        else:
            assert answer.status_code == 422, problem
            (error,) = problem["errors"]
            assert error["pointer"] == pointer
            assert "found" in error["detail"]
            assert "allowed" in error["detail"]
        assert set(problem) >= {"type", "title", "status", "detail", "instance", "code", "errors", "request_id"}
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT id FROM dispatcher.events") == []


async def test_a_body_that_is_no_event_is_422(api: httpx.AsyncClient) -> None:
    deep = b'{"type": "a", "payload": ' + b"[" * 1100 + b"]" * 1100 + b"}"
    for body in (b"", b"{", b"[]", b"5", b'"x"', b"null", b"\xff\xfe", b'{"type": "a"}', b"[" * 5000, deep):
        answer = await api.post("/v1/events", content=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


BAD_ENDPOINTS: list[tuple[dict[str, object], str]] = [
    ({"url": "http://shop.example.com/"}, "/url"),
    ({"url": "https://127.0.0.1/"}, "/url"),
    ({"url": "https://shop.example.com:8443/"}, "/url"),
    ({"url": "https://user:pw@shop.example.com/"}, "/url"),
    ({"url": 5}, "/url"),
    ({"event_types": []}, "/event_types"),
    ({"event_types": ["pay*ment"]}, "/event_types/0"),
    ({"schedule": "nightly"}, "/schedule"),
    ({"max_in_flight": 0}, "/max_in_flight"),
    ({"status": "deleted"}, "/status"),
    ({"name": "x" * 501}, "/name"),
    ({"secret": "whsec_x"}, "/secret"),
    ({"metadata": {"a": "\0"}}, "/metadata/a"),
    ({"metadata": {"a": "\ud800"}}, "/"),
    ({"metadata": {"a": 2**70}}, "/metadata"),
]


async def test_a_bad_endpoint_is_refused_with_its_pointer(api: httpx.AsyncClient) -> None:
    for change, pointer in BAD_ENDPOINTS:
        asked = json.dumps({"url": "https://shop.example.com/"} | change)
        answer = await api.post("/v1/endpoints", content=asked, headers={"content-type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await api.get("/v1/endpoints")).json()["data"] == []


BAD_SEARCHES: list[dict[str, str]] = [
    {"cursor": "nonsense"},
    {"cursor": "é"},
    {"limit": "0"},
    {"limit": "many"},
    {"status": "lost"},
    {"endpoint_id": "ep_1"},
    {"created_after": "yesterday"},
    {"object_id": "\0"},
]


async def test_a_bad_search_is_422(api: httpx.AsyncClient) -> None:
    for params in BAD_SEARCHES:
        assert (await api.get("/v1/deliveries", params=params)).status_code == 422, params


async def test_a_search_may_begin_before_all_time(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/deliveries", params={"created_after": "1900-01-01T00:00:00Z"})).status_code == 200


async def test_a_long_body_is_refused_on_every_route_before_it_is_parsed(api: httpx.AsyncClient) -> None:
    for path in ("/v1/events", "/v1/endpoints"):
        answer = await api.post(path, content=b'{"url": "' + b"x" * 300_000 + b'"}')
        assert answer.status_code == 413, path
    answer = await api.post("/v1/endpoints", content=b"1" * 300_000, headers={"authorization": ""})
    assert answer.status_code == 401, "how much may be sent is nothing to a stranger"


async def test_a_defect_is_a_problem_that_says_nothing_of_itself(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("secret-word")

    monkeypatch.setattr("dispatcher.api.deliveries.search", break_down)
    assert isinstance(api._transport, Checked)
    assert isinstance(api._transport.inner, httpx.ASGITransport)
    api._transport.inner.raise_app_exceptions = False
    api._transport = api._transport.inner  # the document has no 500
    answer = await api.get("/v1/deliveries")
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL_ERROR"
    assert "secret-word" not in answer.text
    assert f"request.failed_internally request_id={answer.headers['x-request-id']} path=/v1/deliveries" in caplog.text


async def test_deliveries_are_chosen_by_status(api: httpx.AsyncClient, engine: Engine) -> None:
    await api.post("/v1/endpoints", json={"url": "https://shop.example.com/"})
    await api.post("/v1/events", json=EVENT)
    for status, count in (("waiting", 1), ("delivered", 0), ("failed", 0), ("in_flight", 0)):
        assert len((await api.get("/v1/deliveries", params={"status": status})).json()["data"]) == count


async def test_health_says_whether_the_schema_is_there(api: httpx.AsyncClient, engine: Engine) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.get("/readyz")).status_code == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.alembic_version SET version_num = '9999'"))
    assert (await api.get("/readyz")).status_code == 200, "a newer schema is compatible: an upgrade migrates first"
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dispatcher.alembic_version"))
    answer = await api.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


async def test_a_database_that_is_away_is_503(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER SCHEMA dispatcher RENAME TO elsewhere"))
    answer = await api.post("/v1/events", json=EVENT)
    assert answer.status_code == 503
    assert answer.json()["code"] == "UNAVAILABLE"


async def test_the_openapi_document_is_3_1_and_names_the_routes(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/events", "/v1/endpoints", "/v1/deliveries", "/v1/deliveries/{delivery_id}/attempts"} <= set(
        document["paths"]
    )


async def test_unknown_paths_and_methods_are_problems(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/nothing")).json()["code"] == "NOT_FOUND"
    answer = await api.delete("/v1/events")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
