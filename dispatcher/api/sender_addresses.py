"""`/v1/sender_addresses`: what we send from, for receivers' allow lists."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from dispatcher.api.context import CallerOf, ContextOf, Page, reply, whole

router = APIRouter(prefix="/v1/sender_addresses", tags=["profiles"])


class SenderAddress(BaseModel):
    """An address, or a network."""

    address: str = Field(examples=["192.0.2.0/28"])


@router.get("", response_model=Page[SenderAddress])
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """The addresses that deliveries come from, as the operator has stated them."""
    return reply(whole([{"address": address} for address in context.settings.egress_addresses]))
