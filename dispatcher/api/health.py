"""`/healthz` and `/readyz`: whether the process lives, and whether its database can be read and written."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from dispatcher.api.context import ContextOf, reply
from dispatcher.errors import Unavailable
from dispatcher.store import migrate

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


class Readiness(BaseModel):
    """What this process can do."""

    status: Literal["ok"] = Field(examples=["ok"])
    schema_: str = Field(alias="schema", description="The database schema's version.", examples=["0006"])
    writes: bool = Field(
        description="False where the database can only be read: events and changes are answered with 503.",
        examples=[True],
    )
    reason: str | None = Field(description="Why nothing can be written; null where it can.", examples=[None])


@router.get("/readyz", response_model=Readiness)
async def readyz(context: ContextOf) -> Response:
    """The database answers and has the schema that this version needs; 503 otherwise."""
    revision, reason = await context.transaction(
        lambda connection: (migrate.current(connection), migrate.why_read_only(connection)), engine=context.lookups
    )
    if not migrate.serves(revision):
        raise Unavailable(f"the database's schema is at {revision}; this version needs {migrate.head()}")
    return reply({"status": "ok", "schema": str(revision), "writes": reason is None, "reason": reason})
