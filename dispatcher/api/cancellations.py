"""`/v1/cancellations`: the end of deliveries that wait, chosen by a filter."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dispatcher.api.caller import Replayer, TenantId
from dispatcher.api.context import ContextOf
from dispatcher.api.once import OnceOf
from dispatcher.api.replays import chosen_of, previewed, started
from dispatcher.shapes import NewCancellation, Preview, Replay, WaitingFilter

router = APIRouter(prefix="/v1/cancellations", tags=["cancellations"])


@router.post("/preview", response_model=Preview)
async def preview(
    asked: WaitingFilter, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Preview a cancellation. Nothing is done; the token has exactly this done, once, within an hour."""
    return await previewed(
        context, caller, once, chosen_of(asked, caller, tenant_id, kind="cancellation"), kind="cancellation"
    )


@router.post("", status_code=202, response_model=Replay)
async def create(
    asked: NewCancellation, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Cancel waiting deliveries: those of a preview, or those that are chosen.

    A preview starts one cancellation: a second start is 409 with the code PREVIEW_USED, and names the first.

    What is in flight cannot be called back; if it comes back to wait, it ends then. How far it is, and a pause, are at
    `/v1/replays/{id}`.
    """
    return await started(context, caller, once, asked, tenant_id, kind="cancellation")
