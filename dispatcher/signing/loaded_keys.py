"""The platform's keys in the form that signs and verifies, loaded once.

A private key is the DER of a PKCS #8 PrivateKeyInfo, a public one that of an X.509 SubjectPublicKeyInfo. Whatever is
no such key, or too weak, raises ValueError, in words that never repeat it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey
PublicKey: TypeAlias = RSAPublicKey | Ed25519PublicKey

RSA_BITS: Final = (2048, 4096)
"""How long an RSA key may be. Less is broken (NIST SP 800-131A). With more, a signature would hold a worker's loop up
for too long: measured 0.25 ms for 2,048 bits, 0.7 for 3,072, 1.5 for 4,096, all of it under the interpreter's lock."""

RSA_EXPONENT: Final = 65_537
"""The least public exponent: with 3, lax verifiers can be fooled (NIST SP 800-57 part 3 asks for this one, too)."""

_KEPT: Final = 64  # an installation has one key a scheme, two while one rotates
_NO_KEY: Final = (ValueError, TypeError, UnsupportedAlgorithm)

PADDING: Final = PKCS1v15()


def fault_of(key: object) -> str | None:
    """Why this key of the `cryptography` package cannot be used, in words; None if it can."""
    if isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        return None
    if not isinstance(key, RSAPrivateKey | RSAPublicKey):
        return "a key that is neither RSA nor Ed25519"
    public = key.public_key() if isinstance(key, RSAPrivateKey) else key
    shortest, longest = RSA_BITS
    if not shortest <= key.key_size <= longest:
        return f"an RSA key of {key.key_size} bits"
    if public.public_numbers().e < RSA_EXPONENT:
        return f"an RSA key whose public exponent is {public.public_numbers().e}"
    return None


def private_der(key: PrivateKey) -> bytes:
    """The key as it is kept."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def public_der(key: PublicKey) -> bytes:
    """The key as it is published."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=_KEPT)
def private_key(der: bytes) -> PrivateKey:
    """The key, checked for its kind and size."""
    # Proving the primes takes 36 ms for 2,048 bits and 110 for 3,072, not proving them 4 µs. It was done when the key
    # came in (`import_pem`), and since then a seal guards it; the self-test at the start signs with it.
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except _NO_KEY:
        key = None
    return _usable(key, "PKCS #8 of a private key")  # type: ignore[return-value]


@lru_cache(maxsize=_KEPT)
def public_key(der: bytes) -> PublicKey:
    """The key, checked for its kind and size."""
    try:
        key = load_der_public_key(der)
    except _NO_KEY:
        key = None
    return _usable(key, "SubjectPublicKeyInfo of a public key")  # type: ignore[return-value]


def rsa_private_key(der: bytes) -> RSAPrivateKey:
    """The key, which must be RSA."""
    key = private_key(der)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("an Ed25519 key where an RSA key is needed")  # noqa: TRY004 - the value's kind
    return key


def ed25519_private_key(der: bytes) -> Ed25519PrivateKey:
    """The key, which must be Ed25519."""
    key = private_key(der)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("an RSA key where an Ed25519 key is needed")  # noqa: TRY004
    return key


def rsa_signed(der: bytes, signature: bytes, content: bytes, algorithm: HashAlgorithm) -> bool:
    """Whether the private half of this public key signed `content`, RSASSA-PKCS1-v1_5."""
    key = public_key(der)
    if not isinstance(key, RSAPublicKey):
        raise ValueError("an Ed25519 key where an RSA key is needed")  # noqa: TRY004
    try:
        key.verify(signature, content, PADDING, algorithm)
    except InvalidSignature:
        return False
    return True


def ed25519_signed(der: bytes, signature: bytes, content: bytes) -> bool:
    """Whether the private half of this public key signed `content`."""
    key = public_key(der)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("an RSA key where an Ed25519 key is needed")  # noqa: TRY004
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _usable(key: object, form: str) -> object:
    if key is None:
        raise ValueError(f"not the {form}")
    fault = fault_of(key)
    if fault is not None:
        raise ValueError(fault)
    return key
