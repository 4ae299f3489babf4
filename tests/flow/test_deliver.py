"""What is sent for a claim, by each kind of profile, and how its answer is judged."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
import pytest
from standardwebhooks import Webhook

from dispatcher.flow.deliver import Deliver
from dispatcher.flow.requests import AUTH_PURPOSE, HEADERS_PURPOSE, SECRET_PURPOSE
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model.delivery import Claim, Result, RetryAt, Stop
from dispatcher.model.endpoint import Endpoint, SealedSecret
from dispatcher.model.event import StoredEvent
from dispatcher.model.outcome import OutcomeClass
from dispatcher.model.profile import Profile
from dispatcher.retry import RetrySchedule
from dispatcher.signing import SCHEMES
from tests.support import walk

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SCHEDULES = {1: RetrySchedule("two", (timedelta(0), timedelta(seconds=5)))}
WHSEC = "whsec_" + base64.b64encode(walk.SECRET).decode()


class Keys(PlatformKeys):
    """One key for each scheme of the platform's, made for the scheme."""

    def __init__(self, pairs: dict[str, bytes]) -> None:
        object.__setattr__(self, "pairs", pairs)

    def signing(self, scheme: Any, at: datetime) -> tuple[bytes, ...]:
        found = self.pairs.get(scheme.name)  # type: ignore[attr-defined]
        return () if found is None else (found,)


class Receiver:
    """Answers with a status, or raises, and keeps what came."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status)


def endpoint(**values: Any) -> Endpoint:
    id_ = uuid7()
    place = "" if values.get("origin") else id_
    sealed = walk.KEYS.seal(walk.SECRET, tenant=DEFAULT_TENANT, endpoint=place, purpose=SECRET_PURPOSE)
    for name, purpose in (("headers", HEADERS_PURPOSE), ("auth", AUTH_PURPOSE)):
        if name in values:
            plain = json.dumps(values[name]).encode()
            values[name] = walk.KEYS.seal(plain, tenant=DEFAULT_TENANT, endpoint=id_, purpose=purpose)
    return Endpoint(
        **{
            "id": id_,
            "tenant_id": DEFAULT_TENANT,
            "url": "https://shop.example.com/hook",
            "schedule": "two",
            "secrets": (SealedSecret(sealed),),
        }
        | values
    )


def claim(one: Endpoint, **values: Any) -> Claim:
    event = StoredEvent(uuid7(AT), "payment.completed", "live", b'{"amount": 10.00}', AT, "pay_1")
    fields: dict[str, Any] = {"attempts": 0, "refunds": 0, "schedule_id": 1, "expired": False, "event": event} | values
    return Claim(uuid7(), one.id, one.version, 1, **fields)


def attempt(
    one: Endpoint,
    profiles: Iterable[Profile] = (),
    *,
    status: int = 200,
    keys: PlatformKeys | None = None,
    **claimed: Any,
) -> tuple[Result, list[httpx.Request]]:
    receiver = Receiver(status)
    deliver: Deliver = walk.deliver(
        httpx.MockTransport(receiver),
        SCHEDULES,
        profiles={**walk.PROFILES, **{profile.name: profile for profile in profiles}},
        platform_keys=lambda: keys or PlatformKeys(),
    )
    result = asyncio.run(deliver(claim(one, **claimed), deliver.requests.route(one)))
    return result, receiver.requests


def logged(result: Result) -> dict[str, str]:
    assert result.attempt is not None
    return {name.decode(): value.decode("latin-1") for name, value in result.attempt.request_headers}


def kind(result: Result) -> OutcomeClass:
    assert result.attempt is not None
    return result.attempt.outcome.kind


def test_the_default_is_an_envelope_signed_as_standard_webhooks_has_it() -> None:
    result, (request,) = attempt(endpoint())
    assert result.change == Stop("delivered", "ok")
    body = Webhook(WHSEC).verify(request.content, dict(request.headers))
    assert (body["type"], body["mode"], body["data"]) == ("payment.completed", "live", {"amount": 10.00})
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "dispatcher/test"
    assert result.attempt is not None
    assert result.attempt.body_sha256 == sha256(request.content).digest()


def test_verbatim_sends_the_payloads_own_bytes_and_says_type_and_mode_beside_them() -> None:
    result, (request,) = attempt(endpoint(profile="raw"), [Profile(name="raw", body="verbatim")])
    assert request.content == b'{"amount": 10.00}'
    assert request.headers["webhook-event-type"] == "payment.completed"
    assert request.headers["webhook-mode"] == "live"
    assert Webhook(WHSEC).verify(request.content, dict(request.headers)) == {"amount": 10.0}
    assert result.change == Stop("delivered", "ok")


def test_a_get_has_no_body_and_signs_what_it_asks_for() -> None:
    one = endpoint(url="https://shop.example.com/hook?shop=7", method="GET")
    result, (request,) = attempt(one)
    assert (request.method, request.content) == ("GET", b"")
    assert "content-type" not in request.headers
    assert request.url.params["shop"] == "7"
    assert request.url.params["type"] == "payment.completed"
    assert request.url.params["object_id"] == "pay_1"
    content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.{request.url.raw_path.decode()}"
    expected = base64.b64encode(hmac.digest(walk.SECRET, content.encode(), "sha256")).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert result.attempt is not None
    assert result.attempt.url == str(request.url)
    assert result.attempt.method == "GET"
    assert result.attempt.body_sha256 == sha256(request.url.raw_path).digest()


def test_two_attempts_of_one_delivery_sign_the_same_content() -> None:
    for method in ("POST", "GET"):
        one = endpoint(method=method)
        taken = claim(one)
        first, _ = attempt(one, event=taken.event)
        second, _ = attempt(one, event=taken.event)
        assert first.attempt is not None
        assert second.attempt is not None
        assert first.attempt.body_sha256 == second.attempt.body_sha256


def test_a_target_stands_on_the_delivery_and_its_tenants_secret_signs() -> None:
    one = endpoint(origin="https://orders.example.com", url="https://orders.example.com")
    target = {"target_url": "https://orders.example.com/o/1", "target_method": "POST"}
    result, (request,) = attempt(one, **target)
    assert str(request.url) == target["target_url"]
    Webhook(WHSEC).verify(request.content, dict(request.headers))
    assert result.attempt is not None
    assert result.attempt.url == target["target_url"]


def test_a_target_is_checked_again_when_it_is_sent() -> None:
    one = endpoint(origin="https://orders.example.com", url="https://orders.example.com")
    result, requests = attempt(one, target_url="http://orders.example.com/", target_method="POST")
    assert (kind(result), requests) == (OutcomeClass.INVALID_CONFIG, [])
    assert isinstance(result.change, Stop)
    assert result.change.state == "rejected"


def test_own_headers_and_basic_auth_are_sent_and_masked_in_the_log() -> None:
    one = endpoint(
        headers=[["x-shop", "s3cret"], ["x-region", "eu"]],
        auth={"type": "basic", "username": "user", "password": "pä:ss"},
    )
    result, (request,) = attempt(one)
    assert request.headers["x-shop"] == "s3cret"
    kind_, _, encoded = request.headers["authorization"].partition(" ")
    assert (kind_, base64.b64decode(encoded).decode()) == ("Basic", "user:pä:ss")
    found = logged(result)
    assert (found["x-shop"], found["x-region"], found["authorization"]) == ("***", "***", "***")
    assert found["webhook-signature"] == request.headers["webhook-signature"]


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.key_owner == "platform"])
def test_a_platforms_key_signs_and_without_one_the_delivery_waits_uncharged(name: str) -> None:
    profile = Profile(name="platform", signature_schemes=(name,), secret=False)
    private, public = SCHEMES[name].generate_keys()
    one = replace(endpoint(profile="platform"), secrets=())
    result, (request,) = attempt(one, [profile], keys=Keys({name: private}))
    assert result.attempt is not None
    now = int(result.attempt.started_at.timestamp())
    SCHEMES[name].verify(headers=dict(request.headers), body=request.content, keys=[public], now=now)
    lacking, requests = attempt(one, [profile])
    assert (kind(lacking), requests) == (OutcomeClass.INTERNAL, [])
    assert isinstance(lacking.change, RetryAt)
    assert not lacking.change.charged
    assert lacking.attempt is not None
    assert name in (lacking.attempt.outcome.error or "")


def test_two_schemes_sign_at_once_where_an_endpoint_says_so() -> None:
    private, public = SCHEMES["standard_webhooks_v1a"].generate_keys()
    one = endpoint(signature=("standard_webhooks_v1", "standard_webhooks_v1a"))
    result, (request,) = attempt(one, keys=Keys({"standard_webhooks_v1a": private}))
    kinds = [part.partition(",")[0] for part in request.headers["webhook-signature"].split(" ")]
    assert kinds == ["v1", "v1a"]
    Webhook(WHSEC).verify(request.content, dict(request.headers))
    assert result.attempt is not None
    now = int(result.attempt.started_at.timestamp())
    scheme = SCHEMES["standard_webhooks_v1a"]
    scheme.verify(headers=dict(request.headers), body=request.content, keys=[public], now=now)


def test_a_profile_may_name_the_headers_of_its_signature() -> None:
    private, _ = SCHEMES["rsa_sha1"].generate_keys()
    profile = Profile(
        name="named", signature_schemes=("rsa_sha1",), secret=False, signature_headers=(("sign", "x-legacy-sign"),)
    )
    _, (request,) = attempt(endpoint(profile="named"), [profile], keys=Keys({"rsa_sha1": private}))
    assert "x-legacy-sign" in request.headers
    assert "sign" not in request.headers


@pytest.mark.parametrize(
    ("profile", "status", "expected", "end"),
    [
        (Profile(name="p"), 204, OutcomeClass.OK, "delivered"),
        (Profile(name="p", success=frozenset({200})), 204, OutcomeClass.UNEXPECTED_2XX, None),
        (Profile(name="p", success=frozenset({200})), 200, OutcomeClass.OK, "delivered"),
        (Profile(name="p"), 410, OutcomeClass.GONE, None),
        (Profile(name="p", disable_on=frozenset({410})), 410, OutcomeClass.GONE, "rejected"),
        (Profile(name="p", permanent_statuses=frozenset({400})), 400, OutcomeClass.HTTP_4XX, "rejected"),
    ],
)
def test_the_profile_judges_the_answer(profile: Profile, status: int, expected: OutcomeClass, end: str | None) -> None:
    result, _ = attempt(endpoint(profile="p"), [profile], status=status)
    assert kind(result) is expected
    if end is None:
        assert isinstance(result.change, RetryAt)
    else:
        assert isinstance(result.change, Stop)
        assert result.change.state == end
        assert result.change.disable_endpoint == (status in profile.disable_on)


def test_a_profile_that_this_worker_does_not_have_is_ours_to_mend() -> None:
    result, requests = attempt(endpoint(profile="elsewhere"))
    assert (kind(result), requests) == (OutcomeClass.INTERNAL, [])
    assert isinstance(result.change, RetryAt)
    assert not result.change.charged


def test_an_endpoint_without_a_secret_waits_uncharged() -> None:
    result, requests = attempt(replace(endpoint(), secrets=()))
    assert (kind(result), requests) == (OutcomeClass.INTERNAL, [])
    assert isinstance(result.change, RetryAt)


def test_a_secret_that_has_expired_signs_no_more() -> None:
    one = endpoint()
    (secret,) = one.secrets
    old = walk.KEYS.seal(b"o" * 32, tenant=DEFAULT_TENANT, endpoint=one.id, purpose=SECRET_PURPOSE)
    both = (secret, SealedSecret(old, AT + timedelta(days=36500)))
    _, (request,) = attempt(replace(one, secrets=both))
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    _, (request,) = attempt(replace(one, secrets=(secret, SealedSecret(old, AT - timedelta(seconds=1)))))
    assert len(request.headers["webhook-signature"].split(" ")) == 1


def test_ids_are_the_events_on_every_endpoint() -> None:
    one, other = endpoint(), endpoint()
    event = claim(one).event
    ids: set[UUID | str] = set()
    for each in (one, other):
        _, (request,) = attempt(each, event=event)
        ids.add(request.headers["webhook-id"])
    assert ids == {format_id("evt", event.id)}
