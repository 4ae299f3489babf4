"""A schedule file's text: what it declares, everything wrong with it, and what in it is doubtful."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from dispatcher.errors import Problem
from dispatcher.retry.duration import DURATION_SYNTAX, format_duration, parse_duration
from dispatcher.retry.schedule import MAX_ATTEMPTS, MAX_TOTAL, MAX_WAIT, RELATIVE_TO, RetrySchedule
from dispatcher.retry.toml_lines import locate

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS: Final = ("description", "source", "relative_to", "waits", "jitter")
MAX_FILE_BYTES: Final = 64 * 1024
MAX_TEXT_CHARACTERS: Final = 1_000

NAME_SYNTAX: Final = "a-z, 0-9, - and _, at most 63 of them, the first a letter or a digit"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)

_AT_LINE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_HASTY: Final = timedelta(seconds=1)


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
    """What came of reading one file: `schedule` is None exactly if there are `problems`."""

    where: str
    schedule: RetrySchedule | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[LintWarning] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def refuse(self, field: str, found: str, allowed: str, *, line: int | None = None) -> None:
        """Note a problem; the line is the field's own, else its array's, unless given."""
        at = line or self.lines.get(field) or self.lines.get(field.partition("[")[0])
        self.problems.append(Problem(self.where, field, found, allowed, at))

    def doubt(self, field: str, text: str) -> None:
        """Note a warning."""
        self.warnings.append(LintWarning(self.where, field, text, self.lines.get(field)))


def is_name(text: str) -> bool:
    """Whether a schedule may be called `text`: see NAME_SYNTAX."""
    return _NAME.fullmatch(text) is not None


def read_schedule(name: str, content: bytes, *, where: str) -> Reading:
    """Read a schedule file's bytes. `where` is how problems name the file. Raises nothing."""
    reading = Reading(where)
    if not is_name(name):
        reading.refuse("", f"the name {_shown(name)}", NAME_SYNTAX)
    document = _document(reading, content)
    if document is not None:
        _read_fields(reading, name, document)
    return reading


def _document(reading: Reading, content: bytes) -> dict[str, Any] | None:
    """The file as a dictionary, or None after refusing it."""
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
        reading.refuse("", "an empty file", f"a TOML file with the fields {', '.join(FIELDS)}")
        return None
    try:
        document = tomllib.loads(text)
    # ValueError: an integer of thousands of digits, a day 32. RecursionError: arrays within arrays within …
    except (ValueError, RecursionError) as error:
        message, line = _syntax_error(error, text)
        reading.refuse(_key_on(text, line), message, "TOML 1.0", line=line)
        return None
    reading.lines = locate(text)
    return document


def _read_fields(reading: Reading, name: str, document: dict[str, Any]) -> None:
    for key in document:
        if key not in FIELDS:
            near = get_close_matches(key, FIELDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            reading.refuse(
                _shown_key(key), "an unknown field", f"{', '.join(FIELDS)}{hint}", line=reading.lines.get(key)
            )
    description = _text(reading, document, "description")
    source = _text(reading, document, "source")
    relative_to = _relative_to(reading, document.get("relative_to", "previous_failure"))
    waits = _waits(reading, document)
    jitter = _jitter(reading, document.get("jitter", 0.0))
    if relative_to == "first_attempt":
        _check_offsets(reading, waits)
    if reading.problems:
        return
    reading.schedule = RetrySchedule(
        name=name,
        waits=tuple(wait for wait in waits if wait is not None),
        relative_to="first_attempt" if relative_to == "first_attempt" else "previous_failure",
        jitter=jitter,
        description=description,
        source=source,
    )
    _lint(reading, reading.schedule)


def _text(reading: Reading, document: dict[str, Any], key: str) -> str:
    allowed = f"text of at most {MAX_TEXT_CHARACTERS:,} characters"
    match document.get(key, ""):
        case str() as text if len(text) > MAX_TEXT_CHARACTERS:
            reading.refuse(key, f"{len(text):,} characters", allowed)
        # Descriptions reach terminals and the web page: an escape sequence has no business there.
        case str() as text if not all(character.isprintable() or character == "\n" for character in text):
            reading.refuse(key, "a control character", allowed)
        case str() as text:
            return text.strip()
        case other:
            reading.refuse(key, _shown(other), allowed)
    return ""


def _relative_to(reading: Reading, value: object) -> str:
    if value in RELATIVE_TO:
        return str(value)
    near = get_close_matches(value, RELATIVE_TO, n=1, cutoff=0.4) if isinstance(value, str) else []
    hint = f" (did you mean {near[0]}?)" if near else ""
    reading.refuse("relative_to", _shown(value), " or ".join(f'"{allowed}"' for allowed in RELATIVE_TO) + hint)
    return ""


def _waits(reading: Reading, document: dict[str, Any]) -> list[timedelta | None]:
    """Each wait, None where it was refused."""
    allowed = f"1 to {MAX_ATTEMPTS} durations, one for each attempt: {DURATION_SYNTAX}"
    match document.get("waits"):
        case None:
            reading.refuse("waits", "nothing", allowed)
            return []
        case list() as found if 1 <= len(found) <= MAX_ATTEMPTS:
            waits = [_wait(reading, f"waits[{index}]", value) for index, value in enumerate(found)]
        case list() as found:
            reading.refuse("waits", f"{len(found)} waits", allowed)
            return []
        case other:
            reading.refuse("waits", _shown(other), allowed)
            return []
    total = sum((wait for wait in waits if wait is not None), timedelta(0))
    if total > MAX_TOTAL and document.get("relative_to") != "first_attempt":
        reading.refuse("waits", f"{format_duration(total)} in all", f"at most {format_duration(MAX_TOTAL)} in all")
    return waits


def _wait(reading: Reading, key: str, value: object) -> timedelta | None:
    limit = f"at most {format_duration(MAX_WAIT)}"
    if not isinstance(value, str):
        reading.refuse(key, _shown(value), f"a string: {DURATION_SYNTAX}")
        return None
    try:
        wait = parse_duration(value)
    except ValueError:
        reading.refuse(key, _shown(value), f"{DURATION_SYNTAX}; {limit}")
        return None
    if wait > MAX_WAIT:
        reading.refuse(key, _shown(value), limit)
        return None
    return wait


def _check_offsets(reading: Reading, waits: list[timedelta | None]) -> None:
    """Offsets from the first attempt start at zero, which is the first attempt itself, and ascend."""
    if waits and waits[0]:
        reading.refuse("waits[0]", f'"{format_duration(waits[0])}"', 'with first_attempt, "0s": it is attempt 1 itself')
    for index, (earlier, later) in enumerate(pairwise(waits), start=1):
        if earlier is not None and later is not None and later <= earlier:
            reading.refuse(
                f"waits[{index}]",
                f'"{format_duration(later)}"',
                f'with first_attempt, an offset later than the one before it, "{format_duration(earlier)}"',
            )


def _jitter(reading: Reading, value: object) -> float:
    match value:
        case int() | float() if not isinstance(value, bool) and 0 <= value <= 1:
            # -0.0 is 0.0, and NaN compares false above.
            return math.fabs(value)
        case _:
            reading.refuse("jitter", _shown(value), "a number from 0 to 1: a wait is multiplied by up to 1 + jitter")
            return 0.0


def _lint(reading: Reading, schedule: RetrySchedule) -> None:
    """What is allowed and yet likely a slip."""
    for key in ("description", "source"):
        if not getattr(schedule, key):
            reading.doubt(key, "missing; say for people what this schedule is and who declared it")
    if schedule.waits[0]:
        reading.doubt("waits[0]", f"the first send waits {format_duration(schedule.waits[0])}; usual is 0s")
    if schedule.attempts == 1:
        reading.doubt("waits", "one attempt, so nothing is ever retried")
    steps = [schedule.step_before(attempt) for attempt in range(1, schedule.attempts + 1)]
    for index, (earlier, later) in enumerate(pairwise(steps), start=1):
        if later < earlier:
            text = f"{format_duration(later)} after {format_duration(earlier)}: the waits shrink"
            reading.doubt(f"waits[{index}]", text)
        if later < _HASTY:
            reading.doubt(f"waits[{index}]", f"a retry after {format_duration(later)} gives no time to recover")


def _syntax_error(error: Exception, text: str) -> tuple[str, int | None]:
    """What tomllib says, and at which line. Python 3.11 to 3.13 give the line only at the message's end."""
    if isinstance(error, RecursionError):
        return "arrays or tables nested too deeply", None
    message = str(error)
    if message.endswith(" (at end of document)"):
        return message.removesuffix(" (at end of document)"), text.rstrip().count("\n") + 1
    if found := _AT_LINE.search(message):
        return f"{message[: found.start()]} in column {found[2]}", int(found[1])
    return message[:200], None


def _key_on(text: str, line: int | None) -> str:
    """The known field that stands on a line, so that a syntax error names it; else empty."""
    found = text.splitlines()[line - 1].partition("=")[0].strip() if line and line <= text.count("\n") + 1 else ""
    return found if found in FIELDS else ""


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def _shown(value: object) -> str:
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


def _shown_key(key: str) -> str:
    return _cut(key if key.isprintable() else ascii(key))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def all_problems(readings: list[Reading]) -> Iterator[Problem]:
    """Every problem of every file, in the order of the files and, inside, of the lines."""
    for reading in readings:
        yield from sorted(reading.problems, key=lambda problem: problem.line or 0)
