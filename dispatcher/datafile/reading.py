"""A data file's text: what is wrong with it, what in it is doubtful, and on which line."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from dispatcher.datafile.toml_lines import MAX_DEPTH, MAX_DIGITS, beyond_limits, locate
from dispatcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

MAX_FILE_BYTES: Final = 64 * 1024
MAX_TEXT_CHARACTERS: Final = 1_000

NAME_SYNTAX: Final = "a-z, 0-9, - and _, at most 63 of them, the first a letter or a digit"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)

_AT_LINE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_TABLE: Final = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")


@dataclass(frozen=True, slots=True)
class LintWarning:
    """Something allowed but doubtful. `line` counts from 1, None where the doubt is about what is absent."""

    where: str
    field: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        return f"{place}: {self.field}: {self.text}"


@dataclass(slots=True)
class Reading:
    """What came of reading one file. A kind of file adds what it declares, None exactly if there are `problems`."""

    where: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[LintWarning] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def refuse(self, field: str, found: str, allowed: str, *, line: int | None = None, hint: str = "") -> None:
        """Note a problem; the line is the field's own, else its array's or its table's, unless given."""
        self.problems.append(Problem(self.where, field, found, allowed, line or self._line_of(field), hint))

    def doubt(self, field: str, text: str) -> None:
        """Note a warning."""
        self.warnings.append(LintWarning(self.where, field, text, self.lines.get(field)))

    def _line_of(self, field: str) -> int | None:
        places = [field, field.partition("[")[0]]
        while "." in places[-1]:
            places.append(places[-1].rpartition(".")[0])
        return next((self.lines[place] for place in places if place in self.lines), None)


def is_name(text: str) -> bool:
    """Whether a data file may be called `text`: see NAME_SYNTAX."""
    return _NAME.fullmatch(text) is not None


def parse(reading: Reading, name: str, content: bytes, *, fields: Collection[str]) -> dict[str, Any] | None:
    """The file as a dictionary, or None after refusing it. A bad name is refused too.

    `fields` are the dotted names of what may stand in it; a syntax error on such a field's line names the field.
    """
    if not is_name(name):
        reading.refuse("", f"the name {shown(name)}", NAME_SYNTAX)
    if len(content) > MAX_FILE_BYTES:
        reading.refuse("", f"a file of more than {MAX_FILE_BYTES:,} bytes", f"at most {MAX_FILE_BYTES:,} bytes")
        return None
    for bad, found, allowed in ((b"\xef\xbb\xbf", "a byte order mark", "UTF-8 without"), (b"\0", "a NUL byte", "text")):
        if bad in content:
            reading.refuse("", found, allowed, line=_line_at(content, content.index(bad)))
            return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        reading.refuse("", f"byte 0x{content[error.start]:02x}", "UTF-8", line=_line_at(content, error.start))
        return None
    if not text.strip():
        reading.refuse("", "an empty file", f"a TOML file with the fields {', '.join(fields)}")
        return None
    if beyond := beyond_limits(text):
        found, at = beyond
        allowed = f"at most {MAX_DEPTH} levels and {MAX_DIGITS} digits"
        reading.refuse(_field_on(text, at, fields), found, allowed, line=at)
        return None
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # also for a day 32
        message, line = _syntax_error(error, text)
        reading.refuse(_field_on(text, line, fields), message, "TOML 1.0", line=line)
        return None
    reading.lines = locate(text)
    return document


def refuse_unknown(
    reading: Reading,
    found: Iterable[str],
    allowed: Collection[str],
    *,
    document: str,
    table: str = "",
    elsewhere: Iterable[str] = (),
) -> None:
    """Refuse each key of `found` that is not among `allowed`, all of `table` (empty: of the file itself).

    The nearest name is the hint; where none is near, `document`, which lists the fields. `elsewhere` are dotted names
    of other tables: a key that belongs there is answered with its place.
    """
    prefix = f"{table}." if table else ""
    for key in found:
        if key not in allowed:
            places = [name for name in elsewhere if name.rpartition(".")[2] == key]
            near = places[0] if places else nearest_name(key, allowed)
            hint = f"did you mean {near}?" if near else f"{document} lists the fields"
            line = reading.lines.get(prefix + key)
            reading.refuse(prefix + shown_key(key), "an unknown field", "", line=line, hint=hint)


def text_of(reading: Reading, key: str, value: object, *, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Text for people, stripped; empty after refusing it."""
    allowed = f"text of at most {limit:,} characters"
    match value:
        case str() as text if len(text) > limit:
            reading.refuse(key, f"{len(text):,} characters", allowed)
        # Descriptions reach terminals and the web page: an escape sequence has no business there.
        case str() as text if not all(character.isprintable() or character == "\n" for character in text):
            reading.refuse(key, "a control character", allowed)
        case str() as text:
            return text.strip()
        case other:
            reading.refuse(key, shown(other), allowed)
    return ""


def nearest(found: object, allowed: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A question after the likeliest of `allowed`, to end a sentence; empty where none is near.

    >>> nearest("standrad", ["standard", "exponential"])
    ' (did you mean standard?)'
    """
    near = nearest_name(found, allowed, cutoff=cutoff)
    return f" (did you mean {near}?)" if near else ""


def nearest_name(found: object, allowed: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The likeliest of `allowed`; empty where none is near."""
    near = get_close_matches(found, list(allowed), n=1, cutoff=cutoff) if isinstance(found, str) else []
    return near[0] if near else ""


def shown(value: object) -> str:
    """A value on one line, cut, escaped for terminals, after its type where that is the surprise."""
    match value:
        case str():
            return _cut(ascii(value))
        case dict():
            return "a table"
        case list():
            return "an array"
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > 256:  # str() of thousands of digits raises
            return "a huge number"
        case _:
            return _cut(str(value))


def all_problems(readings: Iterable[Reading]) -> Iterator[Problem]:
    """Every problem of every file, in the order of the files and, inside, of the lines."""
    for reading in readings:
        yield from sorted(reading.problems, key=lambda problem: problem.line or 0)


def _syntax_error(error: Exception, text: str) -> tuple[str, int | None]:
    """What tomllib says, and at which line. Python 3.11 to 3.13 give the line only at the message's end."""
    message = str(error)
    if message.endswith(" (at end of document)"):
        return message.removesuffix(" (at end of document)"), text.rstrip().count("\n") + 1
    if found := _AT_LINE.search(message):
        return f"{message[: found.start()]} in column {found[2]}", int(found[1])
    return message[:200], None


def _field_on(text: str, line: int | None, fields: Collection[str]) -> str:
    """The known field that stands on a line, so that a syntax error names it; else empty."""
    lines = text.splitlines()[:line] if line and line <= text.count("\n") + 1 else []
    key = lines[-1].partition("=")[0].strip() if lines else ""
    if header := next((found for before in reversed(lines) if (found := _TABLE.match(before))), None):
        key = f"{header[1]}.{key}"
    return key if key in fields else ""


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def shown_key(key: str) -> str:
    """A key on one line, cut, escaped for terminals where it must be."""
    return _cut(key if key.isprintable() else ascii(key))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
