"""Preview tokens: what was previewed, written down and authenticated, so that exactly that can be asked for later.

A token is `<key id>.<document>.<tag>`, the last two in base64url. The tag is HMAC-SHA256 by a key derived from the
keyring's for this alone. Nothing is kept of it here.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.flow.replay import Options, from_dict, goes_to, to_dict, written
from dispatcher.signing import SealError

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.signing import Keyring
    from dispatcher.store.log import Filter
    from dispatcher.store.replays import Kind

LIFETIME: Final = timedelta(hours=1)

PURPOSE: Final = "dispatcher preview token v1"
"""What the key is derived for."""

POINTER: Final = "/preview_token"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a token asks for: the filter as it was previewed, of which it chose so many, done in just this way."""

    kind: Kind
    filter: Filter
    count: int
    options: Options = field(default_factory=Options)


def seal(keyring: Keyring, promise: Promise, *, own: UUID | None, now: datetime) -> tuple[str, datetime]:
    """The token, and until when it counts; only for who has previewed: the tenant `own`, None for an operator."""
    until = now + LIFETIME
    document = orjson.dumps(
        {
            "kind": promise.kind,
            "filter": to_dict(promise.filter),
            "count": promise.count,
            "options": asdict(promise.options) | {"goes_to": written(promise.options.goes_to)},
            "own": None if own is None else str(own),
            "until": until.isoformat(),
        }
    )
    key_id = keyring.active_id
    return ".".join((key_id, _encode(document), _encode(_tag(keyring, key_id, document)))), until


def read(keyring: Keyring, token: str, *, kind: Kind, own: UUID | None, now: datetime) -> Promise:
    """What the token asks for.

    Raises InvalidInput for one that is not ours, of another kind, of another caller's tenant, or too old.
    """
    key_id, _, rest = token.partition(".")
    document, tag = (_decode(part) for part in (rest.partition(".")[0], rest.partition(".")[2]))
    try:
        is_ours = hmac.compare_digest(tag, _tag(keyring, key_id, document))
    except SealError:
        is_ours = False
    if not is_ours:
        raise _refusal("a text that is no token of ours")
    found = orjson.loads(document)
    if found["kind"] != kind or found["own"] != (None if own is None else str(own)):
        raise _refusal("a token of another preview")
    if datetime.fromisoformat(found["until"]) <= now:
        raise _refusal("a token that is older than an hour")
    options = Options(**found["options"] | {"goes_to": goes_to(found["options"]["goes_to"])})
    return Promise(found["kind"], from_dict(found["filter"]), found["count"], options)


def is_same(previewed: Filter, chosen: Filter) -> bool:
    """Whether the filter is the one that was previewed, but for the instant that was frozen."""
    return replace(from_dict(to_dict(chosen)), as_of=previewed.as_of) == previewed


def _refusal(found: str) -> InvalidInput:
    return InvalidInput(POINTER, found, "a preview_token of the same resource's preview, of the last hour")


def _tag(keyring: Keyring, key_id: str, document: bytes) -> bytes:
    return hmac.digest(keyring.derive(PURPOSE, key_id=key_id), document, "sha256")


def _encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """What is written in base64url; nothing, for what is not."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
