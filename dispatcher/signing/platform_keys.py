"""The platform's own signing keys: made, imported, and tried at the start.

RSA of 2,048 to 4,096 bits, or Ed25519. What is kept of a key is `PlatformKey.private`, sealed; the rest follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dispatcher.errors import ConfigurationError, InvalidInput, Problem
from dispatcher.signing import loaded_keys, public_keys
from dispatcher.signing.scheme import VerificationError
from dispatcher.signing.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher.signing.scheme import KeyKind, Scheme

NEW_RSA_BITS: Final = 3072
"""Of a new key: 128 bits of security, as Ed25519 has (NIST SP 800-57 part 1, table 2); 0.7 ms a signature."""

_WHAT_IS_ALLOWED: Final = (
    "one PEM private key (PRIVATE KEY, ENCRYPTED PRIVATE KEY with its password, or RSA PRIVATE KEY): Ed25519, or RSA "
    f"of {loaded_keys.RSA_BITS[0]:,} to {loaded_keys.RSA_BITS[1]:,} bits with a public exponent of at least "
    f"{loaded_keys.RSA_EXPONENT:,}"
)
_LABEL: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]{1,40})-----\s*$", re.MULTILINE)
_READ: Final = {b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"RSA PRIVATE KEY"}
_PUBLIC: Final = {b"PUBLIC KEY", b"RSA PUBLIC KEY", b"CERTIFICATE"}
_ENCRYPTED: Final = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")

_TRIAL_ID: Final = "evt_selftest"
_TRIAL_AT: Final = 1_614_265_330
_TRIAL_BODY: Final = b'{"self":"test"}'


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """A key pair.

    `private` is PKCS #8 in DER, what a scheme's `sign` takes; `public` is SubjectPublicKeyInfo in DER, what its
    `verify` and `dispatcher.signing.public_keys` take. `id` is the public key's thumbprint, the `kid` of its JWK.
    """

    kind: KeyKind
    id: str
    private: Secret
    public: bytes


def generate_key(kind: KeyKind = "rsa") -> PlatformKey:
    """A new key. RSA takes 0.1 to 0.5 s of one core, so not in a worker's loop."""
    match kind:
        case "rsa":
            return _pair(rsa.generate_private_key(loaded_keys.RSA_EXPONENT, NEW_RSA_BITS))
        case "ed25519":
            return _pair(Ed25519PrivateKey.generate())
    assert_never(kind)


def load_key(private: Secret) -> PlatformKey:
    """The key of which `private` was kept. Raises ValueError if it is none; it is not proven anew."""
    return _pair(loaded_keys.private_key(private.reveal()))


def import_pem(
    pem: bytes, *, password: Secret | None = None, kind: KeyKind | None = None, pointer: str = "/private_key"
) -> PlatformKey:
    """The key in a PEM file, proven: PKCS #8, encrypted or not, or RSA's PKCS #1. `kind`: the only one that will do.

    Raises InvalidInput naming `pointer`, whose text repeats nothing of the file. Takes 0.1 s for RSA.
    """
    found = _unreadable(pem, password)
    if found is None:
        # Raised outside of the handler: an error of the library may hold parts of the key.
        try:
            key = load_pem_private_key(pem, None if password is None else password.reveal())
        except (ValueError, TypeError, UnsupportedAlgorithm):
            found = "a private key that cannot be read" + (", or another password" if password else "")
        else:
            found = loaded_keys.fault_of(key)
    if found is None:
        pair = _pair(key)  # type: ignore[arg-type]  # of another kind it has a fault
        if kind in {None, pair.kind}:
            return pair
        found = f"a key of the kind {pair.kind} where one of the kind {kind} is needed"
    raise InvalidInput(pointer, found, _WHAT_IS_ALLOWED)


def self_test(pairs: Iterable[tuple[Scheme, PlatformKey]]) -> None:
    """Signs and verifies by every scheme with its key, for the start. Raises ConfigurationError with all that failed.

    A key that was damaged, is of the wrong kind, whose public half is another's, or an algorithm that this machine
    forbids (SHA-1 under some policies) is found here rather than at the first delivery.
    """
    problems = [
        Problem(f"signing key {key.id}", scheme.name, fault, "a key that signs what its public half verifies")
        for scheme, key in pairs
        if (fault := _fault(scheme, key)) is not None
    ]
    if problems:
        raise ConfigurationError(problems)


def _fault(scheme: Scheme, key: PlatformKey) -> str | None:
    try:
        signed = scheme.sign(message_id=_TRIAL_ID, timestamp=_TRIAL_AT, body=_TRIAL_BODY, keys=[key.private.reveal()])
        headers = {name.decode(): value.decode() for name, value in signed}
        scheme.verify(headers=headers, body=_TRIAL_BODY, keys=[key.public], now=_TRIAL_AT)
    except (ValueError, UnsupportedAlgorithm, InternalError) as error:
        return str(error)
    except VerificationError:
        return "a signature that does not verify"
    return None


def is_encrypted(pem: bytes) -> bool:
    """Whether the file asks for a password."""
    return any(mark in pem for mark in _ENCRYPTED)


def _unreadable(pem: bytes, password: Secret | None) -> str | None:
    """What is wrong with the file before any of it is decoded; None if it may be."""
    labels = _LABEL.findall(pem)
    if not labels:
        return "no PEM"
    if len(labels) > 1:
        return f"{len(labels)} PEM blocks"
    if labels[0] in _PUBLIC:
        return "a public key only"
    if labels[0] not in _READ:
        return f"a PEM block of another kind, {labels[0].decode()}"
    encrypted = is_encrypted(pem)
    if encrypted and password is None:
        return "an encrypted private key without its password"
    if password is not None and not encrypted:
        return "a password for a private key that is not encrypted"
    return None


def _pair(key: loaded_keys.PrivateKey) -> PlatformKey:
    public = loaded_keys.public_der(key.public_key())
    kind: KeyKind = "ed25519" if isinstance(key, Ed25519PrivateKey) else "rsa"
    return PlatformKey(kind, public_keys.key_id(public), Secret(loaded_keys.private_der(key)), public)
