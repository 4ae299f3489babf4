"""An Endpoint: a registered URL, and what it wants to hear."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from dispatcher.errors import InvalidInput
from dispatcher.model import event_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

_PATTERN = re.compile(event_type.TYPE_FAMILY_OR_ALL)


class EndpointStatus(StrEnum):
    """Whether deliveries are made. Those of a disabled endpoint are held, not dropped."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One signing secret as stored; `expires_at` is set while a rotation overlaps."""

    sealed: str
    expires_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """How it is kept."""
        return {"sealed": self.sealed, "expires_at": self.expires_at}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> SealedSecret:
        """What was kept."""
        expires_at = kept["expires_at"]
        return cls(kept["sealed"], None if expires_at is None else datetime.fromisoformat(expires_at))


def rotated(
    secrets: Iterable[SealedSecret], new: SealedSecret, *, now: datetime, overlap: timedelta
) -> tuple[SealedSecret, ...]:
    """The secrets behind a new one: those that sign now do so for `overlap` more, and no longer than they would."""
    kept = tuple(
        SealedSecret(old.sealed, min(old.expires_at or now + overlap, now + overlap))
        for old in secrets
        if overlap and (old.expires_at is None or old.expires_at > now)
    )
    return (new, *kept)


REGISTRATION_FIELDS: Final = (
    "name",
    "url",
    "description",
    "event_types",
    "metadata",
    "schedule",
    "signature",
    "auth",
    "headers",
    "method",
    "max_in_flight",
    "rate_limit",
    "ordered",
    "status",
)
"""What a registration may choose, besides the tenant and the profile. Each but `status` is a column that it writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered URL. `event_types` None means all; `secrets` has the newest first.

    `signature` are names of schemes, None those of the profile. `headers` and `auth` are sealed JSON: [[name, value]],
    and {type, username, password}. `rate_limit` is in attempts a second. `origin` is given for the implicit endpoint of
    a tenant's event targets: the URL stands on each delivery, and `secrets` are the tenant's.
    """

    id: UUID
    tenant_id: UUID
    url: str
    schedule: str
    profile: str = "default"
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    event_types: tuple[str, ...] | None = None
    method: str = "POST"
    max_in_flight: int = 64
    signature: tuple[str, ...] | None = None
    headers: str | None = None
    auth: str | None = None
    rate_limit: float | None = None
    ordered: bool = False
    origin: str | None = None
    secrets: tuple[SealedSecret, ...] = ()
    status: EndpointStatus = EndpointStatus.ACTIVE
    status_reason: str | None = None
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None


def validate_event_types(patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    """The patterns, if each is a type, `family.*` or `*`. Raises InvalidInput; an empty list is refused."""
    if patterns is None:
        return None
    if not patterns:
        raise InvalidInput("/event_types", "an empty list", "leave it out for all types, or name at least one")
    for n, pattern in enumerate(patterns):
        if len(pattern) > event_type.MAX_LENGTH or _PATTERN.fullmatch(pattern) is None:
            raise InvalidInput(f"/event_types/{n}", repr(pattern)[:80], "an event type, payment.* or *")
    return tuple(dict.fromkeys(patterns))


def like_patterns(patterns: Sequence[str] | None) -> list[str] | None:
    r"""The SQL LIKE patterns that match the same types; None for all.

    >>> like_patterns(["payment.*", "payout_sent"])
    ['payment.%', 'payout\\_sent']
    """
    if patterns is None or "*" in patterns:
        return None
    return [pattern.replace("_", r"\_").replace("*", "%") for pattern in patterns]
