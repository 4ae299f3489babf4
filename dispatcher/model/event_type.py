"""How event types are written, and the patterns that choose among them."""

from __future__ import annotations

from typing import Final

MAX_LENGTH: Final = 128
"""Characters of a type or a pattern."""

TYPE: Final = r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*$"
"""A type, such as `payment.completed`."""

TYPE_OR_FAMILY: Final = r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*(\.\*)?$"
"""A type, or all types of a family: `payment.*`."""

TYPE_FAMILY_OR_ALL: Final = r"^(\*|[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*(\.\*)?)$"
"""The same, or `*` for every type."""
