"""The statements that find the ids within a range: those that begin with the same characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

from dispatcher.model.filter import Filter
from dispatcher.store.search import search

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

    from dispatcher.ids import IdRange, Prefix

_LARGEST: Final = UUID(int=(1 << 128) - 1)


def _statement(table: str, *, owner: str = "tenant_id", visible: str = "true") -> TextClause:
    return text(f"""
SELECT id FROM dispatcher.{table}
WHERE id BETWEEN :low AND :high AND (CAST(:tenant_id AS uuid) IS NULL OR {owner} = :tenant_id) AND {visible}
ORDER BY id DESC LIMIT :limit
""")


_IDS: Final[dict[Prefix, TextClause]] = {
    "evt": _statement("events"),
    "ep": _statement("endpoints", visible="status <> 'deleted'"),
    "rpl": _statement("replays"),
    "ten": _statement("tenants", owner="id"),
    "key": _statement("api_keys"),
    "pau": _statement("pauses"),
    "ers": _statement("erasures"),
}


_DELETED_ENDPOINTS: Final = _statement("endpoints", visible="status = 'deleted'")


def find_deleted(connection: Connection, ids: IdRange, *, tenant_id: UUID | None, limit: int) -> list[UUID]:
    """The newest ids of deleted endpoints in the range, as `find` finds those that exist."""
    values = {"low": ids.low, "high": ids.high, "tenant_id": tenant_id, "limit": limit}
    return list(connection.execute(_DELETED_ENDPOINTS, values).scalars())


def find(connection: Connection, ids: IdRange, *, tenant_id: UUID | None, limit: int) -> list[UUID]:
    """The newest ids of the range that exist: of one tenant or, if it is None, of all. Deleted endpoints do not count.

    Reads a range of the table's primary key; of a tenant's events the same range of the index events_tenant.
    Deliveries, live and ended, are found by `search`, which has indexes for one tenant's.
    """
    if ids.prefix == "dlv":
        return _deliveries(connection, ids, tenant_id, limit)
    values = {"low": ids.low, "high": ids.high, "tenant_id": tenant_id, "limit": limit}
    return list(connection.execute(_IDS[ids.prefix], values).scalars())


def _deliveries(connection: Connection, ids: IdRange, tenant_id: UUID | None, limit: int) -> list[UUID]:
    behind = None if ids.high == _LARGEST else UUID(int=ids.high.int + 1)
    found = search(connection, Filter(tenant_id=tenant_id), past=behind, until=ids.low, limit=limit)
    return [delivery.id for delivery in found]
