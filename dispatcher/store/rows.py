"""Many rows as one parameter: JSON, which the server unpacks by json_to_recordset."""

from __future__ import annotations

from datetime import datetime

import orjson


def _other(value: object) -> str:
    """A datetime of a subclass, such as freezegun's or pendulum's, which orjson does not take for one."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError


def to_json(rows: object) -> str:
    """The rows as JSON text."""
    return orjson.dumps(rows, default=_other).decode()
