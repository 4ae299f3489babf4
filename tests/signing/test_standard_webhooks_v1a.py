from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.signing import SCHEMES, Secret, VerificationError, generate_secret, platform_keys, sign_all
from dispatcher.signing.standard_webhooks_v1a import parse_whpk, parse_whsk, write_whpk, write_whsk

VECTORS_DIR = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((VECTORS_DIR / "standard_webhooks_v1a.json").read_text())

scheme = SCHEMES["standard_webhooks_v1a"]

AT = 1_614_265_330
KEY = platform_keys.generate_key("ed25519")
RSA = platform_keys.import_pem((VECTORS_DIR / "rfc9500_rsa_2048.pem").read_bytes())
SEED = b"planted-canary-of-32-bytes-aaaaa"
SEED_TEXT = base64.b64encode(SEED).decode()


def whsk(value: bytes) -> str:
    return "whsk_" + base64.b64encode(value).decode()


def headers_of(**changes: str) -> dict[str, str]:
    raw = scheme.sign(message_id="evt_1", timestamp=AT, body=b"{}", keys=[KEY.private.reveal()])
    return {name.decode(): value.decode() for name, value in raw} | changes


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_the_published_vectors_are_met_to_the_byte(vector: dict[str, Any]) -> None:
    headers = scheme.sign(
        message_id=vector["id"],
        timestamp=vector["timestamp"],
        body=vector["body"].encode(),
        keys=[parse_whsk("whsk_" + vector["seed"]).reveal()],
    )
    assert headers == [
        (b"webhook-id", vector["id"].encode()),
        (b"webhook-timestamp", str(vector["timestamp"]).encode()),
        (b"webhook-signature", vector["signature"].encode()),
    ]


def test_beside_v1_both_signatures_stand_in_one_header_and_each_is_found() -> None:
    v1, secret = SCHEMES["standard_webhooks_v1"], generate_secret().reveal()
    merged = sign_all([(v1, [secret]), (scheme, [KEY.private.reveal()])], message_id="e", timestamp=AT, body=b"{}")
    headers = {name.decode(): value.decode() for name, value in merged}
    assert list(headers) == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    assert [part.partition(",")[0] for part in headers["webhook-signature"].split(" ")] == ["v1", "v1a"]
    v1.verify(headers=headers, body=b"{}", keys=[secret], now=AT)
    scheme.verify(headers=headers, body=b"{}", keys=[KEY.public], now=AT)


@pytest.mark.parametrize("signature", ["v1a", "v1a,", "v1a,!", "v1a,é", "v1a,AAAA", "v1,{}", "v1a, {}", "v1a,{}=", ","])
def test_what_is_no_signature_of_ours_does_not_match(signature: str) -> None:
    good = headers_of()["webhook-signature"].removeprefix("v1a,")
    with pytest.raises(VerificationError) as caught:
        scheme.verify(
            headers=headers_of(**{"webhook-signature": signature.format(good)}), body=b"{}", keys=[KEY.public], now=AT
        )
    assert caught.value.flaw == "no_match"


@given(st.binary(min_size=32, max_size=32))
def test_both_texts_read_back(seed: bytes) -> None:
    private = parse_whsk(whsk(seed))
    assert write_whsk(private) == whsk(seed)
    public = platform_keys.load_key(private).public
    assert parse_whpk(write_whpk(public)) == public
    # As Svix writes it: the seed, and the public key after it.
    both = seed + base64.b64decode(write_whpk(public).removeprefix("whpk_"))
    assert parse_whsk(whsk(both)) == private


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "does not start with whsk_"),
        (SEED_TEXT, "does not start with whsk_"),
        ("whpk_" + SEED_TEXT, "does not start with whsk_"),
        ("whsec_" + SEED_TEXT, "does not start with whsk_"),
        ("whsk_", "0 bytes"),
        ("whsk_" + SEED_TEXT.rstrip("="), "not whsk_ and strict base64"),
        ("whsk_" + SEED_TEXT + "\n", "not whsk_ and strict base64"),
        (whsk(SEED[:31]), "31 bytes"),
        (whsk(SEED + b"x"), "33 bytes"),
        (whsk(SEED + bytes(32)), "a seed beside the public key of another"),
    ],
)
def test_a_broken_private_key_is_refused_without_being_repeated(text: str, found: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_whsk(text, pointer="/signing_key")
    assert caught.value.pointer == "/signing_key"
    assert found in caught.value.found
    shown = "".join(traceback.format_exception(caught.value))
    assert "planted" not in shown
    assert SEED_TEXT[:12] not in shown


@pytest.mark.parametrize("text", ["", "whsk_" + SEED_TEXT, "whpk_AAAA", "whpk_" + SEED_TEXT.rstrip("=")])
def test_a_broken_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="whpk_"):
        parse_whpk(text)


def test_an_rsa_key_is_refused_wherever_it_is_passed() -> None:
    with pytest.raises(ValueError, match="an RSA key where an Ed25519 key is needed"):
        scheme.sign(message_id="evt_1", timestamp=AT, body=b"", keys=[RSA.private.reveal()])
    with pytest.raises(ValueError, match="an RSA key where an Ed25519 key is needed"):
        scheme.verify(headers=headers_of(), body=b"", keys=[RSA.public], now=AT)
    with pytest.raises(ValueError, match="an RSA key where an Ed25519 key is needed"):
        write_whsk(RSA.private)
    with pytest.raises(ValueError, match="an RSA key where an Ed25519 key is needed"):
        write_whpk(RSA.public)


def test_an_endpoints_secret_never_signs() -> None:
    assert scheme.key_owner == "platform"
    with pytest.raises(ValueError, match="not the PKCS #8"):
        scheme.sign(message_id="evt_1", timestamp=AT, body=b"", keys=[Secret(bytes(32)).reveal()])
