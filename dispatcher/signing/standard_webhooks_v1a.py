"""Standard Webhooks with a key pair: `v1a`, Ed25519.

Specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. Signed is
`<webhook-id>.<webhook-timestamp>.<body>`, as by `v1`; the two share their three headers, so an endpoint that has both
gets both signatures in one `webhook-signature`.

A private key is PKCS #8, a public one SubjectPublicKeyInfo, in DER, as every platform key; `whsk_` and `whpk_` are
their texts. The specification advises a key for each endpoint or customer: with one for all, what one receiver got
passes for genuine at another for as long as the timestamp counts. Which keys sign is the caller's choice.
"""

from __future__ import annotations

import base64
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dispatcher.errors import InvalidInput
from dispatcher.signing import loaded_keys, message
from dispatcher.signing.scheme import TOLERANCE_S, RawHeaders, Scheme, VerificationError
from dispatcher.signing.secrets import Secret, strict_base64

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

_SIGNATURE: Final = "webhook-signature"

_KEY_BYTES: Final = 32  # of a seed, and of a public key (RFC 8032 section 5.1.5)
_WHAT_IS_ALLOWED: Final = {
    PRIVATE_PREFIX: "whsk_ and the base64, with padding, of a 32-byte seed, or of it and its public key",
    PUBLIC_PREFIX: "whpk_ and the base64, with padding, of 32 bytes",
}


class StandardWebhooksV1a:
    """See the module."""

    name: Final = "standard_webhooks_v1a"
    header_names: Final = (message.ID, message.TIMESTAMP, _SIGNATURE)
    # Never the endpoint's: its secret is 32 bytes too, and its owner, who knows it, could sign in our name.
    key_owner: Final = "platform"
    key_kind: Final = "ed25519"
    signs_with_every_key: Final = True
    prefix: Final = "v1a,"
    encoding: Final = "base64"
    digest: Final = None

    def generate_keys(self) -> tuple[bytes, bytes]:
        """A new pair: PKCS #8, and SubjectPublicKeyInfo."""
        key = Ed25519PrivateKey.generate()
        return loaded_keys.private_der(key), loaded_keys.public_der(key.public_key())

    def sign(self, *, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> RawHeaders:
        """The three headers; as many signatures as keys. Raises ValueError without keys or for an id with a dot."""
        if not keys:
            raise ValueError("no key to sign with")
        headers, content = message.dated_content(message_id, timestamp, body)
        signatures = [
            b"v1a," + b2a_base64(loaded_keys.ed25519_private_key(key).sign(content), newline=False) for key in keys
        ]
        return [*headers, (b"webhook-signature", b" ".join(signatures))]

    def verify(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        keys: Sequence[bytes],
        now: int,
        tolerance_s: int = TOLERANCE_S,
    ) -> None:
        """As the protocol says; signatures of other versions beside ours are passed over."""
        found = message.read_headers(headers, self.header_names)
        content = message.read_dated_content(found, body, now=now, tolerance_s=tolerance_s)
        given = [part.removeprefix("v1a,") for part in found[_SIGNATURE].split(" ") if part.startswith("v1a,")]
        if not any(loaded_keys.ed25519_signed(key, message.decoded(part), content) for part in given for key in keys):
            raise VerificationError(
                "no_match", f"none of {len(given)} v1a signatures is of this id, timestamp and body by a known key"
            )


def write_whsk(private: Secret) -> str:
    """The text of a private key, its seed, as the specification's libraries read it. Raises ValueError for RSA."""
    return PRIVATE_PREFIX + _base64(loaded_keys.ed25519_private_key(private.reveal()).private_bytes_raw())


def write_whpk(public: bytes) -> str:
    """The text of a public key that receivers paste. Raises ValueError unless it is an Ed25519 key."""
    key = loaded_keys.public_key(public)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("an RSA key where an Ed25519 key is needed")  # noqa: TRY004 - the value's kind
    return PUBLIC_PREFIX + _base64(key.public_bytes_raw())


def parse_whsk(text: str, *, pointer: str = "/private_key") -> Secret:
    """The private key that `text` writes: its seed, or, as Svix has it, seed and public key.

    Raises InvalidInput naming `pointer`, whose text never repeats the key.
    """
    value = _parse(text, PRIVATE_PREFIX, pointer, (_KEY_BYTES, 2 * _KEY_BYTES))
    key = Ed25519PrivateKey.from_private_bytes(value[:_KEY_BYTES])
    if value[_KEY_BYTES:] not in {b"", key.public_key().public_bytes_raw()}:
        raise InvalidInput(pointer, "a seed beside the public key of another", _WHAT_IS_ALLOWED[PRIVATE_PREFIX])
    return Secret(loaded_keys.private_der(key))


def parse_whpk(text: str, *, pointer: str = "/public_key") -> bytes:
    """The public key that `text` writes. Raises InvalidInput naming `pointer`."""
    value = _parse(text, PUBLIC_PREFIX, pointer, (_KEY_BYTES,))
    return loaded_keys.public_der(Ed25519PublicKey.from_public_bytes(value))


def _parse(text: str, prefix: str, pointer: str, lengths: tuple[int, ...]) -> bytes:
    if not text.startswith(prefix):  # without, a public key pasted for a private one would be taken for a seed
        raise InvalidInput(pointer, f"a key that does not start with {prefix}", _WHAT_IS_ALLOWED[prefix])
    value = strict_base64(text.removeprefix(prefix))
    if value is None:
        found = f"{len(text)} characters that are not {prefix} and strict base64"
        raise InvalidInput(pointer, found, _WHAT_IS_ALLOWED[prefix])
    if len(value) not in lengths:
        raise InvalidInput(pointer, f"{len(value)} bytes", _WHAT_IS_ALLOWED[prefix])
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


SCHEME: Final[Scheme] = StandardWebhooksV1a()
