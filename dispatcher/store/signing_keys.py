"""The statements that keep the platform's own signing keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

_COLUMNS = """
id, kind, public, sealed, created_at, signs_from, nullif(signs_until, 'infinity') AS signs_until,
nullif(published_until, 'infinity') AS published_until
"""
_ORDER = "ORDER BY signs_from DESC, created_at DESC, id"

_LOCK = text("LOCK TABLE dispatcher.signing_keys IN SHARE ROW EXCLUSIVE MODE")

_ADD = text("""
INSERT INTO dispatcher.signing_keys (id, kind, public, sealed, created_at, signs_from, signs_until, published_until)
VALUES (:id, :kind, :public, :sealed, :created_at, :signs_from,
        coalesce(CAST(:signs_until AS timestamptz), 'infinity'),
        coalesce(CAST(:published_until AS timestamptz), 'infinity'))
""")

_SET_ENDS = text("""
UPDATE dispatcher.signing_keys
SET signs_until = coalesce(CAST(:signs_until AS timestamptz), 'infinity'),
    published_until = coalesce(CAST(:published_until AS timestamptz), 'infinity')
WHERE id = :id
""")

_LIST = text(f"""
SELECT {_COLUMNS} FROM dispatcher.signing_keys
WHERE CAST(:kind AS text) IS NULL OR kind = :kind
{_ORDER}
""")

_PUBLISHED = text(f"""
SELECT {_COLUMNS} FROM dispatcher.signing_keys
WHERE created_at <= coalesce(CAST(:now AS timestamptz), statement_timestamp())
  AND published_until > coalesce(CAST(:now AS timestamptz), statement_timestamp())
{_ORDER}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A platform's key with its three windows.

    It is published from `created_at` until `published_until` and signs from `signs_from` until `signs_until`; the
    ends are the first instants after, None where none is planned. `public` is SubjectPublicKeyInfo in DER, `id` its
    thumbprint; `sealed` is the private half.
    """

    id: str
    kind: Literal["rsa", "ed25519"]
    public: bytes
    sealed: str = field(repr=False)
    created_at: datetime
    signs_from: datetime
    signs_until: datetime | None = None
    published_until: datetime | None = None

    def signs(self, at: datetime) -> bool:
        """Whether it signs what is sent at that instant."""
        return self.signs_from <= at and (self.signs_until is None or at < self.signs_until)

    def signs_after(self, at: datetime) -> bool:
        """Whether there is an instant later than that one, or that one itself, at which it signs."""
        return self.signs_until is None or max(at, self.signs_from) < self.signs_until

    def is_published(self, at: datetime) -> bool:
        """Whether receivers find its public half at that instant."""
        return self.created_at <= at and (self.published_until is None or at < self.published_until)


def lock(connection: Connection) -> None:
    """Has changes of the keys take turns until the transaction ends; who reads them does not wait.

    Of the table, since the first two keys of a kind have no row in common.
    """
    connection.execute(_LOCK)


def add(connection: Connection, key: SigningKey) -> None:
    """Inserts the key, whose id must be new."""
    connection.execute(
        _ADD,
        {
            "id": key.id,
            "kind": key.kind,
            "public": key.public,
            "sealed": key.sealed,
            "created_at": key.created_at,
            "signs_from": key.signs_from,
            "signs_until": key.signs_until,
            "published_until": key.published_until,
        },
    )


def set_ends(connection: Connection, key: SigningKey) -> None:
    """Writes the two ends of the key's windows, all that ever changes of it."""
    connection.execute(
        _SET_ENDS, {"id": key.id, "signs_until": key.signs_until, "published_until": key.published_until}
    )


def list_(connection: Connection, *, kind: str | None = None) -> list[SigningKey]:
    """Every key, those too that are published no more; the newest `signs_from` first."""
    return [SigningKey(**row) for row in connection.execute(_LIST, {"kind": kind}).mappings()]


def published(connection: Connection, *, now: datetime | None = None) -> list[SigningKey]:
    """The keys that are published now, the newest `signs_from` first."""
    return [SigningKey(**row) for row in connection.execute(_PUBLISHED, {"now": now}).mappings()]
