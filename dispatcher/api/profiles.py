"""`/v1/profiles`: which providers this installation can be."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from dispatcher.api.caller import CallerOf
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import whole
from dispatcher.errors import NotFound
from dispatcher.profiles import Profile as Loaded
from dispatcher.profiles import as_document
from dispatcher.shapes import Profile, ProfilePage

router = APIRouter(prefix="/v1/profiles", tags=["profiles"])


@router.get("", response_model=ProfilePage)
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """List the profiles, by name."""
    default = context.settings.default_profile
    return reply(whole([_form(profile, default) for _, profile in sorted(context.profiles.items())]))


@router.get("/{name}", response_model=Profile)
async def show(
    name: Annotated[str, Path(description="The profile's name.", max_length=200, examples=["terminal"])],
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001
) -> Response:
    """Get a profile."""
    profile = context.profiles.get(name)
    if profile is None:
        raise NotFound("there is no such profile")
    return reply(_form(profile, context.settings.default_profile))


def _form(profile: Loaded, default: str) -> Profile:
    return {"name": profile.name, "default": profile.name == default, "document": as_document(profile)}
