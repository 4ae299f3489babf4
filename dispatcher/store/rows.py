"""Many rows as one parameter: JSON, which the server unpacks by json_to_recordset."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
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


def to_ascii_json(rows: object) -> str:
    r"""The same in ASCII, for a producer's connection: its client_encoding may lack characters of the rows.

    >>> to_ascii_json(["€𝄞"])
    '["\\u20ac\\ud834\\udd1e"]'
    """
    text = to_json(rows)
    return text if text.isascii() else _OTHER.sub(_escaped, text)


_OTHER: Final = re.compile(r"[^\x00-\x7f]")


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))
