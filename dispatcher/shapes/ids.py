"""Short ids: the first characters of an id, and the ids that begin with them."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import EXAMPLE_UUID


class MatchingIds(TypedDict):
    """The ids that begin with the given characters."""

    ids: Annotated[list[str], About("At least one, the newest first.", [f"dlv_{EXAMPLE_UUID}"])]
    has_more: Annotated[bool, About("True if there are more than these.", False)]
