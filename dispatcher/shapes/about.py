"""What a shape says of a value beside its type: what it means, an example, and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

NO_EXAMPLE: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class About:
    """Stands in `Annotated`, and is read by pydantic, which calls the methods below; nothing here imports it.

    The limits hold for what the API takes; lengths count characters, items or members. `document` is more of JSON
    Schema that is only said, never checked, or a function that returns it when the document is made.
    """

    description: str | None = None
    example: Any = NO_EXAMPLE
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    ge: float | None = None
    le: float | None = None
    one_of: Sequence[str] | None = None
    document: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """The schema of the type, with our limits. A number is a finite one: JSON has no other."""
        if self.one_of is not None:
            return {"type": "literal", "expected": [*self.one_of]}
        schema = handler(source)
        limited = schema["schema"] if schema["type"] == "nullable" else schema
        for name in ("pattern", "min_length", "max_length", "ge", "le"):
            if (limit := getattr(self, name)) is not None:
                limited[name] = limit
        if limited["type"] == "float":
            limited["allow_inf_nan"] = False
        return schema

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The same for the document."""
        said = dict(handler(schema))
        for part in said.get("anyOf", ()):  # what is said of a type holds for the member that may also be null
            for name in ("description", "examples"):
                if name in part:
                    said.setdefault(name, part.pop(name))
        if self.description is not None:
            said["description"] = self.description
        if self.example is not NO_EXAMPLE:
            said["examples"] = [self.example]
        if self.document is not None:
            more = self.document() if callable(self.document) else self.document
            limited = next((part for part in said.get("anyOf", ()) if part.get("type") != "null"), said)
            limited.update(more)
        return said


@dataclass(frozen=True, slots=True)
class FirstThatFits:
    """Has the members of a union tried in their order, so that `Shape | Any` passes what does not have the shape.

    The document shows the first one only: the shape of a value that will do.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """The union's schema, in that mode."""
        return handler(source) | {"mode": "left_to_right"}

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], Any]) -> Any:
        """The first member's part of the document."""
        return handler(core_schema)["anyOf"][0]


def request(shape: type[T]) -> type[T]:
    """Has the API refuse what the shape does not have, and values of another type than it says."""
    shape.__pydantic_config__ = {"extra": "forbid", "strict": True}  # type: ignore[attr-defined]
    return shape
