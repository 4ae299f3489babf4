"""Legacy: `sign: base64(RSASSA-PKCS1-v1_5(SHA-1(body)))`, for receivers who were promised exactly that.

Two weaknesses come with it. Neither an id nor a time is signed, so that a captured delivery can be sent again at any
time and verifies: receivers must know by the body what they have seen. And SHA-1 is broken for collisions: who may
choose part of a body can prepare two bodies with one signature. New systems use `standard_webhooks_v1a` or
`rsa_sha256`.

Keys are RSA of 2,048 to 4,096 bits: PKCS #8, and SubjectPublicKeyInfo, in DER. The header holds one signature, which
is why the newest key signs alone: publish a new key, and wait until receivers have it, before it signs.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA1

from dispatcher.signing import loaded_keys, message, platform_keys
from dispatcher.signing.scheme import TOLERANCE_S, RawHeaders, Scheme, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_SHA1: Final = SHA1()  # noqa: S303 - what the receivers' documentation says


class RsaSha1:
    """See the module. `header` is the header's name, in lower case; an instance for each."""

    name: Final = "rsa_sha1"
    key_owner: Final = "platform"
    key_kind: Final = "rsa"
    signs_with_every_key: Final = False
    prefix: Final = ""
    encoding: Final = "base64"
    digest: Final = "sha1"

    def __init__(self, header: str = "sign") -> None:
        if not _HEADER_NAME.fullmatch(header):
            raise ValueError("a header's name is 1 to 64 of a-z 0-9 _ -")
        self.header_names = (header,)

    def generate_keys(self) -> tuple[bytes, bytes]:
        """A new pair: PKCS #8, and SubjectPublicKeyInfo."""
        key = platform_keys.generate_key("rsa")
        return key.private.reveal(), key.public

    def sign(
        self,
        *,
        message_id: str,  # noqa: ARG002 - not signed, as the module says
        timestamp: int,  # noqa: ARG002
        body: bytes,
        keys: Sequence[bytes],
    ) -> RawHeaders:
        """The one header, by the first of `keys`. Raises ValueError without keys."""
        if not keys:
            raise ValueError("no key to sign with")
        signature = loaded_keys.rsa_private_key(keys[0]).sign(body, loaded_keys.PADDING, _SHA1)
        return [(self.header_names[0].encode(), b2a_base64(signature, newline=False))]

    def verify(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        keys: Sequence[bytes],
        now: int,  # noqa: ARG002 - there is no time to compare it with
        tolerance_s: int = TOLERANCE_S,  # noqa: ARG002
    ) -> None:
        """As the protocol says, but for the time: a signature of any age verifies."""
        (name,) = self.header_names
        signature = message.decoded(message.read_headers(headers, self.header_names)[name])
        if not any(loaded_keys.rsa_signed(key, signature, body, _SHA1) for key in keys):
            raise VerificationError("no_match", f"{name} is not a signature of this body by a known key")


SCHEME: Final[Scheme] = RsaSha1()
