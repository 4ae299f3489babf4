"""`/healthz` and `/readyz`: whether the process lives, and whether it can accept events."""

from __future__ import annotations

from fastapi import APIRouter

from dispatcher.api.context import ContextOf
from dispatcher.errors import Unavailable
from dispatcher.store import migrate

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(context: ContextOf) -> dict[str, str]:
    """The database answers and has the schema that this version needs; 503 otherwise."""
    revision = await context.transaction(migrate.current)
    if not migrate.serves(revision):
        raise Unavailable(f"the database's schema is at {revision}; this version needs {migrate.head()}")
    return {"status": "ok", "schema": str(revision)}
