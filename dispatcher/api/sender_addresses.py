"""`/v1/sender_addresses`: what we send from, for receivers' allow lists."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dispatcher.api.caller import CallerOf
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import whole
from dispatcher.shapes import SenderAddressPage

router = APIRouter(prefix="/v1/sender_addresses", tags=["profiles"])


@router.get("", response_model=SenderAddressPage)
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """List the addresses that deliveries come from, as the operator has stated them."""
    return reply(whole([{"address": address} for address in context.settings.egress_addresses]))
