"""The names that profiles may use in the tests, and how to read one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.profiles import Known
from dispatcher.profiles.profile_file import Reading, read_profile
from dispatcher.retry import load_catalog, shipped_schedules_dir
from dispatcher.signing import SCHEMES

KNOWN = Known(schedules=load_catalog(shipped_schedules_dir()), schemes=SCHEMES)


def read(content: bytes | str, name: str = "mine") -> Reading:
    content = content.encode() if isinstance(content, str) else content
    return read_profile(name, content, where="mine.toml", known=KNOWN)


def toml(document: Mapping[str, Any]) -> str:
    """A document of a profile as a file."""
    lines = [f"{key} = {value(item)}" for key, item in document.items() if not isinstance(item, Mapping)]
    for table, content in document.items():
        if isinstance(content, Mapping):
            lines.append(f"[{table}]")
            lines += [f"{key} = {value(item)}" for key, item in content.items()]
    return "\n".join(lines) + "\n"


def value(item: object) -> str:
    match item:
        case bool():
            return str(item).lower()
        case Mapping():
            return "{" + ", ".join(f"{key} = {value(one)}" for key, one in item.items()) + "}"
        case list():
            return "[" + ", ".join(map(value, item)) + "]"
        case str():
            return f'"{item}"'
        case _:
            return str(item)
