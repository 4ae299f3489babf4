"""Where an event of its own target goes, and the URL of an attempt by GET."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT
from dispatcher.model.event import MAX_TARGET_CHARACTERS, Event, StoredEvent, Target, body_hash, get_url, validate

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
QUERY = f"id=evt_{DEFAULT_TENANT}&type=payment.paid&timestamp=2026-03-02T09%3A00%3A00.000Z"


def targeted(target: Any) -> Event:
    return Event(type="payment.paid", payload=1, target=target)


@pytest.mark.parametrize("method", [None, "POST", "GET"])
def test_a_target_is_a_url_and_a_method(method: str | None) -> None:
    assert validate(targeted(Target("https://shop.example.com/", method))) == b"1"


@pytest.mark.parametrize(
    ("target", "pointer", "found"),
    [
        ("https://shop.example.com/", "/target", "str"),
        (Target(5), "/target/url", "int"),  # type: ignore[arg-type]
        (Target(""), "/target/url", "0 characters"),
        (Target("x" * (MAX_TARGET_CHARACTERS + 1)), "/target/url", f"{MAX_TARGET_CHARACTERS + 1} characters"),
        (Target("https://shop.example.com/", "DELETE"), "/target/method", "'DELETE'"),
    ],
)
def test_any_other_target_is_refused_by_its_place(target: Any, pointer: str, found: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate(targeted(target))
    assert (refused.value.pointer, refused.value.found) == (pointer, found)


def test_a_repeat_to_another_target_is_another_event() -> None:
    targets = (None, Target("https://a.example.com/"), Target("https://a.example.com/", "GET"))
    assert len({body_hash(targeted(target), b"1") for target in targets}) == 3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.example.com/notify", f"https://shop.example.com/notify?{QUERY}"),
        ("https://shop.example.com/?", f"https://shop.example.com/?{QUERY}"),
        ("https://shop.example.com/?shop=7", f"https://shop.example.com/?shop=7&{QUERY}"),
        ("https://shop.example.com/?shop=7&", f"https://shop.example.com/?shop=7&{QUERY}"),
        ("https://shop.example.com/#top", f"https://shop.example.com/?{QUERY}#top"),
    ],
)
def test_the_query_says_what_the_event_is_about(url: str, expected: str) -> None:
    assert get_url(url, StoredEvent(DEFAULT_TENANT, "payment.paid", "live", b"1", AT)) == expected


def test_the_object_is_in_the_query_where_there_is_one() -> None:
    event = StoredEvent(DEFAULT_TENANT, "payment.paid", "live", b"1", AT, "pay 1/é")
    assert "&type=payment.paid&object_id=pay%201%2F%C3%A9&timestamp=" in get_url("https://shop.example.com/", event)
