"""What the commands' arguments have in common: ids with their prefix, and times relative or absolute."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from dispatcher.clock import SYSTEM
from dispatcher.errors import InvalidInput
from dispatcher.ids import parse_id
from dispatcher.retry import parse_duration

if TYPE_CHECKING:
    from dispatcher.ids import Prefix


class Id(click.ParamType[UUID]):
    """`<prefix>_<uuid>`, as a UUID."""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix: Prefix = prefix
        self.name = f"{prefix}_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for what is no such id."""
        if not isinstance(value, str):
            return value
        try:
            return parse_id(self.prefix, value)
        except InvalidInput as error:
            self.fail(f"found {error.found}; allowed: {error.allowed}", param, ctx)


class Since(click.ParamType[datetime]):
    """An instant: RFC 3339 with a zone, or a duration before now such as `24h` or `7d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for what is neither."""
        if not isinstance(value, str):
            return value
        if re.fullmatch(r"(\d+(ms|s|m|h|d))+", value):
            try:
                return SYSTEM.now() - parse_duration(value)
            except (ValueError, OverflowError) as error:
                self.fail(str(error), param, ctx)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"found {value!r}; allowed: 24h, 7d, or an instant such as 2026-01-31T12:00:00Z", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
