"""Where each value of a TOML document stands, which tomllib does not tell."""

from __future__ import annotations

import re
import tomllib
from typing import Final

# One token of a *valid* document: tomllib has judged it before. A multi-line string may end in up to five quotes,
# of which the last three close it (TOML 1.0, String).
_TOKEN: Final = re.compile(
    r'''
    (?P<string> """(?:\\.|[^\\])*?"{3,5} | \'{3}.*?\'{3,5} | "(?:\\.|[^"\\])*" | '[^']*' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<punctuation> [\[\]{}=,] )
    | (?P<space> [ \t\r]+ )
    | (?P<bare> [^\s"'\#\[\]{}=,]+ )
    ''',
    re.VERBOSE | re.DOTALL,
)


def locate(text: str) -> dict[str, int]:
    r"""The line, from 1, of each key and of each element of a top-level array in a valid TOML document.

    Keys are as written, tables dotted: `waits` is where the key stands, `waits[2]` where the third element starts.

    >>> locate('jitter = 0.0\nwaits = [\n  "0s",\n  "5s",\n]')
    {'jitter': 1, 'waits': 2, 'waits[0]': 3, 'waits[1]': 4}
    """
    lines: dict[str, int] = {}
    table = key = ""
    depth = element = 0
    in_value = at_element = False
    line = 1
    for token in _TOKEN.finditer(text + "\n"):
        kind, found = token.lastgroup, token.group()
        match kind:
            case "newline" if depth == 0:
                if table_name := _table_name(key) if not in_value else "":
                    table = table_name
                    _note(lines, table, line)
                key, in_value = "", False
            case "comment" | "space" | "newline":
                pass
            case _ if not in_value and found == "=":
                in_value, element = True, 0
                key = f"{table}.{key}" if table else key
                _note(lines, key, line)
            case _ if not in_value:
                key += _unquoted(found) if kind == "string" else found
            case _:
                if found in ("]", "}"):
                    depth -= 1
                elif depth == 1 and found == ",":
                    at_element = True
                elif at_element:
                    lines.setdefault(f"{key}[{element}]", line)
                    element += 1
                    at_element = False
                if found in ("[", "{"):
                    at_element = depth == 0 and found == "["
                    depth += 1
        line += found.count("\n")
    return lines


def _note(lines: dict[str, int], key: str, line: int) -> None:
    """Remember where `key` and the tables that it makes first stand."""
    while key:
        lines.setdefault(key, line)
        key = key.rpartition(".")[0]


def _table_name(header: str) -> str:
    """The name in `[name]` or `[[name]]`; empty for what is no header."""
    return header.strip("[]") if header.startswith("[") else ""


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"])
