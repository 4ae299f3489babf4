"""Where each value of a TOML document stands, which tomllib does not tell; and what it might not read."""

from __future__ import annotations

import re
import tomllib
from typing import Final

# One token of a *valid* document; of another one, up to its fault. A multi-line string may end in up to five quotes,
# of which the last three close it (TOML 1.0, String).
_TOKEN: Final = re.compile(
    r'''
    (?P<string> """(?:\\.|[^\\])*?"{3,5} | \'{3}.*?\'{3,5} | "(?:\\.|[^"\\])*" | '[^']*' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<punctuation> [\[\]{}=,] )
    | (?P<space> [ \t\r]+ )
    | (?P<bare> [^\s"'\#\[\]{}=,]+ )
    | (?P<unclosed> ["'] .* )
    ''',
    re.VERBOSE | re.DOTALL,
)


MAX_DEPTH: Final = 16
"""How deep arrays and inline tables may nest. No data file needs more than three."""

MAX_DIGITS: Final = 300
"""Of a number. Python reads integers of 4,300 digits, unless it was told otherwise."""


def beyond_limits(text: str) -> tuple[str, int] | None:
    r"""What in the text a parser might not read on every interpreter, and its line, from 1; None if there is nothing.

    >>> beyond_limits("a = [1]\nb = " + "[" * 17)
    ('arrays or tables nested too deeply', 2)
    """
    depth = 0
    line = 1
    for token in _TOKEN.finditer(text):
        found = token.group()
        if found in ("[", "{"):
            depth += 1
        elif found in ("]", "}"):
            depth -= 1
        if depth > MAX_DEPTH:
            return "arrays or tables nested too deeply", line
        if token.lastgroup == "bare" and sum(map(str.isdigit, found)) > MAX_DIGITS:
            return f"a number of more than {MAX_DIGITS} digits", line
        line += found.count("\n")
    return None


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
    """The name in `[name]` or `[[name]]`; empty for any other line."""
    return header.strip("[]") if header.startswith("[") else ""


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"])
