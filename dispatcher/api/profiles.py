"""`/v1/profiles`: which providers this installation can be."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from dispatcher.api.context import CallerOf, ContextOf, Page, reply, whole
from dispatcher.errors import NotFound
from dispatcher.profiles import Profile, as_document

router = APIRouter(prefix="/v1/profiles", tags=["profiles"])


class ProfileOut(BaseModel):
    """A profile; `document` is what its file says, with every field that was left out."""

    name: str = Field(examples=["terminal"])
    default: bool = Field(description="Whether it is that of tenants and endpoints that name none.", examples=[False])
    document: dict[str, Any] = Field(examples=[{"description": "HTTPS that answers a ping", "deadline_s": 15.0}])


@router.get("", response_model=Page[ProfileOut])
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """The profiles, by name."""
    default = context.settings.default_profile
    return reply(whole([_form(profile, default) for _, profile in sorted(context.profiles.items())]))


@router.get("/{name}", response_model=ProfileOut)
async def show(
    name: Annotated[str, Path(description="The profile's name.", max_length=200, examples=["terminal"])],
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001
) -> Response:
    """One profile."""
    profile = context.profiles.get(name)
    if profile is None:
        raise NotFound("there is no such profile")
    return reply(_form(profile, context.settings.default_profile))


def _form(profile: Profile, default: str) -> dict[str, Any]:
    return {"name": profile.name, "default": profile.name == default, "document": as_document(profile)}
