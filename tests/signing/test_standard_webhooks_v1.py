from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.clock import SYSTEM
from dispatcher.signing import SCHEMES, VerificationError, parse_secret, sign_all

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "standard_webhooks_v1.json").read_text())

scheme = SCHEMES["standard_webhooks_v1"]

KEY, OLD_KEY = b"k" * 32, b"o" * 32
AT = 1_614_265_330


def headers_of(keys: list[bytes], **changes: str) -> dict[str, str]:
    raw = scheme.sign(message_id="evt_1", timestamp=AT, body=b"{}", keys=keys)
    return {name.decode(): value.decode() for name, value in raw} | {
        name.replace("_", "-"): value for name, value in changes.items()
    }


def refusal(headers: dict[str, str], now: int = AT, body: bytes = b"{}", **options: int) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        scheme.verify(headers=headers, body=body, keys=[KEY], now=now, **options)
    return caught.value


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_the_published_vectors_are_met_to_the_byte(vector: dict[str, Any]) -> None:
    headers = scheme.sign(
        message_id=vector["id"],
        timestamp=vector["timestamp"],
        body=vector["body"].encode(),
        keys=[parse_secret(vector["secret"]).reveal()],
    )
    assert headers == [
        (b"webhook-id", vector["id"].encode()),
        (b"webhook-timestamp", str(vector["timestamp"]).encode()),
        (b"webhook-signature", vector["signature"].encode()),
    ]


def test_signatures_stand_newest_first_parted_by_one_space() -> None:
    both = headers_of([KEY, OLD_KEY])["webhook-signature"].split(" ")
    assert both == [headers_of([key])["webhook-signature"] for key in (KEY, OLD_KEY)]


@pytest.mark.parametrize(
    ("age_s", "flaw"), [(300, None), (301, "too_old"), (-300, None), (-301, "too_new"), (10**9, "too_old")]
)
def test_a_timestamp_counts_within_five_minutes(age_s: int, flaw: str | None) -> None:
    headers = headers_of([KEY])
    if flaw is None:
        scheme.verify(headers=headers, body=b"{}", keys=[KEY], now=AT + age_s)
    else:
        assert refusal(headers, AT + age_s).flaw == flaw


def test_the_tolerance_is_the_callers() -> None:
    assert refusal(headers_of([KEY]), AT + 11, tolerance_s=10).flaw == "too_old"


@pytest.mark.parametrize("timestamp", ["now", "-1", " 1", "1.0", "1e9", "١", "1_0", "9" * 5_000])
def test_a_malformed_timestamp_is_told(timestamp: str) -> None:
    assert refusal(headers_of([KEY], webhook_timestamp=timestamp)).flaw == "malformed_header"


def test_an_id_that_is_no_ascii_is_told() -> None:
    assert refusal(headers_of([KEY], webhook_id="\udcff")).flaw == "malformed_header"


@pytest.mark.parametrize(
    "signature", ["x", "v1", "v1,", "v1,!", "v1,é", "v1,AAAA", "v1a,{}", "v2,{}", "v1, {}", "v1,{}=", ",", " "]
)
def test_what_is_no_signature_of_ours_does_not_match(signature: str) -> None:
    good = headers_of([KEY])["webhook-signature"].removeprefix("v1,")
    assert refusal(headers_of([KEY], webhook_signature=signature.format(good))).flaw == "no_match"


def test_a_signature_beside_those_of_other_versions_counts() -> None:
    good = headers_of([KEY])["webhook-signature"]
    headers = headers_of([KEY], webhook_signature=f"v1a,AAAA v1,broken {good} v9")
    scheme.verify(headers=headers, body=b"{}", keys=[OLD_KEY, KEY], now=AT)


@given(signature=st.text(max_size=100))
def test_any_text_in_place_of_the_signature_is_refused_in_words(signature: str) -> None:
    assert refusal(headers_of([KEY], webhook_signature=signature)).flaw in {"no_match", "missing_header"}


def test_we_verify_what_the_reference_library_signs() -> None:
    now = SYSTEM.now()
    signature = standardwebhooks.Webhook(base64.b64encode(KEY).decode()).sign("msg_1", now, "{}")
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    scheme.verify(headers=headers, body=b"{}", keys=[KEY], now=int(now.timestamp()))


class Other:
    """A second scheme that shares two headers with ours, as Ed25519 will."""

    name = "other"
    header_names = ("webhook-id", "webhook-signature", "other")
    key_owner = "platform"
    key_kind = "ed25519"

    def sign(self, **given_: object) -> list[tuple[bytes, bytes]]:
        return [(b"webhook-id", b"evt_1"), (b"webhook-signature", b"v1a,x"), (b"other", b"y")]


def test_two_schemes_at_once_join_their_signatures_in_one_header() -> None:
    ours = scheme.sign(message_id="evt_1", timestamp=AT, body=b"{}", keys=[KEY])
    other: Any = Other()
    merged = sign_all([(scheme, [KEY]), (other, [b""])], message_id="evt_1", timestamp=AT, body=b"{}")
    assert merged == [*ours[:2], (b"webhook-signature", ours[2][1] + b" v1a,x"), (b"other", b"y")]
    headers = {name.decode(): value.decode() for name, value in merged}
    scheme.verify(headers=headers, body=b"{}", keys=[KEY], now=AT)


def test_one_scheme_alone_is_sent_as_it_signs() -> None:
    ours = scheme.sign(message_id="evt_1", timestamp=AT, body=b"{}", keys=[KEY])
    assert sign_all([(scheme, [KEY])], message_id="evt_1", timestamp=AT, body=b"{}") == ours
