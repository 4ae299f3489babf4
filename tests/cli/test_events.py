"""`dispatcher events`: sent to a target, listed and explained."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.client.exchange import Exchange
from dispatcher.ids import format_id, uuid7
from tests.cli.test_commands import ANSWER_503, FAILED, end_all
from tests.support import walk
from tests.support.command import Command

URL = "https://shop.example.com/orders/1"


def send(run: Command, *arguments: str, **event: Any) -> str:
    text = json.dumps({"type": "payment.paid", "payload": {"amount": 1}, **event}) if not arguments else "{}"
    ran = run("events", "send", *arguments, "--output", "json", stdin=text.encode())
    assert ran.code == 0, ran.err
    (sent,) = ran.json["data"]
    return str(sent["id"])


def test_a_payload_is_sent_to_a_target(run: Command, engine: Engine) -> None:
    send(run, "--event-type", "order.paid", "--target", URL, "--method", "GET")
    send(run, "--event-type", "order.paid", "--url", URL)
    send(run, target={"url": URL})
    with engine.connect() as connection:
        found = [(row.target_url, row.target_method) for row in walk.live(connection)]
    assert found == [(URL, "GET"), (URL, "POST"), (URL, "POST")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", URL),
        ("--event-type", "a", "--method", "GET"),
        ("--event-type", "a", "--target", "http://shop.example.com"),
    ],
)
def test_a_target_that_cannot_be_is_a_usage_error(run: Command, arguments: tuple[str, ...]) -> None:
    assert run("events", "send", *arguments, stdin=b"{}").code == 2


def lines(count: int, **values: Any) -> str:
    return "".join(json.dumps({"type": "payment.paid", "payload": n, **values}) + "\n" for n in range(count))


def payloads(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted(
            int(bytes(payload)) for (payload,) in walk.rows(connection, "SELECT payload FROM dispatcher.events")
        )


def test_what_the_api_refuses_is_named_by_its_line_and_stops_no_other(run: Command, engine: Engine) -> None:
    nobody = format_id("ten", uuid7())
    text = lines(2) + "\n" + lines(1, tenant_id=nobody) + lines(1)
    ran = run("events", "send", stdin=text)
    assert ran.code == 1
    assert ran.err.startswith("dispatcher: line 4: ")
    assert "3 events accepted, 0 deliveries, 0 sent before, 3 that no endpoint wants, 1 refused" in ran.out
    assert payloads(engine) == [0, 0, 1]
    told = run("events", "send", "--output", "json", stdin=text)
    assert told.code == 1
    assert [one["id"] is None for one in told.data] == [False, False, True, False]
    assert (told.data[2]["line"], told.data[2]["error"]["code"]) == (4, "INVALID_INPUT")


def test_a_tenant_is_named_once_for_all_lines(run: Command, engine: Engine) -> None:
    shop = run("tenants", "create", "shop", "--output", "json").json["id"]
    till = run("tenants", "create", "till", "--output", "json").json["id"]
    assert run("events", "send", "--tenant", shop, stdin=lines(2) + lines(1, tenant_id=till)).code == 0
    assert run("events", "send", "--tenant", shop, "--event-type", "payment.paid", stdin="1").code == 0
    for tenant, count in ((shop, 3), (till, 1)):
        assert len(run("events", "list", "--tenant", tenant, "--output", "json").data) == count


@pytest.mark.parametrize("keyed", [False, True], ids=["a key of its own", "a given key"])
def test_a_batch_whose_answer_is_lost_can_be_sent_again_and_is_not_accepted_twice(
    run: Command, engine: Engine, monkeypatch: pytest.MonkeyPatch, keyed: bool
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(Exchange, "_backoff", lambda *_: 0.0)
    really = httpx.HTTPTransport.handle_request
    made = 0

    def lose(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        nonlocal made
        made += 1
        answer = really(self, request)
        if made == 1:
            return answer
        answer.close()
        raise httpx.ReadError("cut")

    text = lines(1500)
    given = ("--idempotency-key", "monday") if keyed else ()
    with monkeypatch.context() as lossy:
        lossy.setattr(httpx.HTTPTransport, "handle_request", lose)
        ran = run("events", "send", *given, stdin=text)
    assert ran.code == 1
    assert made > 2, "the client tried again by itself"
    assert "1000 events accepted" in ran.out
    assert "cut" in ran.err
    (key,) = re.findall(r"--idempotency-key (\S+)", ran.err)
    assert (key == "monday") == keyed
    assert payloads(engine) == list(range(1500)), "the second batch was accepted once, though nobody was told"

    again = run("events", "send", "--idempotency-key", key, stdin=text)
    assert again.code == 0, again.err
    assert "1500 events accepted" in again.out
    assert payloads(engine) == list(range(1500))
    other = run("events", "send", "--idempotency-key", key, stdin=lines(1499))
    assert other.code == 1
    assert "already used with a different request" in other.err
    assert payloads(engine) == list(range(1500))


def test_the_same_without_a_key_is_sent_twice(run: Command, engine: Engine) -> None:
    for _ in range(2):
        assert run("events", "send", stdin=lines(2)).code == 0
    assert payloads(engine) == [0, 0, 1, 1]


def test_an_event_is_shown_as_it_was_written(run: Command) -> None:
    written = '{"amount": 1.10, "n": 123456789012345678901234567890}'
    ran = run("events", "send", "--event-type", "payment.paid", "--output", "json", stdin=written)
    (sent,) = ran.data
    assert written in run("events", "show", sent["id"]).out
    shown = run("events", "show", sent["id"], "--output", "json").json
    assert shown["deliveries"] == []
    assert shown["payload"]["amount"] == 1.1


def test_the_deliveries_of_an_event_are_counted_with_its_replays(run: Command, engine: Engine) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    event_id = send(run)
    shown = run("events", "show", event_id).out
    assert re.search(r"^matched +1 endpoint when it was accepted$", shown, re.MULTILINE)
    assert re.search(r"^deliveries +1$", shown, re.MULTILINE)
    end_all(engine, FAILED, ANSWER_503)
    (delivery,) = (one["id"] for one in run("deliveries", "list", "--output", "json").data)
    run("deliveries", "retry", delivery)
    assert re.search(r"^deliveries +2, 1 replay among them$", run("events", "show", event_id).out, re.MULTILINE)


def test_events_are_listed(run: Command) -> None:
    first, second = send(run, object_id="pay_1"), send(run, type="refund.paid", object_id="pay_2", mode="test")
    listed = run("events", "list", "--output", "json").json["data"]
    assert [one["id"] for one in listed] == [second, first]
    for chosen in (
        ("--object-id", "pay_1"),
        ("--event-type", "payment.paid"),
        ("--mode", "live"),
        ("--limit", "10", "--object-id", "pay_1", "--since", "1h"),
    ):
        table = run("events", "list", *chosen).out
        assert first in table
        assert second not in table
    assert "No event matches" in run("events", "list", "--until", "1h").out


def test_an_event_is_explained(run: Command, engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, event_types=("refund.*",))
    event_id = send(run)
    table = run("events", "explain", event_id)
    assert format_id("ep", endpoint.id) in table.out
    assert "filtered" in table.out
    explained = run("events", "explain", event_id, "--output", "json").json
    (one,) = explained["endpoints"]
    assert one["rule"] == "event_types refund.* does not match payment.paid (version 1 of the endpoint)"
    missing = run("events", "explain", "evt_01890a5d-ac96-774b-bcce-b302099a8057")
    assert missing.code == 1
    assert "no such event" in missing.err
