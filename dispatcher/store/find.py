"""The statements that find endpoints by where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from dispatcher.store.log import HOST_OF

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

_PORT_OF = r"""
coalesce(CAST(substring(e.url FROM '^[A-Za-z]+://(?:[^/?#@]*@)?(?:\[[^]]*\]|[^/:?#]+):([0-9]{1,5})(?:[/?#]|$)')
              AS integer),
         CASE WHEN e.url ~* '^http:' THEN 80 ELSE 443 END)
"""
"""Of an endpoint `e`: the port that its URL names, or that of its scheme."""

_AT = text(f"""
SELECT e.id FROM dispatcher.endpoints e
WHERE e.status <> 'deleted' AND (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
  AND (e.url = :url
       OR ({HOST_OF} = lower(CAST(:host AS text))
           AND (CAST(:port AS integer) IS NULL OR {_PORT_OF} = :port)))
ORDER BY e.id DESC LIMIT :limit
""")

_IS_TARGET = text("""
SELECT EXISTS (SELECT FROM dispatcher.endpoints e
               WHERE e.origin IS NOT NULL AND starts_with(:url, e.origin)
                 AND (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id))
""")


def endpoints_at(
    connection: Connection, *, url: str, host: str | None, port: int | None, tenant_id: UUID | None, limit: int
) -> list[UUID]:
    """The endpoints with this URL, or at this host and port if they are given; the newest first. Of a tenant, or all.

    Reads the tenant's endpoints by the index endpoints_tenant, or all there are: a host has no index.
    """
    values = {"url": url, "host": host, "port": port, "tenant_id": tenant_id, "limit": limit}
    return list(connection.execute(_AT, values).scalars())


def is_target(connection: Connection, *, url: str, tenant_id: UUID | None) -> bool:
    """Whether a target of any event was where this URL is. Of a tenant, or of all."""
    found: bool = connection.execute(_IS_TARGET, {"url": url, "tenant_id": tenant_id}).scalar_one()
    return found
