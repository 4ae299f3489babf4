"""Commands for a terminal that prove what was sent: one that sends it again, and those that check its signatures.

They need bash, curl, openssl and base64. Whatever a shell or a terminal could misread goes through base64.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dispatcher.egress import parse_url
from dispatcher.egress.url import ANY_HOST
from dispatcher.flow.requests import MASK
from dispatcher.signing import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatcher.signing import Scheme
    from dispatcher.store.log import LoggedAttempt

MAX_ARGUMENT: Final = 100_000
"""Bytes of a body that one argument of a command may have; Linux takes 128 KiB."""

_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding"})
_ID, _TIMESTAMP = "webhook-id", "webhook-timestamp"

_HEX: Final = """$(printf %s "${WEBHOOK_SECRET#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \\n')"""
_SECRET: Final = "the endpoint's secret, whsec_…, in the variable WEBHOOK_SECRET"  # noqa: S105 - what it is
_PUBLIC: Final = "the platform's public key, public_key_pem of GET /v1/public_keys, in the file public.pem"


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """What one scheme signed, in which header, and how to check that.

    `key` says what the commands need, and where. `command` is of openssl and `verify` of this package; None where what
    was signed is gone.
    """

    scheme: str
    header: str
    value: str
    signed: str
    key: str
    command: str | None
    verify: str | None


def target_of(url: str) -> bytes:
    """Path and query of a URL that was sent to: what is signed of a GET."""
    return parse_url(url, ANY_HOST).target


def curl(attempt: LoggedAttempt, body: bytes) -> str:
    """The command that repeats an attempt. Masked headers stay masked: what they hold is for their owner to fill in."""
    lines = [f"curl --include --globoff --path-as-is --request {attempt.method} {shlex.quote(attempt.url)}"]
    given = [(name, value) for name, value in attempt.request_headers if name.lower() not in _FRAMING]
    lines += [f"--header {shlex.quote(f'{name}: {value}' if value else f'{name};')}" for name, value in given]
    # Headers of curl's own that were not sent.
    names = {name.lower() for name, _ in given}
    unsent = [name for name in ("accept", "content-type", "user-agent") if name not in names]
    lines += [f"--header {shlex.quote(f'{name}:')}" for name in unsent if body or name != "content-type"]
    if not body:
        return " \\\n  ".join(lines)
    text = _plain(body)
    if text is not None and len(body) <= MAX_ARGUMENT and not text.startswith("@"):
        return " \\\n  ".join([*lines, f"--data-binary {shlex.quote(text)}"])
    return f"{printed(body)} | " + " \\\n  ".join([*lines, "--data-binary @-"])


def printed(content: bytes) -> str:
    r"""The command that prints exactly these bytes.

    >>> printed(b"it's"), printed(bytes([0]))
    ('printf %s \'it\'"\'"\'s\'', 'printf %s AA== | base64 -d')
    """
    text = _plain(content)
    if text is not None:
        return f"printf %s {shlex.quote(text)}"
    return f"printf %s {b64encode(content).decode()} | base64 -d"


def _plain(content: bytes) -> str | None:
    """Text that can be copied from a terminal and pasted into one without being changed; None for any other bytes."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if all(one.isprintable() or one == "\n" for one in text) else None


def signature_checks(
    attempt: LoggedAttempt, content: bytes | None, *, renamed: Mapping[str, str]
) -> list[SignatureCheck]:
    """How to check every signature that an attempt carried.

    `content` is the body or, of a GET, path and query; None if it is gone. `renamed` are headers that are sent under
    another name than their scheme's.
    """
    sent = {name.lower(): value for name, value in attempt.request_headers}
    found = []
    for scheme in SCHEMES.values():
        own = {name: sent.get(renamed.get(name, name).lower()) for name in scheme.header_names}
        signature = scheme.header_names[-1]
        headers = {name: value for name, value in own.items() if value is not None}
        signatures = _signatures(scheme, headers.get(signature, ""))
        if len(headers) == len(own) and signatures:
            found.append(_check(attempt, scheme, headers, renamed.get(signature, signature), signatures, content))
    return found


def _signatures(scheme: Scheme, value: str) -> list[str]:
    """Each signature of a scheme in its header, which two schemes may share, without its prefix."""
    if value == MASK.decode():
        return []
    return [part.removeprefix(scheme.prefix) for part in value.split(" ") if part.startswith(scheme.prefix) and part]


def _check(
    attempt: LoggedAttempt,
    scheme: Scheme,
    headers: Mapping[str, str],
    shown: str,
    signatures: Sequence[str],
    content: bytes | None,
) -> SignatureCheck:
    what = "path and query of the URL" if attempt.method == "GET" else "body"
    is_dated = _ID in headers
    prefix = f"{headers[_ID]}.{headers[_TIMESTAMP]}." if is_dated else ""
    commands: tuple[str | None, str | None] = (None, None)
    if content is not None:
        lines = [f"{printed(content)} | dispatcher verify - --scheme {scheme.name}"]
        lines += [f"--header {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
        lines += [f"--at {attempt.started_at.isoformat()}"] if is_dated else []
        lines += ["--public-key public.pem"] if scheme.key_owner == "platform" else []
        commands = (_openssl(scheme, printed(prefix.encode() + content), signatures), " \\\n  ".join(lines))
    return SignatureCheck(
        scheme=scheme.name,
        header=shown,
        value=headers[scheme.header_names[-1]],
        signed=f"{prefix}<{what}>",
        key=_SECRET if scheme.key_owner == "endpoint" else _PUBLIC,
        command=commands[0],
        verify=commands[1],
    )


def _openssl(scheme: Scheme, content: str, signatures: Sequence[str]) -> str:
    if scheme.key_owner == "endpoint":
        wanted = " ".join(f"-e {shlex.quote(one)}" for one in signatures)
        form = "-binary" if scheme.encoding == "base64" else "-r"
        text = "base64" if scheme.encoding == "base64" else "cut -d' ' -f1"
        return (
            f'{content} \\\n  | openssl dgst -{scheme.digest} -mac HMAC -macopt "hexkey:{_HEX}" {form} \\\n'
            f"  | {text} | grep -qFx {wanted} && echo genuine || echo not genuine"
        )
    if scheme.key_kind == "ed25519":  # openssl wants a file of it
        begin = f'signed=$(mktemp) && {content} > "$signed"'
        verify = 'openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in "$signed" -sigfile'
        return "\n".join([begin, *(f"{verify} {_bytes(text)}" for text in signatures), 'rm "$signed"'])
    verify = f"openssl dgst -{scheme.digest} -verify public.pem -signature"
    return "\n".join(f"{content} | {verify} {_bytes(text)}" for text in signatures)


def _bytes(signature: str) -> str:
    return f"<(printf %s {shlex.quote(signature)} | base64 -d)"
