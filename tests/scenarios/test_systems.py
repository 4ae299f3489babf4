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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from standardwebhooks import Webhook

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


def verify(received: Received, secret: str) -> dict[str, Any]:
    """What came, if the foreign library of Standard Webhooks takes the signature."""
    return dict(Webhook(secret).verify(received.body, received.headers))


# multisafepay.txt


def test_multisafepay(platform: Platform) -> None:
    website = platform.tenant("multisafepay")
    path, order_path, get_path = platform.path(), platform.path(), platform.path()

    # "Doesn't include port numbers", "Uses HTTPS - We don't accept HTTP", "Is publicly accessible".
    for url in (
        "https://shop.example.com:8443/hook",
        "http://shop.example.com/hook",
        "http://127.0.0.1/hook",
        "https://10.0.0.1/hook",
    ):
        assert platform.endpoint(website, 422, url=url)["errors"][0]["pointer"] == "/url"
        platform.set_url(website, url, 422)
    platform.endpoint(website, 201, url="https://shop.example.com/hook")

    # Website level: one notification URL.
    shop = platform.tenant("multisafepay")
    registered = platform.set_url(shop, platform.secure.url + path)
    platform.endpoint(shop, 409, url=platform.secure.url + platform.path())
    event = platform.event(shop, "order.completed", object_id="my-order-id-1")
    (received,) = platform.secure.wait(path)
    assert received.method == "POST"
    assert verify(received, registered["secret"])["data"] == {"amount": 1000}
    delivered = platform.until(event, status="delivered")
    assert (delivered["url"], delivered["object_id"]) == (platform.secure.url + path, "my-order-id-1")
    assert delivered["schedule"]["name"] == "standard"

    # Order level: its own URL and method win, for that event.
    target = {"url": platform.secure.url + order_path + "?shop=7", "method": "POST"}
    event = platform.event(shop, "order.completed", target=target)
    (received,) = platform.secure.wait(order_path)
    assert (received.method, received.target) == ("POST", order_path + "?shop=7")
    assert verify(received, shop["secret"])["id"] == event["id"]
    assert platform.until(event, status="delivered")["url"] == target["url"]
    assert len(platform.secure.at(path)) == 1

    # "We do support GET."
    event = platform.event(
        shop, "order.completed", object_id="o 1/2", target={"url": platform.secure.url + get_path, "method": "GET"}
    )
    (received,) = platform.secure.wait(get_path)
    assert (received.method, received.body) == ("GET", b"")
    query = parse_qs(urlsplit(received.target).query, strict_parsing=True)
    assert (query["id"], query["type"], query["object_id"]) == ([event["id"]], ["order.completed"], ["o 1/2"])
    assert abs((datetime.now(UTC) - instant(query["timestamp"][0])).total_seconds()) < 60
    content = f"{event['id']}.{received.headers['webhook-timestamp']}.{received.target}".encode()
    key = base64.b64decode(shop["secret"].removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    assert received.headers["webhook-signature"] == f"v1,{expected}"
    assert len(platform.secure.at(path)) == 1

    # A target keeps the URL's rules, and its method the profile's.
    for bad in (
        {"url": "https://shop.example.com:8443/"},
        {"url": "http://shop.example.com/"},
        {"url": "https://shop.example.com/", "method": "PUT"},
    ):
        assert platform.event(shop, "order.completed", 422, target=bad)["errors"][0]["pointer"].startswith("/target")

    # "For a list of IP addresses".
    addresses = platform.call("GET", "/v1/sender_addresses", 200)["data"]
    assert [one["address"] for one in addresses] == SENDERS.split(", ")

    # Another answer is sent again.
    platform.secure.answers[path] = [500]
    event = platform.event(shop, "order.completed")
    delivery = platform.until(event, attempt_count=1, status="waiting")
    assert delivery["next_attempt_at"] is not None

    # The website's URL is replaced: what waits goes to the new one, signed with the same secret.
    before, moved = len(platform.secure.at(path)), platform.path()
    replaced = platform.set_url(shop, platform.secure.url + moved)
    assert (replaced["id"], replaced["secret"]) == (registered["id"], None)
    platform.bring_forward(delivery)
    (received,) = platform.secure.wait(moved)
    assert verify(received, registered["secret"])["id"] == event["id"]
    assert platform.until(event, status="delivered")["url"] == platform.secure.url + moved
    assert len(platform.secure.at(path)) == before


# checkout.txt


def test_checkout(platform: Platform) -> None:
    account = platform.tenant("checkout")
    path = platform.path()
    url = platform.secure.url + path

    # Step 2: name and url, and nothing else; HTTPS.
    assert platform.endpoint(account, 422, url=url)["errors"][0]["pointer"] == "/name"
    assert platform.endpoint(account, 422, name="shop", url=platform.plain.url)["errors"][0]["pointer"] == "/url"
    platform.endpoint(account, 422, name="shop", url="http://shop.example.com/")
    refused = platform.endpoint(account, 422, name="shop", url=url, event_types=["payment.completed"])
    assert refused["errors"][0]["pointer"] == "/event_types"

    # The secret is provided only once.
    registered = platform.endpoint(account, name="shop", url=url)
    secret = registered["secret"]
    assert secret.startswith("whsec_")
    shown = platform.call("GET", f"/v1/endpoints/{registered['id']}", 200)
    listed = platform.call("GET", "/v1/endpoints", 200, params={"tenant_id": account["id"]})
    assert secret not in json.dumps([shown, listed])
    assert (shown["name"], shown["url"], shown["event_types"]) == ("shop", url, None)
    with platform.system.engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT secrets FROM dispatcher.endpoints").all())
    assert secret.removeprefix("whsec_") not in stored

    # "We recommend registering only one webhook": a second one is registered with a warning, and can be deleted.
    assert not registered.get("warnings")
    second = platform.endpoint(account, name="another", url=platform.secure.url + platform.path())
    assert second["warnings"]
    platform.call("DELETE", f"/v1/endpoints/{second['id']}", 200)
    platform.call("GET", f"/v1/endpoints/{second['id']}", 404)

    # All payment events, of both modes, each of which says its own; the payload's metadata as it was.
    for mode in ("live", "test"):
        payload = {"metadata": {"checkoutId": "chk_1"}, "amount": 1}
        platform.event(account, "payment.completed", mode=mode, payload=payload)
    received = [verify(one, secret) for one in platform.secure.wait(path, 2)]
    assert sorted(one["mode"] for one in received) == ["live", "test"]
    # "Inside the metadata of the webhook event, you'll find a field called checkoutId."
    assert all(one["metadata"] == {"checkoutId": "chk_1"} for one in received)
    assert all(one["data"] == {"metadata": {"checkoutId": "chk_1"}, "amount": 1} for one in received)

    # Any 2xx is a confirmation.
    for status in (201, 202, 204, 299):
        platform.secure.answers[path] = [status]
        platform.until(platform.event(account, "payment.completed"), status="delivered", attempt_count=1)

    # Anything else is sent again: immediately, 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 10 h, each after the last failure.
    failing = platform.path()
    other = platform.tenant("checkout")
    secret = platform.endpoint(other, name="down", url=platform.secure.url + failing)["secret"]
    platform.secure.answers[failing] = [302, 400, 404, 410, 429, 500, 503, 500]
    event = platform.event(other, "payment.failed")
    platform.walk_down(event, LADDER_S)
    posts = platform.secure.at(failing)
    assert len(posts) == 8
    assert {one.headers["webhook-id"] for one in posts} == {event["id"]}
    assert len({one.body for one in posts}) == 1
    assert all(verify(one, secret)["type"] == "payment.failed" for one in posts)
    assert platform.call("GET", f"/v1/endpoints?tenant_id={other['id']}", 200)["data"][0]["status"] == "active"

    # No event has a URL of its own here.
    platform.event(account, "payment.completed", 422, target={"url": "https://shop.example.com/"})


# gateway.txt


def test_gateway(platform: Platform) -> None:
    reseller = platform.tenant("gateway")
    portfolio = platform.tenant("gateway", parent_id=reseller["id"])
    path, resellers, guarded = platform.path(), platform.path(), platform.path()

    # Nothing is said of HTTPS or ports, only that the URL is externally reachable.
    platform.endpoint(portfolio, url="http://shop.example.com:8080/notify", event_types=["nothing.else"])
    platform.endpoint(portfolio, 422, url="https://10.0.0.1/")

    # The types of events are chosen for each URL; a URL without authentication, and one with it.
    platform.endpoint(portfolio, url=platform.plain.url + path, event_types=["chargeback.*", "subscription.updated"])
    credentials = {"type": "basic", "username": "gate", "password": "pa55:wörd"}
    registered = platform.endpoint(
        portfolio, url=platform.plain.url + guarded, event_types=["chargeback.opened"], auth=credentials
    )
    assert registered["auth"] == {"type": "basic", "username": "gate"}
    platform.endpoint(reseller, url=platform.plain.url + resellers)

    # Events arise from the UI and from banks too: whoever calls the API may emit any type.
    opened = platform.event(portfolio, "chargeback.opened")
    platform.event(portfolio, "subscription.updated")
    platform.event(portfolio, "payment.completed")
    assert [json.loads(one.body)["type"] for one in platform.plain.wait(guarded)] == ["chargeback.opened"]
    kinds = sorted(json.loads(one.body)["type"] for one in platform.plain.wait(path, 2))
    assert kinds == ["chargeback.opened", "subscription.updated"]
    # A reseller hears its portfolios.
    kinds = sorted(json.loads(one.body)["type"] for one in platform.plain.wait(resellers, 3))
    assert kinds == ["chargeback.opened", "payment.completed", "subscription.updated"]

    (received,) = platform.plain.at(guarded)
    kind, _, encoded = received.headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(encoded).decode()) == ("Basic", "gate:pa55:wörd")
    assert "authorization" not in platform.plain.at(path)[0].headers

    # The password is never shown again, nor is the header that carries it.
    delivery = next(one for one in platform.deliveries(opened) if one["endpoint_id"] == registered["id"])
    deadline = time.monotonic() + PATIENCE_S
    while not (attempts := platform.attempts(delivery)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen = json.dumps([registered, attempts, platform.call("GET", f"/v1/endpoints/{registered['id']}", 200)])
    assert "pa55" not in seen
    assert encoded not in seen

    # What is not confirmed is sent again according to the schedule.
    platform.plain.answers[path] = [500, 200]
    event = platform.event(portfolio, "chargeback.lost")
    mine = [one for one in platform.deliveries(event) if one["url"].endswith(path)]
    deadline = time.monotonic() + PATIENCE_S
    while (found := platform.call("GET", f"/v1/deliveries/{mine[0]['id']}", 200))["status"] != "delivered":
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert found["attempt_count"] == 2
    platform.endpoint(portfolio, 422, url=platform.plain.url, event_types=[])


# terminal.txt


def hmac_client(platform: Platform, key: dict[str, Any]) -> Any:
    """Calls as the Terminal system's clients do: x-api-key, x-timestamp, x-signature."""
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


def test_terminal(platform: Platform) -> None:
    group = platform.tenant("terminal")
    key = platform.call("POST", "/v1/keys", 201, json={"name": "group", "tenant_id": group["id"]})
    call = hmac_client(platform, key)
    path = platform.path()
    url = platform.secure.url + path

    # Authorisation by three headers; a signature that is another's, or old, or was seen, is none.
    assert call("GET", "/v1/endpoints").status_code == 200
    assert call("GET", "/v1/endpoints", **{"x-signature": "A" * 43 + "="}).status_code == 401
    assert call("GET", "/v1/endpoints", **{"x-timestamp": "2020-01-01T00:00:00Z"}).status_code == 401

    # A ping must be answered by a 2xx, or nothing is stored.
    platform.secure.always[path] = 500
    refused = call("POST", "/v1/endpoints", {"url": url})
    assert (refused.status_code, refused.json()["code"]) == (422, "ENDPOINT_VALIDATION_FAILED")
    assert call("GET", "/v1/endpoints").json()["data"] == []
    (ping,) = platform.secure.at(path)
    assert json.loads(ping.body)["type"] == "endpoint.ping"
    assert "webhook-signature" not in ping.headers
    del platform.secure.always[path]

    # HTTPS, public.
    for bad in ("http://shop.example.com/", platform.plain.url, "https://10.0.0.1/"):
        assert call("POST", "/v1/endpoints", {"url": bad}).status_code == 422

    # What is registered, and what is answered.
    asked = {
        "url": url,
        "event_types": ["payment.completed", "payment.failed"],
        "description": "till 4",
        "metadata": {"store": "Utrecht"},
    }
    created = call("POST", "/v1/endpoints", asked)
    assert created.status_code == 201
    endpoint = created.json()
    assert {name: endpoint[name] for name in asked} == asked
    assert endpoint["status"] == "active"
    assert instant(endpoint["created_at"]) <= instant(endpoint["updated_at"]) <= datetime.now(UTC)
    assert len(platform.secure.at(path)) == 2
    secret = endpoint["secret"]
    assert secret not in call("GET", f"/v1/endpoints/{endpoint['id']}").text

    # The four types, and no other.
    for bad_types in (["payment.paid"], [], ["refund.*"]):
        assert call("POST", "/v1/endpoints", {"url": url, "event_types": bad_types}).status_code == 422
    completed = platform.event(group, "payment.completed")
    platform.event(group, "payment.timeout")
    platform.until(completed, status="delivered")
    *_, received = platform.secure.wait(path, 3)
    assert verify(received, secret)["type"] == "payment.completed"

    # An endpoint that does not choose hears the four, and nothing else.
    silent = platform.path()
    every = call("POST", "/v1/endpoints", {"url": platform.secure.url + silent}).json()
    for kind in ("refund.completed", "payment.cancelled", "payment.timeout"):
        platform.event(group, kind)
    kinds = sorted(verify(one, every["secret"])["type"] for one in platform.secure.wait(silent, 3)[1:])
    assert kinds == ["payment.cancelled", "payment.timeout"]

    # Disabled: its events wait until it is active again.
    call("POST", f"/v1/endpoints/{every['id']}/disable", {})
    assert call("GET", f"/v1/endpoints/{every['id']}").json()["status"] == "disabled"
    held = platform.event(group, "payment.cancelled")
    assert platform.delivery(held)["status"] == "waiting"
    call("POST", f"/v1/endpoints/{every['id']}/enable")
    platform.until(held, status="delivered")

    # At most 16.
    for _ in range(14):
        assert call("POST", "/v1/endpoints", {"url": platform.secure.url + platform.path()}).status_code == 201
    assert len(call("GET", "/v1/endpoints").json()["data"]) == 16
    one_more = call("POST", "/v1/endpoints", {"url": platform.secure.url + platform.path()})
    assert (one_more.status_code, one_more.json()["code"]) == (409, "ENDPOINT_LIMIT_REACHED")
    call("DELETE", f"/v1/endpoints/{every['id']}")
    assert call("POST", "/v1/endpoints", {"url": platform.secure.url + platform.path()}).status_code == 201


# musepay.txt


def test_musepay(platform: Platform) -> None:
    partner = platform.tenant("musepay")
    paths = platform.path(), platform.path()
    # One or more URLs for a partner; there is no secret: the platform's key signs.
    for path in paths:
        registered = platform.endpoint(partner, url=platform.plain.url + path)
        assert registered.get("secret") is None

    event = platform.event(partner, "order.updated", payload={"order": "o1", "status": "paid"})
    keys = platform.call("GET", "/v1/public_keys", 200)["data"]
    publics = [load_pem_public_key(one["public_key_pem"].encode()) for one in keys if "rsa_sha1" in one["schemes"]]
    for path in paths:
        (received,) = platform.plain.wait(path)
        assert received.method == "POST"
        assert "webhook-signature" not in received.headers
        (public,) = publics
        assert isinstance(public, RSAPublicKey)
        public.verify(base64.b64decode(received.headers["sign"]), received.body, PKCS1v15(), SHA1())
        assert json.loads(received.body)["id"] == event["id"]

    # Order and card events.
    assert platform.event(partner, "card.issued")["deliveries"] == 2
    assert platform.event(partner, "payment.completed")["deliveries"] == 0

    # Exactly 200: any other answer, another 2xx too, is sent again after 0, 2, 4, 8, 16, 32, 64 minutes.
    alone = platform.tenant("musepay")
    failing = platform.path()
    platform.endpoint(alone, url=platform.plain.url + failing)
    platform.plain.answers[failing] = [204, 201, 202, 404, 500, 503, 302]
    event = platform.event(alone, "order.updated")
    ended = platform.walk_down(event, EXPONENTIAL_S)
    assert len(platform.plain.at(failing)) == 7
    assert platform.attempts(ended)[0]["outcome"] == "unexpected_2xx"
    assert sum(EXPONENTIAL_S) == 126 * 60
    platform.until(platform.event(alone, "order.updated"), status="delivered", attempt_count=1)


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
