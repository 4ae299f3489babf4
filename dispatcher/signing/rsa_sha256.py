"""RSA for receivers that cannot do Ed25519: RSASSA-PKCS1-v1_5 with SHA-256 (`RS256`) over id, timestamp and body.

Signed is `<webhook-id>.<webhook-timestamp>.<body>`, as Standard Webhooks has it, so that a captured delivery counts for
five minutes only and its id tells it apart. The signature stands in a header of its own, `webhook-signature-rsa`, as
plain base64: `webhook-signature` holds versions that the standard defines, and RSA is not among them. While a key
rotates, signatures of all keys stand there, parted by a space.

Keys are RSA of 2,048 to 4,096 bits: PKCS #8, and SubjectPublicKeyInfo, in DER.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256

from dispatcher.signing import loaded_keys, message, platform_keys
from dispatcher.signing.scheme import TOLERANCE_S, RawHeaders, Scheme, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SIGNATURE: Final = "webhook-signature-rsa"
_SHA256: Final = SHA256()


class RsaSha256:
    """See the module."""

    name: Final = "rsa_sha256"
    header_names: Final = (message.ID, message.TIMESTAMP, _SIGNATURE)
    key_owner: Final = "platform"
    key_kind: Final = "rsa"
    signs_with_every_key: Final = True
    prefix: Final = ""
    encoding: Final = "base64"
    digest: Final = "sha256"

    def generate_keys(self) -> tuple[bytes, bytes]:
        """A new pair: PKCS #8, and SubjectPublicKeyInfo."""
        key = platform_keys.generate_key("rsa")
        return key.private.reveal(), key.public

    def sign(self, *, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> RawHeaders:
        """The three headers; as many signatures as keys. Raises ValueError without keys or for an id with a dot."""
        if not keys:
            raise ValueError("no key to sign with")
        headers, content = message.dated_content(message_id, timestamp, body)
        signatures = [
            b2a_base64(loaded_keys.rsa_private_key(key).sign(content, loaded_keys.PADDING, _SHA256), newline=False)
            for key in keys
        ]
        return [*headers, (b"webhook-signature-rsa", b" ".join(signatures))]

    def verify(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        keys: Sequence[bytes],
        now: int,
        tolerance_s: int = TOLERANCE_S,
    ) -> None:
        """As the protocol says."""
        found = message.read_headers(headers, self.header_names)
        content = message.read_dated_content(found, body, now=now, tolerance_s=tolerance_s)
        given = found[_SIGNATURE].split(" ")
        if not any(
            loaded_keys.rsa_signed(key, message.decoded(part), content, _SHA256) for part in given for key in keys
        ):
            raise VerificationError(
                "no_match", f"none of {len(given)} signatures is of this id, timestamp and body by a known key"
            )


SCHEME: Final[Scheme] = RsaSha256()
