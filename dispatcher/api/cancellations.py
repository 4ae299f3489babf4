"""`/v1/cancellations`: the end of deliveries that wait, chosen by a filter."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field

from dispatcher.api.context import ContextOf, OnceOf, Replayer, TenantId
from dispatcher.api.replays import OF_PREVIEW, Chosen, Preview, Replay, filter_of, previewed, started

router = APIRouter(prefix="/v1/cancellations", tags=["cancellations"])


class ChosenWaiting(Chosen):
    """Which deliveries: of those that wait, what all that is given chooses."""

    status: Literal["waiting"] | None = Field(default=None, description="No other can be.", examples=["waiting"])


class NewCancellation(ChosenWaiting):
    """What is to be cancelled: what a preview showed, or what is chosen here; if both are given, both are the same."""

    preview_token: str | None = Field(
        default=None, description=OF_PREVIEW, examples=["prv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d13"]
    )


@router.post("/preview", response_model=Preview)
async def preview(
    asked: ChosenWaiting, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """What a cancellation would do now. Nothing is done; the token has exactly this done, once, within an hour."""
    return await previewed(context, caller, once, filter_of(asked, caller, tenant_id), kind="cancellation")


@router.post("", status_code=202, response_model=Replay)
async def create(
    asked: NewCancellation, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Ends deliveries that wait, without sending them: those that a preview showed, or that are chosen.

    A preview starts one cancellation: a second start is 409 with the code PREVIEW_USED, and names the first.

    What is in flight cannot be called back; if it comes back to wait, it ends then. How far it is, and a pause, are at
    `/v1/replays/{id}`.
    """
    return await started(context, caller, once, asked, tenant_id, token=asked.preview_token, kind="cancellation")
