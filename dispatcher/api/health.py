"""`/healthz` and `/readyz`: whether the process lives, and whether its database can be read and written."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dispatcher.api.context import ContextOf, reply
from dispatcher.errors import Unavailable
from dispatcher.shapes import Liveness, Readiness
from dispatcher.store import migrate

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Liveness:
    """Check that the process is alive."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness)
async def readyz(context: ContextOf) -> Response:
    """Check that the database answers and has the schema that this version needs. Otherwise the status is 503."""
    revision, reason = await context.transaction(
        lambda connection: (migrate.current(connection), migrate.why_read_only(connection)), engine=context.lookups
    )
    if not migrate.serves(revision):
        raise Unavailable(f"the database's schema is at {revision}; this version needs {migrate.head()}")
    found: Readiness = {"status": "ok", "schema": str(revision), "writes": reason is None, "reason": reason}
    return reply(found)
