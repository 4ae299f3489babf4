"""What the probes answer."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import TypedDict

from dispatcher.shapes.about import About


class Liveness(TypedDict):
    """The process lives."""

    status: Annotated[Literal["ok"], About(example="ok")]


class Readiness(TypedDict):
    """What this process can serve."""

    status: Annotated[Literal["ok"], About(example="ok")]
    schema: Annotated[str, About("The database schema's version.", "0006")]
    writes: Annotated[
        bool, About("False if the database can only be read: events and changes are answered with 503.", True)
    ]
    reason: Annotated[str | None, About("Why nothing can be written; null if it can.", None)]
