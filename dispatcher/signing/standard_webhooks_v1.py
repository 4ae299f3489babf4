"""Standard Webhooks with a shared secret: `v1`, HMAC-SHA256.

Specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. Signed is
`<webhook-id>.<webhook-timestamp>.<body>`. A key is the secret's bytes, that is its base64 decoded.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from dispatcher.signing.scheme import TOLERANCE_S, RawHeaders, Scheme, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ID: Final = "webhook-id"
_TIMESTAMP: Final = "webhook-timestamp"
_SIGNATURE: Final = "webhook-signature"

_SECONDS: Final = re.compile(r"\d{1,15}", re.ASCII)


class StandardWebhooksV1:
    """See the module."""

    name: Final = "standard_webhooks_v1"
    header_names: Final = (_ID, _TIMESTAMP, _SIGNATURE)
    key_owner: Final = "endpoint"

    def generate_keys(self) -> tuple[bytes, bytes]:
        """The same 32 random bytes twice."""
        key = os.urandom(32)
        return key, key

    def sign(self, *, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> RawHeaders:
        """The three headers; as many signatures as keys. Raises ValueError without keys or for an id with a dot."""
        # A dot, or a character that is no header's, would let two messages share one signed content.
        if "." in message_id or not message_id.isascii() or not message_id.isprintable() or not message_id:
            raise ValueError("a message id is printable ASCII without a dot")
        if not keys:
            raise ValueError("no key to sign with")
        id_bytes = message_id.encode()
        timestamp_bytes = b"%d" % timestamp
        content = b"%b.%b.%b" % (id_bytes, timestamp_bytes, body)
        # The one-shot digest takes 2.5 µs for 1 kB, a copied HMAC object 1.9: not worth a cache of secrets.
        signatures = [b"v1," + b2a_base64(hmac.digest(key, content, "sha256"), newline=False) for key in keys]
        return [
            (b"webhook-id", id_bytes),
            (b"webhook-timestamp", timestamp_bytes),
            (b"webhook-signature", b" ".join(signatures)),
        ]

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
        lowered = {name.lower(): value for name, value in headers.items()}
        missing = [name for name in self.header_names if not lowered.get(name)]
        if missing:
            raise VerificationError("missing_header", f"missing: {', '.join(missing)}")
        if not lowered[_ID].isascii():
            raise VerificationError("malformed_header", f"{_ID} is not ASCII")
        timestamp = lowered[_TIMESTAMP]
        if not _SECONDS.fullmatch(timestamp):
            raise VerificationError("malformed_header", f"{_TIMESTAMP} is not a number of seconds since 1970")
        age_s = now - int(timestamp)
        if age_s > tolerance_s:
            raise VerificationError("too_old", f"signed {age_s} s ago; allowed: {tolerance_s}")
        if age_s < -tolerance_s:
            raise VerificationError("too_new", f"signed {-age_s} s in the future; allowed: {tolerance_s}")
        content = f"{lowered[_ID]}.{timestamp}.".encode() + body
        expected = [hmac.digest(key, content, "sha256") for key in keys]
        given = [part.removeprefix("v1,") for part in lowered[_SIGNATURE].split(" ") if part.startswith("v1,")]
        if not any(hmac.compare_digest(_decoded(part), digest) for part in given for digest in expected):
            raise VerificationError(
                "no_match", f"none of {len(given)} v1 signatures is of this id, timestamp and body by a known secret"
            )


def _decoded(signature: str) -> bytes:
    """The signature's bytes; empty, which matches nothing, if it is no base64."""
    try:
        return base64.b64decode(signature, validate=True)
    except ValueError:
        return b""


SCHEME: Final[Scheme] = StandardWebhooksV1()
