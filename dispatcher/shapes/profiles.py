"""Profiles: the rules of a payment system."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import Paged


class Profile(TypedDict):
    """A profile; `document` is its file with all defaults filled in."""

    name: Annotated[str, About(example="terminal")]
    default: Annotated[bool, About("True for the profile of tenants and endpoints that do not name one.", False)]
    document: Annotated[dict[str, Any], About(example={"description": "HTTPS that answers a ping", "deadline_s": 15.0})]


class ProfilePage(Paged):
    """All profiles."""

    data: list[Profile]
