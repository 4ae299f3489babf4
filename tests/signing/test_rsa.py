"""What the two RSA schemes have beyond the conformance suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dispatcher.signing import SCHEMES, Scheme, VerificationError, loaded_keys, platform_keys
from dispatcher.signing.rsa_sha1 import RsaSha1

HERE = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((HERE / "rsa.json").read_text())

SHA1, SHA256 = SCHEMES["rsa_sha1"], SCHEMES["rsa_sha256"]
KEY = platform_keys.import_pem((HERE / "rfc9500_rsa_2048.pem").read_bytes())
ED25519 = platform_keys.generate_key("ed25519")
AT = 1_614_265_330

each_rsa_scheme = pytest.mark.parametrize("scheme", [SHA1, SHA256], ids=["rsa_sha1", "rsa_sha256"])


def headers_of(scheme: Scheme) -> dict[str, str]:
    raw = scheme.sign(message_id="evt_1", timestamp=AT, body=b"{}", keys=[KEY.private.reveal()])
    return {name.decode(): value.decode() for name, value in raw}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_what_openssl_signed_comes_out_to_the_byte(vector: dict[str, Any]) -> None:
    key = platform_keys.import_pem((HERE / vector["key"]).read_bytes())
    headers = SCHEMES[vector["scheme"]].sign(
        message_id=vector["id"],
        timestamp=vector["timestamp"],
        body=vector["body"].encode(),
        keys=[key.private.reveal()],
    )
    assert headers[-1] == (vector["header"].encode(), vector["signature"].encode())


def test_the_legacy_signature_can_be_replayed_as_its_documents_say() -> None:
    headers = headers_of(SHA1)
    SHA1.verify(headers=headers, body=b"{}", keys=[KEY.public], now=AT + 10**9)
    again = SHA1.sign(message_id="evt_2", timestamp=AT + 1, body=b"{}", keys=[KEY.private.reveal()])
    assert {name.decode(): value.decode() for name, value in again} == headers


def test_the_legacy_header_may_have_another_name() -> None:
    scheme = RsaSha1("x-sign")
    assert list(headers_of(scheme)) == ["x-sign"]
    scheme.verify(headers=headers_of(scheme), body=b"{}", keys=[KEY.public], now=AT)
    with pytest.raises(VerificationError, match="missing: x-sign"):
        scheme.verify(headers=headers_of(SHA1), body=b"{}", keys=[KEY.public], now=AT)


@pytest.mark.parametrize("header", ["", "Sign", "a b", "a:", "-a", "é", "a" * 65, "a\r\nb"])
def test_a_name_that_is_no_headers_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="a header's name"):
        RsaSha1(header)


@each_rsa_scheme
def test_an_ed25519_key_is_refused(scheme: Scheme) -> None:
    with pytest.raises(ValueError, match="an Ed25519 key where an RSA key is needed"):
        scheme.sign(message_id="evt_1", timestamp=AT, body=b"", keys=[ED25519.private.reveal()])
    with pytest.raises(ValueError, match="an Ed25519 key where an RSA key is needed"):
        scheme.verify(headers=headers_of(scheme), body=b"", keys=[ED25519.public], now=AT)


@each_rsa_scheme
def test_a_key_of_1024_bits_neither_signs_nor_verifies(scheme: Scheme) -> None:
    weak = rsa.generate_private_key(65_537, 1024)
    with pytest.raises(ValueError, match="an RSA key of 1024 bits"):
        scheme.sign(message_id="evt_1", timestamp=AT, body=b"", keys=[loaded_keys.private_der(weak)])
    public = loaded_keys.public_der(weak.public_key())
    with pytest.raises(ValueError, match="an RSA key of 1024 bits"):
        scheme.verify(headers=headers_of(scheme), body=b"", keys=[public], now=AT)


def test_one_of_two_signatures_is_enough_and_broken_ones_are_passed_over() -> None:
    headers = headers_of(SHA256)
    name = "webhook-signature-rsa"
    SHA256.verify(headers={**headers, name: f"! AAAA {headers[name]}"}, body=b"{}", keys=[KEY.public], now=AT)
