"""One delivery's whole story over the API."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Engine, text

from dispatcher.clock import SYSTEM
from dispatcher.ids import parse_id
from dispatcher.model.delivery import Stop
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.signing import SCHEMES
from tests.api.conftest import other_tenant
from tests.api.test_deliveries import attempt_all, register, send
from tests.support import walk

UNAVAILABLE = Outcome(
    OutcomeClass.HTTP_RETRYABLE,
    Phase.BODY,
    status_code=503,
    response_body=b"\x1b[2J\xff",
    peer_ip="192.0.2.1",
    duration_ms=70.0,
    timings_ms=(1.25, 8.0, None, 41.5),
)


async def told(api: httpx.AsyncClient, delivery_id: str) -> dict[str, Any]:
    answer = await api.get(f"/v1/deliveries/{delivery_id}/story")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_of_what_was_never_attempted_it_says_when_it_will_be(api: httpx.AsyncClient) -> None:
    endpoint = await register(api)
    one = await send(api, not_before="2999-01-01T00:00:00Z", object_id="pay_1")
    story = await told(api, one["id"])
    assert story["verdict"].startswith("Not sent yet: attempt 1 of ")
    assert story["verdict"].endswith(" is due at 2999-01-01 00:00:00 UTC.")
    assert story["delivery"] == (await api.get(f"/v1/deliveries/{one['id']}")).json()
    assert story["endpoint"] == {
        "id": endpoint["id"],
        "url": "https://shop.example.com/hook",
        "status": "active",
        "status_reason": None,
        "profile": "default",
    }
    schedule = story["schedule"]
    assert schedule["past"] == []
    assert [each["number"] for each in schedule["planned"]] == list(range(1, schedule["attempts"] + 1))
    assert schedule["planned"][0]["earliest_at"] == "2999-01-01T00:00:00Z"
    assert schedule["no_attempt_reason"] is None
    assert (story["attempts"], story["curl"], story["signature_check"]) == ([], None, [])
    assert story["replays"] == {"replay_of": None, "replayed_by": []}


async def test_the_body_is_shown_as_it_is_sent(api: httpx.AsyncClient) -> None:
    await register(api)
    one = await send(api, payload={"text": "ü\n'"}, object_id="pay_1")
    event = (await told(api, one["id"]))["event"]
    body = event.pop("body")
    assert body["text"].startswith(f'{{"id":"{one["event_id"]}","type":"payment.completed"')
    assert body["encoding"] == "utf-8"
    sent = body["text"].encode()
    assert (body["size"], body["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
    assert event.pop("created_at") is not None
    assert event == {
        "id": one["event_id"],
        "type": "payment.completed",
        "object_id": "pay_1",
        "mode": "live",
        "payload_gone": None,
    }


async def test_a_failed_attempt_is_explained_timed_and_followed_by_the_next(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine, walk.retry(300), UNAVAILABLE)
    story = await told(api, one["id"])
    (attempt,) = story["attempts"]
    assert attempt.pop("timings") == {"dns_ms": 1.25, "connect_ms": 8.0, "tls_ms": None, "first_byte_ms": 41.5}
    explanation = attempt.pop("explanation")
    assert explanation["summary"].startswith("The receiver answered 503")
    assert all(explanation.values())
    assert [attempt] == (await api.get(f"/v1/deliveries/{one['id']}/attempts")).json()["data"]
    assert attempt["response"]["body_encoding"] == "hex"
    assert story["verdict"].startswith("Not delivered yet: the receiver answered 503")
    assert "; attempt 2 of " in story["verdict"]
    schedule = story["schedule"]
    assert schedule["past"] == [{"number": 1, "at": attempt["started_at"]}]
    assert schedule["planned"][0]["number"] == 2
    assert schedule["planned"][0]["earliest_at"] == story["delivery"]["next_attempt_at"]
    moments = [datetime.fromisoformat(each["earliest_at"]) for each in schedule["planned"]]
    assert moments == sorted(moments)
    assert story["curl"].startswith("curl ")
    assert "--data-binary" in story["curl"]


async def test_what_is_in_flight_is_on_its_way(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine, record=False)
    story = await told(api, one["id"])
    assert story["verdict"].startswith("On its way: attempt 1 of ")
    assert story["schedule"]["planned"][0]["number"] == 2


async def test_what_is_held_has_no_attempt_planned_and_says_why(api: httpx.AsyncClient) -> None:
    endpoint = await register(api)
    await api.post(f"/v1/endpoints/{endpoint['id']}/disable", json={"reason": "merchant asked"})
    story = await told(api, (await send(api))["id"])
    assert story["verdict"] == "Held before its first attempt: the endpoint is disabled: merchant asked."
    assert story["schedule"]["planned"] == []
    assert story["schedule"]["no_attempt_reason"] == "It is held: the endpoint is disabled: merchant asked."
    assert (story["endpoint"]["status"], story["endpoint"]["status_reason"]) == ("disabled", "merchant asked")


async def test_no_attempt_is_planned_after_it_expires(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    soon = SYSTEM.now().astimezone(UTC) + timedelta(seconds=2)
    one = await send(api, expires_at=soon.isoformat())
    planned = (await told(api, one["id"]))["schedule"]["planned"]
    assert [each["number"] for each in planned] == [1]
    attempt_all(engine, walk.retry(300), UNAVAILABLE)
    schedule = (await told(api, one["id"]))["schedule"]
    assert schedule["planned"] == []
    assert schedule["no_attempt_reason"].startswith("It expires at ")
    assert schedule["expires_at"] is not None


async def test_what_was_delivered_says_when(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine, walk.DELIVERED)
    story = await told(api, one["id"])
    assert story["verdict"].startswith("Delivered: https://shop.example.com/hook accepted it with 200 on attempt 1, 20")
    assert story["delivered"] is True
    assert story["schedule"]["no_attempt_reason"] == "It was delivered."


async def test_what_has_failed_tells_of_its_replay_and_the_replay_of_it(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    failed = await told(api, one["id"])
    assert failed["verdict"].startswith("Not delivered: 1 attempt failed and no more is planned; at last, the receiver")
    assert failed["delivered"] is False
    assert failed["schedule"]["no_attempt_reason"] == "Every attempt of its schedule was made."
    replay = (await api.post(f"/v1/deliveries/{one['id']}/retry")).json()
    failed = await told(api, one["id"])
    assert f"it was replayed as {replay['id']}, which waits for its next attempt" in failed["verdict"]
    (kin,) = failed["replays"]["replayed_by"]
    assert (kin["id"], kin["status"], kin["endpoint_id"]) == (replay["id"], "waiting", one["endpoint_id"])
    assert [entry["action"] for entry in failed["audit"]] == ["delivery.retried"]
    attempt_all(engine, walk.DELIVERED)
    redeemed = await told(api, one["id"])
    begins = f"Delivered by its replay {replay['id']}; by itself, not delivered: 1 attempt failed"
    assert redeemed["verdict"].startswith(begins)
    assert (redeemed["delivered"], redeemed["delivery"]["status"]) == (True, "exhausted")
    again = await told(api, replay["id"])
    assert (again["replays"]["replay_of"]["id"], again["replays"]["replay_of"]["status"]) == (one["id"], "exhausted")


async def test_every_end_says_what_it_is(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    refused = Outcome(OutcomeClass.GONE, Phase.BODY, status_code=410)
    for end, said, why in (
        (Stop("rejected", "gone 410"), "Not delivered, and given up after 1 attempt: the receiver", "It was given up"),
        (Stop("expired", "expired before it was delivered"), "Not delivered: it expired", "It expired."),
    ):
        one = await send(api)
        attempt_all(engine, end, refused)
        story = await told(api, one["id"])
        assert story["verdict"].startswith(said)
        assert story["schedule"]["no_attempt_reason"].startswith(why)
    one = await send(api)
    await api.post(f"/v1/deliveries/{one['id']}/cancel", json={"reason": "void"})
    story = await told(api, one["id"])
    assert story["verdict"] == "Not delivered: it was cancelled after 0 attempts (void)."
    assert [entry["action"] for entry in story["audit"]] == ["delivery.cancelled"]


async def test_a_body_that_is_gone_is_gone_and_what_needs_it(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dispatcher.events SET payload = NULL WHERE id = :id"),
            {"id": parse_id("evt", one["event_id"])},
        )
    story = await told(api, one["id"])
    assert (story["event"]["body"], story["event"]["payload_gone"]) == (None, "retention")
    assert story["curl"] is None


async def test_the_body_has_the_members_that_the_profile_copies_unless_it_was_sent_without_them(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await register(api, name="shop", profile="checkout")
    one = await send(api, payload={"metadata": {"checkoutId": "chk_1"}})
    text_ = (await told(api, one["id"]))["event"]["body"]["text"]
    copy = '"metadata":{"checkoutId":"chk_1"},'
    assert f'"mode":"live",{copy}"data":{{"metadata":' in text_
    before = text_.replace(copy, "", 1)
    attempt_each(engine, request_headers=signed(b""), body_sha256=hashlib.sha256(before.encode()).digest())
    assert (await told(api, one["id"]))["event"]["body"]["text"] == before


async def test_a_notification_by_get_has_no_body(api: httpx.AsyncClient) -> None:
    await register(api)
    one = await send(api, target={"url": "https://shop.example.com/paid?order=1", "method": "GET"})
    story = await told(api, one["id"])
    assert story["endpoint"]["url"] == "https://shop.example.com/paid?order=1"
    assert (story["event"]["body"]["text"], story["event"]["body"]["size"]) == ("", 0)


async def test_operators_are_told_of_the_endpoint_and_owners_are_not(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    own = {"authorization": f"Bearer {key}"}
    endpoint = await register(api, tenant_id=tenant_id)
    one = await send(api, tenant_id=tenant_id)
    await api.patch(f"/v1/endpoints/{endpoint['id']}", json={"url": "https://new.example.com/hook"})
    actions = [entry["action"] for entry in (await told(api, one["id"]))["audit"]]
    assert actions == ["endpoint.updated"]
    theirs = await api.get(f"/v1/deliveries/{one['id']}/story", headers=own)
    assert theirs.status_code == 200
    assert theirs.json()["audit"] == []


async def test_what_is_not_theirs_is_not_there(api: httpx.AsyncClient, engine: Engine) -> None:
    _, key = other_tenant(engine)
    await register(api)
    one = await send(api)
    answer = await api.get(f"/v1/deliveries/{one['id']}/story", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 404
    assert (await api.get("/v1/deliveries/dlv_1/story")).status_code == 422


def signed(content: bytes) -> list[tuple[bytes, bytes]]:
    scheme = SCHEMES["standard_webhooks_v1"]
    return scheme.sign(message_id="evt_1", timestamp=1_772_442_000, body=content, keys=[b"k" * 32])


def attempt_each(engine: Engine, **attempt: Any) -> None:
    """Has everything that is due attempted, with what was sent as given."""
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        for claim in walk.claim(connection, worker, now=None):
            result = walk.result(
                claim, walk.EXHAUSTED, UNAVAILABLE, worker_id=worker, started_at=SYSTEM.now(), **attempt
            )
            walk.record(connection, [result], now=None)


async def test_a_signature_by_get_is_of_the_url_and_outlives_the_payload(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await register(api)
    url = "https://shop.example.com/paid?order=1"
    one = await send(api, target={"url": url, "method": "GET"})
    headers, content = signed(b"/paid?order=1"), hashlib.sha256(b"/paid?order=1").digest()
    attempt_each(engine, method="GET", url=url, request_headers=headers, body_sha256=content)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.events SET payload = NULL"))
    (check,) = (await told(api, one["id"]))["signature_check"]
    assert (check["scheme"], check["header"]) == ("standard_webhooks_v1", "webhook-signature")
    assert check["signed"] == "evt_1.1772442000.<path and query of the URL>"
    assert check["command"].startswith("printf %s 'evt_1.1772442000./paid?order=1'")
    assert check["verify_command"] is not None


async def test_a_hostile_body_is_repeated_without_being_shown(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api, payload={"text": "\u202e it's $(id) \x7f"})
    body = (await told(api, one["id"]))["event"]["body"]["text"].encode()
    attempt_each(engine, request_headers=signed(body), body_sha256=hashlib.sha256(body).digest())
    story = await told(api, one["id"])
    assert story["curl"].startswith("printf %s ey")
    assert story["curl"].endswith("--data-binary @-")
    (check,) = story["signature_check"]
    assert "base64 -d" in check["command"]
    assert not {"\u202e", "\x7f"} & set(story["curl"] + check["command"] + check["verify_command"])


async def test_what_was_signed_is_not_claimed_where_the_hash_is_another(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_each(engine, request_headers=signed(b"other"), body_sha256=hashlib.sha256(b"other").digest())
    (check,) = (await told(api, one["id"]))["signature_check"]
    assert (check["command"], check["verify_command"]) == (None, None)
