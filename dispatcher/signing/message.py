"""A message as the schemes see it: what of it is signed, and what its headers say.

Signed is `<webhook-id>.<webhook-timestamp>.<content>` (Standard Webhooks, Signature scheme), but for schemes that go by
another document. The content, which all schemes take as `body`, is the body of a POST and path and query of a GET; see
"What is signed" in docs/signatures.md.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from dispatcher.signing.scheme import RawHeaders, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"

_SECONDS: Final = re.compile(r"\d{1,15}", re.ASCII)


def dated_content(message_id: str, timestamp: int, body: bytes) -> tuple[RawHeaders, bytes]:
    """The two headers that name the message, and what is to be signed. Raises ValueError for an id with a dot."""
    # A dot, or a character that a header may not have, would let two messages share one signed content.
    if "." in message_id or not message_id.isascii() or not message_id.isprintable() or not message_id:
        raise ValueError("a message id is printable ASCII without a dot")
    id_bytes = message_id.encode()
    timestamp_bytes = b"%d" % timestamp
    return (
        [(b"webhook-id", id_bytes), (b"webhook-timestamp", timestamp_bytes)],
        b"%b.%b.%b" % (id_bytes, timestamp_bytes, body),
    )


def read_dated_content(headers: Mapping[str, str], body: bytes, *, now: int, tolerance_s: int) -> bytes:
    """What must have been signed, by what `read_headers` gave. Raises VerificationError: malformed, too old or new."""
    message_id, timestamp = headers[ID], headers[TIMESTAMP]
    if not message_id.isascii():
        raise VerificationError("malformed_header", f"{ID} is not ASCII")
    if not _SECONDS.fullmatch(timestamp):
        raise VerificationError("malformed_header", f"{TIMESTAMP} is not a number of seconds since 1970")
    age_s = now - int(timestamp)
    if age_s > tolerance_s:
        raise VerificationError("too_old", f"signed {age_s} s ago; allowed: {tolerance_s}")
    if age_s < -tolerance_s:
        raise VerificationError("too_new", f"signed {-age_s} s in the future; allowed: {tolerance_s}")
    return f"{message_id}.{timestamp}.".encode() + body


def read_headers(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The headers by their names in lower case. Raises VerificationError unless all of `names` are there."""
    lowered = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in names if not lowered.get(name)]
    if missing:
        raise VerificationError("missing_header", f"missing: {', '.join(missing)}")
    return lowered


def decoded(signature: str) -> bytes:
    """The signature's bytes; empty, which matches nothing, if it is not base64."""
    try:
        return base64.b64decode(signature, validate=True)
    except ValueError:
        return b""
