"""Many rows as one parameter: JSON, which the server unpacks by json_to_recordset."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import orjson


def _other(value: object) -> str:
    """What orjson does not take for one: a subclass, such as freezegun's datetime, pendulum's, or asyncpg's UUID."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError


def to_json(rows: object) -> str:
    """The rows as JSON text."""
    return orjson.dumps(rows, default=_other).decode()
