"""`dispatcher listen`: each event once, as it becomes visible, forwarded to a real local URL and signed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from dispatcher.cli import listen, target
from dispatcher.errors import Conflict, Unavailable
from tests.support.command import Command
from tests.support.fake_client import AT, FakeClient, after_each, seconds

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(slots=True)
class Shop:
    """A merchant's code on the laptop: answers with `status`."""

    url: str = ""
    status: int = 200
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def shop() -> Iterator[Shop]:
    found = Shop()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.status)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://localhost:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    found = FakeClient()
    monkeypatch.setattr(target, "client", found.opened)
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody's: localhost is asked directly
    return Command(monkeypatch, capsys)


def steps(monkeypatch: pytest.MonkeyPatch, *each: Any) -> None:
    """What happens while it waits for its next look; then Ctrl-C."""
    monkeypatch.setattr(listen, "sleep", after_each([*each, lambda: None]))


def shown(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_events_are_forwarded_signed_with_the_secret_that_it_prints(
    run: Command, client: FakeClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.accept()
    steps(monkeypatch, lambda: client.accept(payload={"a": "é"}, at=AT + seconds(1)))
    ran = run("listen", "--forward-to", shop.url)
    assert ran.code == 0
    ((headers, body),) = shop.received
    (secret,) = re.findall(r"whsec_\S+(?=,)", ran.out)
    Webhook(secret).verify(body, headers)
    event = client.stored[-1]
    assert json.loads(body) == {
        "id": event["id"],
        "type": "payment.completed",
        "timestamp": "2026-11-21T12:00:01.000Z",
        "mode": "live",
        "data": {"a": "é"},
    }
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("dispatcher/")
    assert before["id"] not in ran.out, "what was there before is not new"
    assert re.search(rf"payment\.completed  live  pay_1  {event['id']}  → 200  [\d,]+ ms", ran.out)
    assert ran.out.splitlines()[-1] == "1 event, 1 answered with success"


@pytest.mark.parametrize(("profile", "copied"), [(None, {}), ("checkout", {"metadata": {"checkoutId": "chk_1"}})])
def test_the_envelope_has_the_members_that_the_tenants_profile_copies(
    run: Command,
    client: FakeClient,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    profile: str | None,
    copied: dict[str, Any],
) -> None:
    client.profile = profile
    payload = {"metadata": {"checkoutId": "chk_1"}}
    steps(
        monkeypatch,
        lambda: client.accept(payload=payload, at=AT + seconds(1)),
        lambda: client.accept(payload=payload, at=AT + seconds(2)),
    )
    listened = run("listen", "--forward-to", shop.url, "--secret", SECRET, "--print", "--output", "json")
    bodies = [json.loads(body) for _, body in shop.received]
    assert [{name: one[name] for name in one.keys() & {"metadata", "data"}} for one in bodies] == [
        {"data": payload} | copied
    ] * 2
    assert [json.loads(json.loads(line)["body"]) for line in listened.out.splitlines()] == bodies
    assert client.profiles_asked == 1, "asked once for a tenant"


def test_a_secret_of_ones_own_is_used_and_not_printed(
    run: Command, client: FakeClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    steps(monkeypatch, client.accept)
    ran = run("listen", "--forward-to", shop.url)
    ((headers, body),) = shop.received
    Webhook(SECRET).verify(body, headers)
    assert "whsec_" not in ran.out


def test_each_event_is_shown_once_in_its_order_also_one_that_was_committed_late(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(250):
        client.accept("old.one")

    def many() -> None:
        for n in range(230):  # over two pages
            client.accept(f"new.n{n}", at=AT + seconds(1 + n / 1000))

    steps(
        monkeypatch,
        many,
        lambda: None,
        lambda: client.accept("late.one", at=AT - seconds(20)),
        *[lambda: None] * 10,
        lambda: client.accept("too.late", at=AT - seconds(40)),
        lambda: client.accept("no.payload", at=AT + seconds(70)),
        lambda: None,
    )
    ran = run("listen", "--output", "json")
    assert [one["type"] for one in shown(ran.out)] == [*(f"new.n{n}" for n in range(230)), "late.one", "no.payload"]


def test_the_first_events_of_an_empty_platform_are_shown(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(monkeypatch, lambda: None, client.accept, lambda: client.accept(at=AT - seconds(3)))
    assert [one["id"] for one in shown(run("listen", "--output", "json").out)] == [one["id"] for one in client.stored]


def test_a_busy_platform_is_not_read_whole_at_every_look(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(950):
        client.accept()
    steps(monkeypatch, client.calls.clear, client.accept)
    run("listen")
    assert len(client.calls) == 1 + 2 + 1, "one page while nothing is new, and one more behind what is"


def test_types_and_the_tenant_choose(run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "ten_01a1fc08-8eed-7fd4-808c-8a82ca61f56a"

    def all_kinds() -> None:
        for kind in ("payment.completed", "payments.x", "order.updated", "order.paid"):
            client.accept(kind, tenant_id=other)
            client.accept(kind)

    steps(monkeypatch, all_kinds)
    words = ["--event-type", "payment.*", "--event-type", "order.paid", "--tenant", other, "--output", "json"]
    found = shown(run("listen", *words).out)
    assert sorted(one["type"] for one in found) == ["order.paid", "payment.completed"]


def test_an_answer_without_success_is_shown_and_not_followed(
    run: Command, client: FakeClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.status = 302
    steps(monkeypatch, client.accept)
    ran = run("listen", "--forward-to", shop.url, "--output", "json")
    secret, event = shown(ran.out)
    assert secret["secret"].startswith("whsec_")
    assert event["forwarded"]["status_code"] == 302
    assert len(shop.received) == 1


def test_a_receiver_that_is_down_is_told_and_does_not_end_it(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(monkeypatch, client.accept, client.accept)
    ran = run("listen", "--forward-to", "http://127.0.0.1:1/hook")
    assert ran.code == 0
    assert ran.out.count("refused") == 2
    assert ran.out.splitlines()[-1] == "2 events, 0 answered with success"


def test_a_platform_that_is_away_for_a_while_does_not_end_it_but_another_error_does(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        client.failing.append(Unavailable("the platform does not answer"))
        client.accept()

    steps(monkeypatch, away, lambda: None)
    ran = run("listen", "--output", "json")
    assert "does not answer; trying again" in ran.err
    assert len(shown(ran.out)) == 1
    steps(monkeypatch, lambda: client.failing.append(Conflict("this will not pass")))
    ran = run("listen")
    assert ran.code == 1
    assert "this will not pass" in ran.err


def test_what_is_sent_is_printed_so_that_it_cannot_steer_a_terminal(
    run: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"text": "\x1b[2J\x7f\u202e", "n": 1.5}
    for output in ("table", "json"):
        steps(monkeypatch, lambda: client.accept(payload=payload))
        ran = run("listen", "--print", "--output", output)
        assert not re.search("[\x1b\x7f\u202e]", ran.out)
        if output == "json":
            assert json.loads(shown(ran.out)[0]["body"])["data"] == payload


@pytest.mark.parametrize(
    "words",
    [
        ["--forward-to", "localhost:3000"],
        ["--forward-to", "ftp://localhost/"],
        ["--forward-to", "http://"],
        ["--secret", "whsec_x", "--forward-to", "http://localhost/"],
        ["--event-type", "payment*"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Command, client: FakeClient, words: list[str]) -> None:
    ran = run("listen", *words)
    assert ran.code == 2
    assert "allowed: " in ran.err
