"""Each of the five systems, as its documentation has it, by its profile alone.

Over real HTTP: the API, scheduler and Celery workers are processes of their own on embedded servers; merchants answer
by TLS with a test authority's certificate wherever the system demands HTTPS. The hours of the schedules are not slept:
once an attempt has failed, its delivery's due time is what is checked, and is then moved to now in the database.
"""

from __future__ import annotations

import base64
import getpass
import hmac
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import standardwebhooks
import svix

from dispatcher.ids import parse_id
from dispatcher.local.stack import answers
from tests.support.merchant import Merchant, Received, merchant
from tests.support.patience import PATIENCE_S, until
from tests.support.system import REPOSITORY, System
from tests.support.tls import Authority

OPERATOR = "operator-of-the-five-systems-in-this-test"
SENDERS = "192.0.2.10, 192.0.2.0/28"
LADDER_S = [0, 5, 300, 1800, 7200, 18000, 36000, 36000]
EXPONENTIAL_S = [0, 120, 240, 480, 960, 1920, 3840]


@dataclass
class Platform:
    """The running system, from outside, for an operator or a tenant."""

    system: System
    client: httpx.Client
    secure: Merchant
    plain: Merchant
    paths: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def path(self) -> str:
        return f"/hook-{next(self.paths)}"

    def call(self, method: str, path: str, expected: int, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        assert answer.status_code == expected, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def tenant(self, profile: str, **values: Any) -> dict[str, Any]:
        name = f"{profile} {next(self.paths)}"
        return dict(self.call("POST", "/v1/tenants", 201, json={"name": name, "profile": profile} | values))

    def endpoint(self, tenant: dict[str, Any], expected: int = 201, **values: Any) -> dict[str, Any]:
        return dict(self.call("POST", "/v1/endpoints", expected, json={"tenant_id": tenant["id"]} | values))

    def set_url(self, tenant: dict[str, Any], url: str, expected: int = 200) -> dict[str, Any]:
        return dict(self.call("PUT", "/v1/notification_url", expected, json={"tenant_id": tenant["id"], "url": url}))

    def event(self, tenant: dict[str, Any], type_: str, expected: int = 202, **values: Any) -> dict[str, Any]:
        body = {"tenant_id": tenant["id"], "type": type_, "payload": {"amount": 1000}} | values
        return dict(self.call("POST", "/v1/events", expected, json=body))

    def deliveries(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/deliveries", 200, params={"event_id": event["id"]})["data"])

    def delivery(self, event: dict[str, Any]) -> dict[str, Any]:
        (found,) = self.deliveries(event)
        return found

    def until(self, event: dict[str, Any], **wanted: Any) -> dict[str, Any]:
        """The event's one delivery, once it is as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.delivery(event)
            if all(found[name] == value for name, value in wanted.items()):
                return found
            assert time.monotonic() < deadline, (wanted, found)
            time.sleep(0.02)

    def attempts(self, delivery: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/v1/deliveries/{delivery['id']}/attempts", 200)["data"])

    def bring_forward(self, delivery: dict[str, Any]) -> None:
        """Makes a waiting delivery due now, as if the time had passed."""
        with self.system.engine.begin() as connection:
            connection.exec_driver_sql(
                """WITH due AS (UPDATE dispatcher.deliveries SET due_at = now() WHERE id = %s
                                RETURNING endpoint_id, due_at)
                INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT endpoint_id, due_at FROM due""",
                (parse_id("dlv", delivery["id"]),),
            )
        self.system.wakeup.ring()

    def walk_down(self, event: dict[str, Any], waits_s: list[int]) -> dict[str, Any]:
        """Follows a delivery that always fails down its whole schedule, and checks each wait; how it ended."""
        for number, wait_s in enumerate(waits_s[1:], start=1):
            delivery = self.until(event, status="waiting", attempt_count=number)
            attempt = self.attempts(delivery)[-1]
            failed_at = instant(attempt["started_at"]) + timedelta(milliseconds=attempt["duration_ms"])
            waits = (instant(delivery["next_attempt_at"]) - failed_at).total_seconds()
            assert wait_s - 0.1 <= waits <= wait_s + 2, (number, waits)
            self.bring_forward(delivery)
        return self.until(event, status="exhausted", attempt_count=len(waits_s), next_attempt_at=None)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.create(Path(folder))
        Path(folder).chmod(0o755)
        with (
            merchant(authority.server_context("127.0.0.1")) as secure,
            merchant() as plain,
            System(
                workers=1,
                api=True,
                env={
                    "SSL_CERT_FILE": str(authority.certificate_file()),
                    "DISPATCHER_BOOTSTRAP_KEY": OPERATOR,
                    "DISPATCHER_EGRESS_ADDRESSES": SENDERS,
                },
            ) as system,
            httpx.Client(
                base_url=f"http://127.0.0.1:{system.stack.port}",
                headers={"authorization": f"Bearer {OPERATOR}"},
                timeout=PATIENCE_S,
            ) as client,
        ):
            yield Platform(system, client, secure, plain)


def content(received: Received) -> bytes:
    """What is signed of a request, as docs/signatures.md has it: the body of a POST, path and query of a GET."""
    return received.target.encode() if received.method == "GET" else received.body


def verify(received: Received, secret: str) -> Any:
    """The body of a POST as JSON, if two foreign libraries take the request's signature; None for a GET."""
    signed = content(received)
    svix.Webhook(secret).verify(signed, received.headers)
    return standardwebhooks.Webhook(secret).verify(signed, received.headers, json_parse=received.method == "POST")


def refused(received: Received, secret: str) -> bool:
    """Whether both libraries refuse the request's signature."""
    for library, wrong in (
        (svix.Webhook(secret), svix.WebhookVerificationError),
        (standardwebhooks.Webhook(secret), standardwebhooks.WebhookVerificationError),
    ):
        try:
            library.verify(content(received), received.headers)
        except wrong:
            continue
        return False
    return True


# MultiSafepay


def shop_with_url(platform: Platform) -> tuple[dict[str, Any], str, str]:
    """A website with its secret for orders' own URLs, the path of its notification URL and that URL's secret."""
    shop, path = platform.tenant("multisafepay"), platform.path()
    return shop, path, platform.set_url(shop, platform.secure.url + path)["secret"]


def test_multisafepay_takes_public_https_urls_without_a_port(platform: Platform) -> None:
    # "Doesn't include port numbers", "Uses HTTPS - We don't accept HTTP", "Is publicly accessible".
    website = platform.tenant("multisafepay")
    for url in (
        "https://shop.example.com:8443/hook",
        "http://shop.example.com/hook",
        "http://127.0.0.1/hook",
        "https://10.0.0.1/hook",
    ):
        assert platform.endpoint(website, 422, url=url)["errors"][0]["pointer"] == "/url"
        assert platform.set_url(website, url, 422)["errors"][0]["pointer"] == "/url"
    assert platform.set_url(website, "https://shop.example.com/hook")["url"] == "https://shop.example.com/hook"


def test_multisafepay_posts_to_the_websites_url(platform: Platform) -> None:
    shop, path, secret = shop_with_url(platform)
    event = platform.event(shop, "order.completed", object_id="my-order-id-1")
    (received,) = platform.secure.wait(path)
    assert received.method == "POST"
    assert verify(received, secret)["data"] == {"amount": 1000}
    assert refused(replace(received, body=received.body + b" "), secret)
    delivered = platform.until(event, status="delivered")
    assert (delivered["url"], delivered["object_id"]) == (platform.secure.url + path, "my-order-id-1")
    assert delivered["schedule"]["name"] == "standard"


def test_multisafepay_replaces_the_websites_url_and_sends_there_what_waits(platform: Platform) -> None:
    shop, path, secret = shop_with_url(platform)
    moved, order_path = platform.path(), platform.path()
    assert platform.endpoint(shop, 409, url=platform.secure.url + moved)["code"] == "ENDPOINT_LIMIT_REACHED"
    platform.secure.answers[path] = [500]
    platform.secure.answers[order_path] = [500]
    event = platform.event(shop, "order.completed")
    order = platform.event(shop, "order.completed", target={"url": platform.secure.url + order_path})
    waiting = [platform.until(one, attempt_count=1, status="waiting") for one in (event, order)]
    assert platform.set_url(shop, platform.secure.url + moved)["secret"] is None
    for delivery in waiting:
        platform.bring_forward(delivery)
    (received,) = platform.secure.wait(moved)
    assert verify(received, secret)["id"] == event["id"]
    assert platform.until(event, status="delivered")["url"] == platform.secure.url + moved
    # The order's own URL is still its own.
    assert verify(platform.secure.wait(order_path, 2)[-1], shop["secret"])["id"] == order["id"]
    assert platform.until(order, status="delivered")["url"] == platform.secure.url + order_path
    assert len(platform.secure.at(path)) == 1


def test_multisafepay_posts_an_orders_events_to_the_orders_own_url(platform: Platform) -> None:
    shop, path, _ = shop_with_url(platform)
    order_path = platform.path()
    target = {"url": platform.secure.url + order_path + "?shop=7", "method": "POST"}
    event = platform.event(shop, "order.completed", target=target)
    (received,) = platform.secure.wait(order_path)
    assert (received.method, received.target) == ("POST", order_path + "?shop=7")
    assert verify(received, shop["secret"])["id"] == event["id"]
    assert platform.until(event, status="delivered")["url"] == target["url"]
    assert platform.secure.at(path) == []

    # POST is recommended: it is sent where nobody asks for GET.
    other = platform.path()
    platform.event(shop, "order.completed", target={"url": platform.secure.url + other})
    assert platform.secure.wait(other)[0].method == "POST"

    # The rules of URLs hold for an order's own, and the profile's methods.
    for bad in (
        {"url": "https://shop.example.com:8443/"},
        {"url": "http://shop.example.com/"},
        {"url": "https://shop.example.com/", "method": "PUT"},
    ):
        assert platform.event(shop, "order.completed", 422, target=bad)["errors"][0]["pointer"].startswith("/target")


def test_multisafepay_sends_by_get_where_an_order_asks_for_it(platform: Platform) -> None:
    shop, path, _ = shop_with_url(platform)
    get_path = platform.path()
    target = {"url": platform.secure.url + get_path + "?shop=7", "method": "GET"}
    event = platform.event(shop, "order.completed", object_id="o 1/2", target=target)
    (received,) = platform.secure.wait(get_path)
    assert (received.method, received.body) == ("GET", b"")
    query = parse_qs(urlsplit(received.target).query, strict_parsing=True)
    assert query.keys() == {"shop", "id", "type", "object_id", "timestamp"}
    assert (query["id"], query["type"], query["object_id"]) == ([event["id"]], ["order.completed"], ["o 1/2"])
    assert instant(query["timestamp"][0]) <= datetime.now(UTC)
    verify(received, shop["secret"])
    assert refused(replace(received, target=received.target.replace("o%201", "o%202")), shop["secret"])
    assert refused(replace(received, target=""), shop["secret"])
    assert platform.until(event, status="delivered")["attempt_count"] == 1
    assert platform.secure.at(path) == []


def test_multisafepay_lists_the_addresses_that_it_sends_from(platform: Platform) -> None:
    addresses = platform.call("GET", "/v1/sender_addresses", 200)["data"]
    assert [one["address"] for one in addresses] == SENDERS.split(", ")


# Checkout


def test_checkout_registers_a_name_and_an_https_url_with_the_accounts_secret_key(platform: Platform) -> None:
    account = platform.tenant("checkout")
    url = platform.secure.url + platform.path()
    # The secret key of the account stands alone in Authorization.
    key = platform.call("POST", "/v1/keys", 201, json={"name": "account", "tenant_id": account["id"]})["key"]
    with_key = {"headers": {"authorization": key}}
    assert platform.call("POST", "/v1/endpoints", 422, json={"url": url}, **with_key)["errors"][0]["pointer"] == "/name"
    assert platform.call("POST", "/v1/endpoints", 422, json={"name": "a"}, **with_key)["errors"][0]["pointer"] == "/url"
    for bad in (platform.plain.url, "http://shop.example.com/"):
        asked = {"name": "shop", "url": bad}
        assert platform.call("POST", "/v1/endpoints", 422, json=asked, **with_key)["errors"][0]["pointer"] == "/url"
    registered = platform.call("POST", "/v1/endpoints", 201, json={"name": "shop", "url": url}, **with_key)
    assert (registered["name"], registered["url"], registered["tenant_id"]) == ("shop", url, account["id"])
    wrong = {"headers": {"authorization": key[:-1] + ("A" if key[-1] != "A" else "B")}}
    platform.call("POST", "/v1/endpoints", 401, json={"name": "shop", "url": url}, **wrong)


def test_checkout_provides_the_secret_once(platform: Platform) -> None:
    account = platform.tenant("checkout")
    registered = platform.endpoint(account, name="shop", url=platform.secure.url + platform.path())
    secret = registered["secret"]
    assert secret.startswith("whsec_")
    shown = platform.call("GET", f"/v1/endpoints/{registered['id']}", 200)
    listed = platform.call("GET", "/v1/endpoints", 200, params={"tenant_id": account["id"]})
    assert secret not in json.dumps([shown, listed])
    with platform.system.engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT secrets FROM dispatcher.endpoints").all())
    assert secret.removeprefix("whsec_") not in stored


def test_checkout_recommends_one_webhook_and_deletes_extra_ones(platform: Platform) -> None:
    account = platform.tenant("checkout")
    assert not platform.endpoint(account, name="shop", url=platform.secure.url + platform.path())["warnings"]
    second = platform.endpoint(account, name="another", url=platform.secure.url + platform.path())
    assert second["warnings"] == ["this account has 2 endpoints now; recommended: at most 1"]
    platform.call("DELETE", f"/v1/endpoints/{second['id']}", 200)
    platform.call("GET", f"/v1/endpoints/{second['id']}", 404)


def test_checkout_posts_all_events_of_both_modes_with_their_checkout_id(platform: Platform) -> None:
    account, path = platform.tenant("checkout"), platform.path()
    url = platform.secure.url + path
    # An endpoint cannot choose, and no event has a URL of its own.
    asked = {"name": "shop", "url": url, "event_types": ["payment.completed"]}
    assert platform.endpoint(account, 422, **asked)["errors"][0]["pointer"] == "/event_types"
    platform.event(account, "payment.completed", 422, target={"url": "https://shop.example.com/"})

    secret = platform.endpoint(account, name="shop", url=url)["secret"]
    payload = {"metadata": {"checkoutId": "chk_1"}, "amount": 1}
    for kind, mode in (("payment.completed", "live"), ("refund.failed", "test")):
        event = platform.event(account, kind, mode=mode, payload=payload)
        platform.until(event, status="delivered")
    posts = platform.secure.wait(path, 2)
    assert {one.method for one in posts} == {"POST"}
    received = [verify(one, secret) for one in posts]
    assert [(one["type"], one["mode"]) for one in received] == [
        ("payment.completed", "live"),
        ("refund.failed", "test"),
    ]
    # "Inside the metadata of the webhook event, you'll find a field called checkoutId."
    assert all(one["metadata"] == {"checkoutId": "chk_1"} for one in received)
    assert all(one["data"] == payload for one in received)
    assert all(refused(replace(one, body=one.body.replace(b"chk_1", b"chk_2")), secret) for one in posts)
    # What the log shows is what was sent.
    story = platform.call("GET", f"/v1/deliveries/{platform.delivery(event)['id']}/story", 200)
    assert story["event"]["body"]["text"].encode() == posts[-1].body


def test_checkout_takes_any_2xx(platform: Platform) -> None:
    account, path = platform.tenant("checkout"), platform.path()
    platform.endpoint(account, name="shop", url=platform.secure.url + path)
    for status in (200, 201, 202, 204, 299):
        platform.secure.answers[path] = [status]
        platform.until(platform.event(account, "payment.completed"), status="delivered", attempt_count=1)


def test_checkout_repeats_after_each_failure_on_its_schedule(platform: Platform) -> None:
    # Immediately, 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 10 h, each after the last failure.
    account, path = platform.tenant("checkout"), platform.path()
    secret = platform.endpoint(account, name="down", url=platform.secure.url + path)["secret"]
    platform.secure.answers[path] = [302, 400, 404, 410, 429, 500, 503, 500]
    event = platform.event(account, "payment.failed")
    platform.walk_down(event, LADDER_S)
    posts = platform.secure.at(path)
    assert len(posts) == 8
    assert {one.headers["webhook-id"] for one in posts} == {event["id"]}
    assert len({one.body for one in posts}) == 1
    assert all(verify(one, secret)["type"] == "payment.failed" for one in posts)
    assert platform.call("GET", f"/v1/endpoints?tenant_id={account['id']}", 200)["data"][0]["status"] == "active"


# Gateway


def test_gateway_takes_any_url_that_is_externally_reachable(platform: Platform) -> None:
    portfolio = platform.tenant("gateway")
    for url in ("http://shop.example.com:8080/notify", "https://shop.example.com/notify"):
        assert platform.endpoint(portfolio, url=url, event_types=["nothing.else"])["url"] == url
    platform.endpoint(portfolio, 422, url="https://10.0.0.1/")


def test_gateway_registers_for_a_portfolio_or_a_reseller(platform: Platform) -> None:
    reseller = platform.tenant("gateway")
    portfolio = platform.tenant("gateway", parent_id=reseller["id"])
    path, resellers = platform.path(), platform.path()
    secrets = {
        path: platform.endpoint(portfolio, url=platform.plain.url + path)["secret"],
        resellers: platform.endpoint(reseller, url=platform.plain.url + resellers)["secret"],
    }
    event = platform.event(portfolio, "chargeback.opened")
    for place, secret in secrets.items():
        (received,) = platform.plain.wait(place)
        assert (received.method, verify(received, secret)["id"]) == ("POST", event["id"])
        assert refused(received, next(one for one in secrets.values() if one != secret))


def test_gateway_sends_each_url_the_types_that_it_chose_whatever_they_arise_from(platform: Platform) -> None:
    portfolio = platform.tenant("gateway")
    path, other = platform.path(), platform.path()
    chosen = ["chargeback.*", "subscription.updated"]
    secret = platform.endpoint(portfolio, url=platform.plain.url + path, event_types=chosen)["secret"]
    platform.endpoint(portfolio, url=platform.plain.url + other, event_types=["payment.completed"])
    platform.endpoint(portfolio, 422, url=platform.plain.url, event_types=[])
    # From a bank, from the user interface, from a call of the API: whoever may emit, may emit any type.
    for kind in ("chargeback.opened", "subscription.updated", "payment.completed", "payment.failed"):
        platform.event(portfolio, kind)
    kinds = sorted(verify(one, secret)["type"] for one in platform.plain.wait(path, 2))
    assert kinds == ["chargeback.opened", "subscription.updated"]
    assert [json.loads(one.body)["type"] for one in platform.plain.wait(other)] == ["payment.completed"]


def test_gateway_sends_a_username_and_a_password_where_the_url_has_them(platform: Platform) -> None:
    portfolio = platform.tenant("gateway")
    path, guarded = platform.path(), platform.path()
    credentials = {"type": "basic", "username": "gate", "password": "pa55:wörd"}
    platform.endpoint(portfolio, url=platform.plain.url + path)
    registered = platform.endpoint(portfolio, url=platform.plain.url + guarded, auth=credentials)
    assert registered["auth"] == {"type": "basic", "username": "gate"}
    event = platform.event(portfolio, "chargeback.opened")
    (received,) = platform.plain.wait(guarded)
    kind, _, encoded = received.headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(encoded).decode()) == ("Basic", "gate:pa55:wörd")
    assert "authorization" not in platform.plain.wait(path)[0].headers

    # The password is never shown again, nor is the header that carries it.
    delivery = next(one for one in platform.deliveries(event) if one["endpoint_id"] == registered["id"])
    until(lambda: platform.attempts(delivery), "the attempt is recorded")
    shown = platform.call("GET", f"/v1/endpoints/{registered['id']}", 200)
    seen = json.dumps([registered, platform.attempts(delivery), shown])
    assert "pa55" not in seen
    assert encoded not in seen


def test_gateway_repeats_what_was_not_confirmed_on_a_schedule(platform: Platform) -> None:
    portfolio, path = platform.tenant("gateway"), platform.path()
    platform.endpoint(portfolio, url=platform.plain.url + path)
    platform.plain.answers[path] = [500, 200]
    event = platform.event(portfolio, "chargeback.lost")
    waiting = platform.until(event, attempt_count=1, status="waiting")
    assert waiting["schedule"]["name"] == "standard"
    platform.bring_forward(waiting)
    platform.until(event, attempt_count=2, status="delivered")


# Terminal


def hmac_client(platform: Platform, tenant: dict[str, Any]) -> Any:
    """Calls with a new key of the tenant as the Terminal system's clients do: x-api-key, x-timestamp, x-signature."""
    key = platform.call("POST", "/v1/keys", 201, json={"name": "group", "tenant_id": tenant["id"]})
    secret = base64.b64decode(key["signing_secret"].removeprefix("hmsec_"))

    def call(method: str, path: str, body: Any = None, **changed: str) -> httpx.Response:
        content = b"" if body is None else json.dumps(body).encode()
        at = datetime.now(UTC).isoformat()
        signed = f"{at}\n{method}\n{path}\n{sha256(content).hexdigest()}".encode()
        headers = {
            "x-api-key": key["id"],
            "x-timestamp": at,
            "x-signature": base64.b64encode(hmac.digest(secret, signed, "sha256")).decode(),
        } | changed
        return httpx.request(
            method,
            str(platform.client.base_url).rstrip("/") + path,
            content=content,
            headers=headers | ({"content-type": "application/json"} if content else {}),
            timeout=PATIENCE_S,
        )

    return call


def test_terminal_authorises_calls_by_three_headers(platform: Platform) -> None:
    call = hmac_client(platform, platform.tenant("terminal"))
    assert call("GET", "/v1/endpoints").status_code == 200
    assert call("GET", "/v1/endpoints", **{"x-signature": "A" * 43 + "="}).status_code == 401
    assert call("GET", "/v1/endpoints", **{"x-timestamp": "2020-01-01T00:00:00Z"}).status_code == 401


def test_terminal_stores_a_public_https_url_only_once_it_answered_a_ping(platform: Platform) -> None:
    call, path = hmac_client(platform, platform.tenant("terminal")), platform.path()
    for bad in ("http://shop.example.com/", platform.plain.url, "https://10.0.0.1/"):
        assert call("POST", "/v1/endpoints", {"url": bad}).status_code == 422
    platform.secure.always[path] = 500
    answer = call("POST", "/v1/endpoints", {"url": platform.secure.url + path})
    assert (answer.status_code, answer.json()["code"]) == (422, "ENDPOINT_VALIDATION_FAILED")
    assert call("GET", "/v1/endpoints").json()["data"] == []
    (ping,) = platform.secure.at(path)
    assert json.loads(ping.body)["type"] == "endpoint.ping"
    assert "webhook-signature" not in ping.headers
    for status in (200, 204):
        platform.secure.always[path] = status
        assert call("POST", "/v1/endpoints", {"url": platform.secure.url + path}).status_code == 201


def test_terminal_answers_a_registration_with_all_its_fields_and_the_secret_once(platform: Platform) -> None:
    call = hmac_client(platform, platform.tenant("terminal"))
    asked = {
        "url": platform.secure.url + platform.path(),
        "event_types": ["payment.completed", "payment.failed"],
        "description": "till 4",
        "metadata": {"store": "Utrecht"},
    }
    created = call("POST", "/v1/endpoints", asked)
    assert created.status_code == 201
    endpoint = created.json()
    assert {name: endpoint[name] for name in asked} == asked
    assert endpoint["id"].startswith("ep_")
    assert endpoint["status"] == "active"
    assert instant(endpoint["created_at"]) <= instant(endpoint["updated_at"]) <= datetime.now(UTC)
    assert endpoint["secret"].startswith("whsec_")
    for path in (f"/v1/endpoints/{endpoint['id']}", "/v1/endpoints"):
        assert endpoint["secret"] not in call("GET", path).text


def test_terminal_sends_the_four_types_signed_and_no_other(platform: Platform) -> None:
    group = platform.tenant("terminal")
    call, path, every = hmac_client(platform, group), platform.path(), platform.path()
    for bad_types in (["payment.paid"], [], ["refund.*"]):
        asked = {"url": platform.secure.url + path, "event_types": bad_types}
        assert call("POST", "/v1/endpoints", asked).status_code == 422
    chosen = {"url": platform.secure.url + path, "event_types": ["payment.completed", "payment.failed"]}
    secrets = {
        path: call("POST", "/v1/endpoints", chosen).json()["secret"],
        every: call("POST", "/v1/endpoints", {"url": platform.secure.url + every}).json()["secret"],
    }
    types = ["payment.cancelled", "payment.completed", "payment.failed", "payment.timeout"]
    for kind in ("refund.completed", *types):
        platform.event(group, kind)
    # The first request at each is the ping.
    for place, expected in ((path, types[1:3]), (every, types)):
        posts = platform.secure.wait(place, 1 + len(expected))[1:]
        assert sorted(verify(one, secrets[place])["type"] for one in posts) == expected
        assert refused(posts[0], secrets[every if place == path else path])


def test_terminal_holds_the_events_of_a_disabled_endpoint(platform: Platform) -> None:
    group, path = platform.tenant("terminal"), platform.path()
    call = hmac_client(platform, group)
    endpoint = call("POST", "/v1/endpoints", {"url": platform.secure.url + path}).json()
    call("POST", f"/v1/endpoints/{endpoint['id']}/disable", {})
    assert call("GET", f"/v1/endpoints/{endpoint['id']}").json()["status"] == "disabled"
    held = platform.event(group, "payment.cancelled")
    assert platform.delivery(held)["status"] == "waiting"
    call("POST", f"/v1/endpoints/{endpoint['id']}/enable")
    platform.until(held, status="delivered")


def test_terminal_gives_a_group_16_endpoints(platform: Platform) -> None:
    call = hmac_client(platform, platform.tenant("terminal"))

    def register() -> httpx.Response:
        answer: httpx.Response = call("POST", "/v1/endpoints", {"url": platform.secure.url + platform.path()})
        return answer

    assert [register().status_code for _ in range(16)] == [201] * 16
    registered = call("GET", "/v1/endpoints").json()["data"]
    assert len(registered) == 16
    one_more = register()
    assert (one_more.status_code, one_more.json()["code"]) == (409, "ENDPOINT_LIMIT_REACHED")
    call("DELETE", f"/v1/endpoints/{registered[0]['id']}")
    assert register().status_code == 201


# MusePay


def verify_sign(openssl: str, public_key_pem: str, received: Received, folder: Path) -> bool:
    """Whether OpenSSL's own command takes the header `sign`."""
    (folder / "key.pem").write_text(public_key_pem)
    (folder / "sign").write_bytes(base64.b64decode(received.headers["sign"], validate=True))
    command = [openssl, "dgst", "-sha1", "-verify", "key.pem", "-signature", "sign"]
    judged = subprocess.run(command, input=received.body, cwd=folder, capture_output=True, check=False)
    return judged.returncode == 0


def test_musepay_posts_to_the_partners_urls_signed_by_its_published_key(platform: Platform, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    partner = platform.tenant("musepay")
    paths = platform.path(), platform.path()
    for path in paths:  # one or more URLs for a partner; there is no secret: the platform's key signs
        assert platform.endpoint(partner, url=platform.plain.url + path).get("secret") is None
    event = platform.event(partner, "order.updated", payload={"order": "o1", "status": "paid"})
    keys = platform.call("GET", "/v1/public_keys", 200)["data"]
    (public_key_pem,) = (one["public_key_pem"] for one in keys if "rsa_sha1" in one["schemes"])
    for path in paths:
        (received,) = platform.plain.wait(path)
        assert received.method == "POST"
        assert "webhook-signature" not in received.headers
        assert json.loads(received.body)["id"] == event["id"]
        assert verify_sign(openssl, public_key_pem, received, tmp_path)
        changed = replace(received, body=received.body.replace(b"paid", b"open"))
        assert not verify_sign(openssl, public_key_pem, changed, tmp_path)


def test_musepay_sends_order_and_card_events(platform: Platform) -> None:
    partner, path = platform.tenant("musepay"), platform.path()
    platform.endpoint(partner, url=platform.plain.url + path)
    for kind, heard in (("order.updated", 1), ("card.issued", 1), ("payment.completed", 0)):
        assert platform.event(partner, kind)["deliveries"] == heard
    kinds = sorted(json.loads(one.body)["type"] for one in platform.plain.wait(path, 2))
    assert kinds == ["card.issued", "order.updated"]


def test_musepay_expects_exactly_200_and_makes_seven_attempts(platform: Platform) -> None:
    # Any other answer, another 2xx too, is sent again after 0, 2, 4, 8, 16, 32, 64 minutes.
    partner, path = platform.tenant("musepay"), platform.path()
    platform.endpoint(partner, url=platform.plain.url + path)
    platform.plain.answers[path] = [204, 201, 202, 404, 500, 503, 302]
    event = platform.event(partner, "order.updated")
    ended = platform.walk_down(event, EXPONENTIAL_S)
    assert len(platform.plain.at(path)) == 7
    assert platform.attempts(ended)[0]["outcome"] == "unexpected_2xx"
    assert sum(EXPONENTIAL_S) == 126 * 60
    platform.until(platform.event(partner, "order.updated"), status="delivered", attempt_count=1)


# The command line beside it


def test_a_command_finds_the_running_api_and_is_named_in_the_audit_log(platform: Platform) -> None:
    """By the key of this start, although a bootstrap key was given; also once the API was started again."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    env = ours | {"DISPATCHER_DATA_DIR": str(platform.system.data_dir), "PYTHONPATH": str(REPOSITORY)}
    for name, is_killed in (("at the till", False), ("after a crash", True)):
        if is_killed:
            platform.system.kill("api")
            until(lambda: answers("127.0.0.1", platform.system.stack.port, "/readyz"), "the API answers again")
        words = ["tenants", "create", name, "--output", "json"]
        ran = subprocess.run(
            [sys.executable, "-m", "dispatcher", *words], env=env, cwd="/", capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        made = json.loads(ran.stdout)
        (entry,) = platform.call("GET", "/v1/audit_log", 200, params={"object": made["id"]})["data"]
        assert entry["actor"] == f"cli:{getpass.getuser()}"
