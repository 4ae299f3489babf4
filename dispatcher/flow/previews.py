"""Previews: what was previewed is kept for an hour under a token, so that exactly that can be started, once.

The token is the id of the row, `prv_…`. It tells nothing, and counts only for who has previewed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dispatcher.errors import Conflict, InvalidInput
from dispatcher.flow.replay_choice import (
    Options,
    filter_from_stored,
    filter_to_stored,
    format_destination,
    parse_destination,
)
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.store import previews as store
from dispatcher.store.previews import StoredPreview

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter
    from dispatcher.store.replays import Kind

LIFETIME: Final = timedelta(hours=1)

POINTER: Final = "/preview_token"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a token stands for: the filter as it was previewed, of which it chose so many, done in just this way."""

    kind: Kind
    filter: Filter
    count: int
    options: Options = field(default_factory=Options)


def keep(connection: Connection, promise: Promise, *, own: UUID | None, now: datetime) -> tuple[str, datetime]:
    """The token, and until when it counts; only for who has previewed: the tenant `own`, None for an operator."""
    preview = StoredPreview(
        id=uuid7(now),
        tenant_id=own,
        kind=promise.kind,
        filter=filter_to_stored(promise.filter),
        options=asdict(promise.options) | {"goes_to": format_destination(promise.options.goes_to)},
        count=promise.count,
        expires_at=now + LIFETIME,
    )
    store.add(connection, preview)
    return format_id("prv", preview.id), preview.expires_at


def take(connection: Connection, token: str, *, kind: Kind, own: UUID | None, now: datetime) -> tuple[UUID, Promise]:
    """The preview's id and what it stands for; locked until the transaction ends, in which `use` has to follow.

    Raises InvalidInput for a token that is malformed, of another kind, too old or, told apart by nothing, of nobody or
    of another caller's tenant, and Conflict for one that has started something already.
    """
    preview_id = parse_id("prv", token, pointer=POINTER)
    preview = store.lock(connection, preview_id)
    if preview is None or preview.tenant_id != own:
        raise _refusal("an unknown or expired preview_token")
    if preview.kind != kind:
        raise _refusal(f"the token of a preview of a {preview.kind}")
    if preview.replay_id is not None:
        started = format_id("rpl", preview.replay_id)
        raise Conflict(f"{token} has started {started} already; allowed: a new preview", code="PREVIEW_USED")
    if preview.expires_at <= now:
        raise _refusal("a token that is older than an hour")
    options = Options(**preview.options | {"goes_to": parse_destination(preview.options["goes_to"])})
    return preview.id, Promise(preview.kind, filter_from_stored(preview.filter), preview.count, options)


def use(connection: Connection, preview_id: UUID, replay_id: UUID) -> None:
    """Notes what the preview has started. It starts nothing else."""
    store.use(connection, preview_id, replay_id)


def is_same(previewed: Filter, chosen: Filter) -> bool:
    """Whether the filter is the one that was previewed, but for the instant that was frozen."""
    return replace(filter_from_stored(filter_to_stored(chosen)), as_of=previewed.as_of) == previewed


def _refusal(found: str) -> InvalidInput:
    return InvalidInput(POINTER, found, "one of the same resource, at most an hour old")
