"""Public keys as receivers get them: PEM, JWK and JWKS.

A public key is the DER of an X.509 SubjectPublicKeyInfo. RFC 7517 (JWK, JWKS), 7518 section 6.3 (RSA), 8037 (Ed25519),
7638 (thumbprint).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dispatcher.signing import loaded_keys

if TYPE_CHECKING:
    from collections.abc import Iterable


def pem(public: bytes) -> str:
    """The key as `-----BEGIN PUBLIC KEY-----` …, which every language reads. Raises ValueError if it is none."""
    return loaded_keys.public_key(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_id(public: bytes) -> str:
    """The key's thumbprint: 43 characters that follow from the key alone. Raises ValueError if it is none."""
    # Exactly the members that the RFC names, in alphabetical order, without spaces.
    canonical = json.dumps(_members(public), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def jwk(public: bytes) -> dict[str, str]:
    """The key as a JWK; its `kid` is the thumbprint. Raises ValueError if it is none.

    `alg` is the algorithm of new systems: an RSA key that signs for the legacy scheme is better handed out as PEM.
    """
    members = _members(public)
    algorithm = "RS256" if members["kty"] == "RSA" else "EdDSA"
    return {**members, "kid": key_id(public), "use": "sig", "alg": algorithm}


def jwks(publics: Iterable[bytes]) -> dict[str, list[dict[str, str]]]:
    """The JWKS document of several keys, as while one rotates: in the order given, none twice."""
    return {"keys": [jwk(public) for public in dict.fromkeys(publics)]}


def _members(public: bytes) -> dict[str, str]:
    """What the key is made of, and no more."""
    key = loaded_keys.public_key(public)
    if isinstance(key, RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(key.public_bytes_raw())}


def _integer(value: int) -> str:
    """Base64urlUInt (RFC 7518 section 2): big-endian, in as few bytes as hold it."""
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
