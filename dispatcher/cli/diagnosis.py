"""Why a signature does not verify, in a merchant's words.

A signature says only that something differs. What usually differs can be tried: another line end, the JSON written
anew by a parser, the secret used as text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dispatcher.model import json_text
from dispatcher.signing import SCHEMES, Scheme, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ANY_AGE_S: Final = 10**16
"""More seconds than a timestamp can write."""

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What is to be verified: headers by their names in lower case, the body, and what it is verified with.

    Of a GET, `body` is its request target: path and query. `what` names it in messages.
    `keys` is what the scheme's `verify` takes, `secrets` are the texts they were written as; `now` is in seconds since
    1970. `sent_sha256` is the hash of the body that was sent, in hex, where the delivery log told it.
    """

    scheme: Scheme
    headers: Mapping[str, str]
    body: bytes
    keys: Sequence[bytes]
    secrets: Sequence[str]
    now: int
    tolerance_s: int
    sent_sha256: str | None = None
    what: str = "body"


def fault_of(signed: Signed) -> str | None:
    """Why it does not verify, in a sentence or two; None if it does."""
    try:
        _verify(signed, signed.body, signed.keys, tolerance_s=signed.tolerance_s)
    except VerificationError as error:
        return _explained(signed, error)
    return None


def age(seconds: int) -> str:
    """How old a timestamp is, in words.

    >>> age(12), age(-400)
    ('12 s ago', '400 s in the future')
    """
    return f"{seconds} s ago" if seconds >= 0 else f"{-seconds} s in the future"


def _verify(signed: Signed, body: bytes, keys: Sequence[bytes], *, tolerance_s: int) -> None:
    signed.scheme.verify(headers=signed.headers, body=body, keys=keys, now=signed.now, tolerance_s=tolerance_s)


def _holds(signed: Signed, body: bytes, keys: Sequence[bytes]) -> bool:
    """Whether the signature is of this body by one of the keys, however old."""
    try:
        _verify(signed, body, keys, tolerance_s=ANY_AGE_S)
    except VerificationError:
        return False
    return True


def _explained(signed: Signed, error: VerificationError) -> str:
    match error.flaw:
        case "missing_header":
            missing = [name for name in signed.scheme.header_names if not signed.headers.get(name)]
            given = ", ".join(sorted(signed.headers)) or "none"
            many = "headers are" if len(missing) > 1 else "header is"
            text = f"the {many} missing: {', '.join(missing)} (given: {given}).{_other_scheme(signed)}"
            return text if _other_scheme(signed) else f"{text} A proxy may have dropped what it did not know."
        case "malformed_header":
            return f"a header is not what the platform sends: {error}."
        case "too_old" | "too_new":
            age_s = signed.now - int(signed.headers["webhook-timestamp"])
            over = abs(age_s) - signed.tolerance_s
            word = "too old" if age_s > 0 else "too new"
            rest = (
                "The signature itself is right: was this a recorded delivery (then raise --tolerance, or give --at), "
                "or is a clock wrong?"
                if _holds(signed, signed.body, signed.keys)
                else f"And the signature is not right either: {_mismatch(signed)}"
            )
            return f"{word} by {over} s: signed {age(age_s)}; allowed: {signed.tolerance_s} s. {rest}"
        case "no_match":
            return _mismatch(signed)


def _mismatch(signed: Signed) -> str:
    if not _has_signature(signed.scheme, signed.headers):
        header = signed.scheme.header_names[-1]
        return f"{header} holds no {signed.scheme.prefix.rstrip(',')} signature.{_other_scheme(signed)}"
    for change, body in _variants(signed.body):
        if _holds(signed, body, signed.keys):
            return (
                f"the {signed.what} was changed: the signature is right for the {signed.what} {change}. "
                "Verify the bytes as they came, before anything parses or edits them."
            )
    if signed.scheme.key_owner == "endpoint":
        texts = [text.encode() for secret in signed.secrets for text in (secret, secret.removeprefix("whsec_"))]
        if _holds(signed, signed.body, texts):
            return (
                "whoever signed this used the text of the secret as the key. "
                "The key is what stands behind whsec_, base64-decoded."
            )
    key = "secret" if signed.scheme.key_owner == "endpoint" else "key"
    if signed.sent_sha256 is not None:
        if sha256(signed.body).hexdigest() == signed.sent_sha256:
            return f"wrong {key}: the body is byte for byte the one that was sent. {_which_key(key)}"
        return (
            "the body was changed: it is not the one that was sent, by its SHA-256 in the delivery log. "
            "Verify the bytes as they came, before anything parses or edits them."
        )
    return (
        f"wrong {key}, or the {signed.what} was changed: no signature here is of these bytes under this {key}. "
        f"{_which_key(key)} If it is the right one, what was verified is not what came: take the raw bytes."
    )


def _which_key(key: str) -> str:
    if key == "secret":
        return "Is it this endpoint's, of this environment, and was it rotated since?"
    return "Is it this platform's, for this scheme, and was it rotated since?"


def _other_scheme(signed: Signed) -> str:
    """A hint at the scheme that the headers are of, led by a space; empty if there is none."""
    names = [
        name
        for name, scheme in SCHEMES.items()
        if name != signed.scheme.name and _has_signature(scheme, signed.headers)
    ]
    return f" But these headers are of {names[0]}: try --scheme {names[0]}." if names else ""


def _has_signature(scheme: Scheme, headers: Mapping[str, str]) -> bool:
    """Whether the scheme's header holds a signature that begins as the scheme's signatures do."""
    parts = headers.get(scheme.header_names[-1], "").split(" ")
    return any(part and part.startswith(scheme.prefix) for part in parts)


def _variants(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What editors, shells and parsers commonly make of a body, undone: how it differs, and the bytes."""
    without = body.rstrip(b"\r\n")
    if without != body:
        yield "without its trailing newline", without
        yield "without one of its trailing newlines", body[:-1]
    yield "with a trailing newline", body + b"\n"
    yield "with \\n for \\r\\n", body.replace(b"\r\n", b"\n")
    yield "with \\r\\n for \\n", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without the byte order mark before it", body.removeprefix(_BOM)
    yield "without the white space around it", body.strip()
    if json_text.is_deeper(body, json_text.MAX_REQUEST_DEPTH):
        return
    try:
        value = json.loads(body)
    except ValueError:
        return
    for change, write in _WRITERS:
        text = write(value)
        yield change, text.encode(errors="replace")
        yield f"{change}, and a trailing newline", text.encode(errors="replace") + b"\n"


def _writer(*, ascii_only: bool, indent: int | None = None, close: bool = False) -> Callable[[object], str]:
    separators = (",", ":") if close else None
    return lambda value: json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)


_WRITERS: Final = (
    ("as JSON without spaces", _writer(ascii_only=False, close=True)),
    ("as JSON without spaces and with \\u escapes", _writer(ascii_only=True, close=True)),
    ("as JSON with spaces after : and ,", _writer(ascii_only=False)),
    ("as JSON with spaces after : and , and with \\u escapes", _writer(ascii_only=True)),
    ("as indented JSON", _writer(ascii_only=False, indent=2)),
    ("as JSON indented by 4", _writer(ascii_only=False, indent=4)),
)
