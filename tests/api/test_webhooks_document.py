"""The `webhooks` of the OpenAPI document say what is really sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import pytest

from dispatcher.ids import uuid7
from dispatcher.model.event import BodyForm, Mode, StoredEvent, body, get_url
from dispatcher.signing import SCHEMES
from tests.support.answers import document

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)


def event(object_id: str | None = None) -> StoredEvent:
    return StoredEvent(uuid7(AT), "payment.completed", Mode.LIVE, b'{"amount":1000}', AT, object_id)


@pytest.mark.parametrize("name", ["event", "ping"])
def test_an_envelope_is_as_described(name: str) -> None:
    described = document()["webhooks"][name]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for({**described, "components": document()["components"]})
    sent = json.loads(body(event(), BodyForm.ENVELOPE))
    validator.validate(sent)
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate(sent | {"more": 1})


@pytest.mark.parametrize("object_id", [None, "pay_8f3k2"])
def test_the_query_of_a_get_is_as_described(object_id: str | None) -> None:
    parameters = document()["webhooks"]["get"]["get"]["parameters"]
    described = {one["name"]: one["required"] for one in parameters if one["in"] == "query"}
    sent = set(parse_qs(urlsplit(get_url("https://shop.example.com/hook", event(object_id))).query))
    assert {name for name, required in described.items() if required} <= sent <= set(described)


def test_the_headers_are_those_of_the_schemes() -> None:
    expected = {header for scheme in SCHEMES.values() for header in scheme.header_names}
    for methods in document()["webhooks"].values():
        for operation in methods.values():
            assert {one["name"] for one in operation["parameters"] if one["in"] == "header"} == expected
