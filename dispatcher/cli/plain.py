"""Output where the encoding lacks our characters: plain marks and escapes rather than a traceback."""

from __future__ import annotations

import codecs
import io
import sys
from encodings import ascii as ascii_codec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

MARKS: Final = {
    "✓": "+",
    "✗": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "→": "->",
    "►": ">",
    "▲": "^",
    "·": ".",
    "•": "*",
    "×": "x",
    "µ": "u",
    "≤": "<=",
    "≥": ">=",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    **dict(zip("─│├┤┼┌┐└┘", "-|+++++++", strict=True)),
    **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#", strict=True)),
    **dict(zip("░▒▓", ".+%", strict=True)),
}
"""What stands for the characters that we print ourselves. Every other one is escaped, as é by \\xe9."""

_HANDLER: Final = "dispatcher.plain"
_ASCII: Final = "dispatcher-ascii"
_DEFAULTS: Final = frozenset({"strict", "backslashreplace", "surrogateescape"})
"""Error handlers that Python chooses by itself; the last in the locale C, where it takes nothing but ASCII either."""


def set_up() -> None:
    """Have standard output and error take every text, whatever their encoding. An error handler of the user's stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _DEFAULTS:
            # click takes a stream named ascii for misconfigured and writes UTF-8 to it, past this handler.
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_HANDLER)


def has_every_character(stream: TextIO) -> bool:
    """Whether the stream's encoding is one of Unicode's. A stream without an encoding keeps text as it is."""
    return not stream.encoding or codecs.lookup(stream.encoding).name.startswith("utf")


def shown(text: str, stream: TextIO) -> str:
    """Text as the stream shows it: what its encoding lacks is a mark or an escape already, so that it can be measured.

    >>> shown("a → b", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    'a -> b'
    """
    if has_every_character(stream):
        return text
    return text.encode(stream.encoding, _HANDLER).decode(stream.encoding)


def escaped(text: str, stream: TextIO) -> str:
    """Data as the stream can hold it: no mark stands for a character, each that is missing is escaped."""
    if has_every_character(stream):
        return text
    return text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(MARKS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in found), error.end


def _find(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    codec = ascii_codec.getregentry()
    return codecs.CodecInfo(
        name=_ASCII,
        encode=codec.encode,
        decode=codec.decode,
        incrementalencoder=codec.incrementalencoder,
        incrementaldecoder=codec.incrementaldecoder,
        streamreader=codec.streamreader,
        streamwriter=codec.streamwriter,
    )


codecs.register(_find)
codecs.register_error(_HANDLER, _replace)
