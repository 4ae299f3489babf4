"""What an event may be, and the bytes that are sent for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model.event import MAX_PAYLOAD_BYTES, BodyForm, Event, Mode, StoredEvent, body, body_hash, validate

AT = datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=UTC)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_the_envelope_wraps_the_payloads_own_bytes(value: Any) -> None:
    payload = validate(Event(type="payment.completed", payload=value))
    id_ = uuid7(AT)
    sent = body(StoredEvent(id_, "payment.completed", "live", payload, AT), BodyForm.ENVELOPE)
    assert json.loads(sent) == {
        "id": format_id("evt", id_),
        "type": "payment.completed",
        "timestamp": "2026-03-02T09:00:00.123Z",
        "mode": "live",
        "data": value,
    }
    assert sent.endswith(payload + b"}")


def enveloped(payload: bytes, *names: str) -> bytes:
    validate(Event(type="a", payload=payload))
    sent = body(StoredEvent(DEFAULT_TENANT, "a", "live", payload, AT), BodyForm.ENVELOPE, names)
    plain = body(StoredEvent(DEFAULT_TENANT, "a", "live", payload, AT), BodyForm.ENVELOPE)
    head, tail = plain.split(b'"data"', 1)
    assert sent.startswith(head)
    assert sent.endswith(b'"data"' + tail)
    return sent.removeprefix(head).removesuffix(b'"data"' + tail)


@given(st.dictionaries(st.sampled_from(["a", "metadata", "é"]), json_values, max_size=3))
def test_the_envelope_has_copies_of_the_payloads_members_beside_the_data(value: dict[str, Any]) -> None:
    payload = validate(Event(type="payment.completed", payload=value))
    event = StoredEvent(DEFAULT_TENANT, "payment.completed", "live", payload, AT)
    sent = json.loads(body(event, BodyForm.ENVELOPE, ("metadata", "a")))
    copied = {name: value[name] for name in ("metadata", "a") if name in value}
    assert sent == json.loads(body(event, BodyForm.ENVELOPE)) | copied


def test_a_copied_member_is_kept_to_the_byte() -> None:
    digits = b"1" * 300
    payload = b' { "metadata" :\t{"n": 1.0e2, "n": %b, "s": "\\u00e9}\\""} , "b":[1, 2] } ' % digits
    assert enveloped(payload, "metadata") == b'"metadata":{"n": 1.0e2, "n": %b, "s": "\\u00e9}\\""},' % digits
    assert enveloped(payload, "b", "x", "metadata").startswith(b'"b":[1, 2],"metadata":{')


def test_of_a_member_that_comes_twice_the_last_is_copied_as_parsers_read_it() -> None:
    assert enveloped(b'{"a": 1, "\\u0061": 2}', "a") == b'"a":2,'


@pytest.mark.parametrize(
    "payload", [b"1", b'"metadata"', b'[{"metadata": 1}]', b"{}", b" { } ", b'{"b": {"metadata": 1}}']
)
def test_a_payload_without_the_member_gives_the_envelope_none(payload: bytes) -> None:
    assert enveloped(payload, "metadata") == b""


@given(json_values)
def test_verbatim_sends_the_payloads_own_bytes(value: Any) -> None:
    payload = validate(Event(type="a", payload=value))
    assert body(StoredEvent(DEFAULT_TENANT, "a", "live", payload, AT), BodyForm.VERBATIM) == payload


def test_the_body_is_the_same_in_whatever_zone_the_database_answers() -> None:
    here = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    one, other = (body(StoredEvent(DEFAULT_TENANT, "a", "test", b"1", at), BodyForm.ENVELOPE) for at in (AT, here))
    assert one == other


def test_json_text_is_kept_to_the_byte() -> None:
    text = b' {"b": 1.0e2, "a": "\\u00e9",  "a": 2}'
    assert validate(Event(type="a", payload=text)) == text


@pytest.mark.parametrize(
    "kind", ["payment", "payment.completed", "payment_intent.payment-failed", "a.b.c.d", "A1", "x" * 128]
)
def test_a_type_is_dotted_words(kind: str) -> None:
    validate(Event(type=kind, payload=None))


@pytest.mark.parametrize(
    "kind",
    ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a\n", "ä", "a/b", "a%", "x" * 129, None, 1, b"a"],
    ids=repr,
)
def test_anything_else_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(InvalidInput) as error:
        validate(Event(type=kind, payload=None), pointer="/3")
    assert error.value.pointer == "/3/type"


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("/payload", {"payload": object()}),
        ("/payload", {"payload": {1: 2}}),
        ("/payload", {"payload": b"{"}),
        ("/payload", {"payload": b"\xff"}),
        ("/payload", {"payload": b""}),
        ("/payload", {"payload": "\ud800"}),
        ("/payload", {"payload": "x" * MAX_PAYLOAD_BYTES}),
        ("/object_id", {"object_id": ""}),
        ("/object_id", {"object_id": "x" * 201}),
        ("/object_id", {"object_id": "a\0"}),
        ("/object_id", {"object_id": 7}),
        ("/idempotency_key", {"idempotency_key": "x" * 256}),
        ("/idempotency_key", {"idempotency_key": "\ud800"}),
        ("/expires_at", {"expires_at": datetime(2026, 1, 1)}),
        ("/not_before", {"not_before": datetime(2026, 1, 1)}),
        ("/not_before", {"not_before": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}),
        ("/mode", {"mode": "prod"}),
        ("/tenant_id", {"tenant_id": str(DEFAULT_TENANT)}),
        ("/id", {"id": "evt_1"}),
    ],
)
def test_what_cannot_be_accepted_is_named(pointer: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as error:
        validate(Event(**({"type": "a", "payload": None} | values)))
    assert error.value.pointer == pointer


def test_the_largest_payload_is_accepted() -> None:
    assert len(validate(Event(type="a", payload="x" * (MAX_PAYLOAD_BYTES - 2)))) == MAX_PAYLOAD_BYTES


@pytest.mark.parametrize(
    "other",
    [
        {"type": "b"},
        {"mode": Mode.TEST},
        {"object_id": "o"},
        {"not_before": AT},
        {"expires_at": AT},
        {"payload": {"n": 2}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_repeat_under_one_key_must_agree_in_everything(other: dict[str, Any]) -> None:
    first = Event(type="a", payload={"n": 1})
    second = Event(**({"type": "a", "payload": {"n": 1}} | other))
    assert body_hash(first, validate(first)) == body_hash(first, validate(first))
    assert body_hash(first, validate(first)) != body_hash(second, validate(second))
