from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import Problem
from dispatcher.retry.schedule_file import Reading, all_problems, read_schedule

GOOD = b"""description = "d"
source = "s"
relative_to = "previous_failure"
waits = [
  "0s",
  "5s",
]
jitter = 0.5
"""


def read(content: bytes | str, name: str = "mine") -> Reading:
    return read_schedule(name, content.encode() if isinstance(content, str) else content, where="mine.toml")


def test_a_good_file_is_read() -> None:
    reading = read(GOOD)
    assert reading.schedule is not None
    assert (reading.schedule.name, reading.schedule.description, reading.schedule.source) == ("mine", "d", "s")
    assert reading.schedule.waits == (timedelta(0), timedelta(seconds=5))
    assert reading.schedule.jitter == 0.5
    assert (reading.problems, reading.warnings) == ([], [])


def test_only_the_waits_are_needed() -> None:
    reading = read('waits = ["0s"]')
    assert reading.schedule is not None
    assert (reading.schedule.relative_to, reading.schedule.jitter) == ("previous_failure", 0.0)


def test_a_file_may_be_as_big_as_its_limit() -> None:
    assert read(GOOD.ljust(65_536, b"#")).problems == []


def test_windows_line_ends_are_read() -> None:
    assert read(GOOD.replace(b"\n", b"\r\n")).schedule == read(GOOD).schedule


class Broken(NamedTuple):
    """What a file holds, and where and as what it is refused."""

    content: bytes | str
    line: int | None
    field: str
    found: str
    allowed: str


def changed(before: str, after: str) -> str:
    assert GOOD.decode().count(before) == 1
    return GOOD.decode().replace(before, after)


DURATIONS = "numbers with units d, h, m, s or ms"
BROKEN = {
    "syntax": Broken(changed('"0s",', '"0s"'), 6, "", "Unclosed array in column 3", "TOML 1.0"),
    "syntax on a field's line": Broken(changed("jitter = 0.5", "jitter = half"), 8, "jitter", "Invalid value", "TOML"),
    "an end inside a value": Broken('\nwaits = ["0s",', 2, "waits", "Invalid value", "TOML 1.0"),
    "no value": Broken("waits =\n", 1, "waits", "Invalid value in column", "TOML 1.0"),
    "a field twice": Broken(GOOD + b"jitter = 0.1\n", 9, "jitter", "Cannot overwrite a value", "TOML 1.0"),
    "an unknown field": Broken(changed("jitter", "jiter"), 8, "jiter", "an unknown field", "did you mean jitter?"),
    "an unknown field like none": Broken(
        changed("jitter", "zzz"), 8, "zzz", "an unknown field", "docs/retries.md lists the fields"
    ),
    "an unknown table": Broken(
        GOOD + b"\n[retry]\nwaits = 1\n", 10, "retry", "an unknown field", "docs/retries.md lists the fields"
    ),
    "an unknown field with an escape": Broken(
        changed("jitter", '"\\u001b"'), 8, "'\\x1b'", "an unknown field", "docs/retries.md"
    ),
    "no waits": Broken('description = "d"', None, "waits", "nothing", "1 to 100 durations"),
    "empty waits": Broken("\nwaits = []", 2, "waits", "0 waits", "1 to 100 durations"),
    "too many waits": Broken(f"waits = {['0s'] * 101}", 1, "waits", "101 waits", "1 to 100 durations"),
    "waits no array": Broken('waits = "5s"', 1, "waits", "'5s'", "1 to 100 durations"),
    "waits a table": Broken("waits = {}", 1, "waits", "a table", "1 to 100 durations"),
    "a wait that is a number": Broken(changed('"5s"', "5"), 6, "waits[1]", "5", "a string: numbers with units"),
    "a wait that is an array": Broken(changed('"5s"', '["5s"]'), 6, "waits[1]", "an array", "a string"),
    "a wait that is a date": Broken(changed('"5s"', "2026-01-31"), 6, "waits[1]", "2026-01-31", "a string"),
    "an empty wait": Broken(changed('"5s"', '""'), 6, "waits[1]", "''", DURATIONS),
    "a bad unit": Broken(changed('"5s"', '"5 sec"'), 6, "waits[1]", "'5 sec'", DURATIONS),
    "a negative wait": Broken(changed('"5s"', '"-5s"'), 6, "waits[1]", "'-5s'", DURATIONS),
    "a wait too long": Broken(changed('"5s"', '"30d1ms"'), 6, "waits[1]", "'30d1ms'", "at most 30d"),
    "a huge wait": Broken(changed('"5s"', f'"{"9" * 9_000}s"'), 6, "waits[1]", "'99999", "at most 30d"),
    "a wait of a huge number": Broken(changed('"5s"', f"0x{'f' * 5_000}"), 6, "waits[1]", "a huge number", "a string"),
    "a total too long": Broken(f"waits = {['30d'] * 13}", 1, "waits", "390d in all", "at most 365d in all"),
    "jitter too high": Broken(changed("0.5", "1.01"), 8, "jitter", "1.01", "a number from 0 to 1"),
    "jitter below zero": Broken(changed("0.5", "-0.1"), 8, "jitter", "-0.1", "a number from 0 to 1"),
    "jitter nan": Broken(changed("0.5", "nan"), 8, "jitter", "nan", "a number from 0 to 1"),
    "jitter infinite": Broken(changed("0.5", "1e999"), 8, "jitter", "inf", "a number from 0 to 1"),
    "jitter a boolean": Broken(changed("0.5", "true"), 8, "jitter", "true", "a number from 0 to 1"),
    "jitter text": Broken(changed("0.5", '"10%"'), 8, "jitter", "'10%'", "a number from 0 to 1"),
    "an integer of hundreds of digits": Broken(changed("0.5", "9" * 301), 8, "jitter", "300 digits", "300 digits"),
    "an integer of thousands of digits": Broken(changed("0.5", "9" * 5_000), 8, "jitter", "300 digits", "300 digits"),
    "an integer within that": Broken(changed("0.5", "9" * 300), 8, "jitter", "a huge number", "a number from 0 to 1"),
    "relative to nothing known": Broken(
        changed("previous_failure", "first"), 3, "relative_to", "'first'", "(did you mean first_attempt?)"
    ),
    "relative to a number": Broken(
        changed('"previous_failure"', "1"), 3, "relative_to", "1", '"previous_failure" or "first_attempt"'
    ),
    "relative to an array": Broken(
        changed('"previous_failure"', "[]"), 3, "relative_to", "an array", "previous_failure"
    ),
    "offsets that do not start at zero": Broken(
        'relative_to = "first_attempt"\nwaits = ["1s", "5s"]', 2, "waits[0]", '"1s"', '"0s": it is attempt 1 itself'
    ),
    "offsets that do not ascend": Broken(
        'relative_to = "first_attempt"\nwaits = ["0s", "5s",\n"5s"]', 3, "waits[2]", '"5s"', "later than the one before"
    ),
    "a description that is no text": Broken(changed('"d"', "1"), 1, "description", "1", "text"),
    "a description with an escape": Broken(changed('"d"', '"\\u001b[2J"'), 1, "description", "a control char", "text"),
    "a source too long": Broken(changed('"s"', f'"{"s" * 1_001}"'), 2, "source", "1,001 characters", "at most 1,000"),
    "not UTF-8": Broken(GOOD.replace(b'"s"', b'"\xff"'), 2, "", "byte 0xff", "UTF-8"),
    "UTF-16": Broken(GOOD.decode().encode("utf-16"), 1, "", "a NUL byte", "text"),
    "a byte order mark": Broken(b"\xef\xbb\xbf" + GOOD, 1, "", "a byte order mark", "UTF-8 without"),
    "a NUL": Broken(GOOD + b"\n\0", 10, "", "a NUL byte", "text"),
    "empty": Broken("", None, "", "an empty file", "description, source, relative_to, waits, jitter"),
    "blank": Broken("\n \n", None, "", "an empty file", "a TOML file"),
    "too big": Broken(GOOD + b"#" * 65_536, None, "", "a file of more than 65,536 bytes", "at most 65,536 bytes"),
    "nested without end": Broken("waits = " + "[" * 60_000, 1, "waits", "nested too deeply", "at most 16 levels"),
    "nested deeply": Broken(f"\nwaits = {'[' * 17}{']' * 17}", 2, "waits", "nested too deeply", "at most 16 levels"),
    "tables nested deeply": Broken("a = " + "{a=" * 17 + "1" + "}" * 17, 1, "", "nested too deeply", "at most 16"),
    "nested as deeply as may be": Broken(
        changed("0.5", "[" * 16 + "]" * 16), 8, "jitter", "an array", "a number from 0 to 1"
    ),
    "brackets in strings": Broken(changed("0.5", f"'{'[' * 99}'"), 8, "jitter", "'[[[", "a number from 0 to 1"),
    "a string without an end": Broken('a = "' + '\\"' * 30_000, 1, "", "", "TOML 1.0"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_with_line_field_found_and_allowed(broken: Broken) -> None:
    reading = read(broken.content)
    assert reading.schedule is None
    (problem,) = reading.problems
    assert (problem.where, problem.line, problem.field) == ("mine.toml", broken.line, broken.field)
    assert broken.found in problem.found
    assert broken.allowed in f"{problem.allowed}; {problem.hint}"
    assert len(problem.found) < 250
    assert str(problem).isprintable()


@pytest.mark.parametrize("name", ["", "Mine", "my schedule", "-x", "x.y", "../x", "x" * 64, "ünï", "x\n", "x\x1b"])
def test_a_name_of_bad_characters_is_refused(name: str) -> None:
    (problem,) = read(GOOD, name).problems
    assert problem.found.startswith("the name ")
    assert "a-z, 0-9, - and _" in problem.allowed
    assert str(problem).isprintable()


def test_every_error_of_a_file_is_told_at_once_in_the_order_of_its_lines() -> None:
    reading = read(
        'jitter = 2\nwaits = [\n"0s",\n5,\n"x",\n"-1s",\n]\nrelative_to = "x"\nsource = 1\nnope = 1\n', "No!"
    )
    found = [(problem.line, problem.field) for problem in all_problems([reading])]
    assert found == [
        (None, ""),
        (1, "jitter"),
        (4, "waits[1]"),
        (5, "waits[2]"),
        (6, "waits[3]"),
        (8, "relative_to"),
        (9, "source"),
        (10, "nope"),
    ]


def test_a_problem_reads_as_one_line() -> None:
    (problem,) = read(changed('"5s"', '"5 sec"')).problems
    assert str(problem).startswith("mine.toml:6: waits[1]: found '5 sec'; allowed: numbers with units")
    assert isinstance(problem, Problem)


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        ('waits = ["0s", "5s"]', ["description: missing", "source: missing"]),
        (changed('"0s"', '"1s"'), ["waits[0]: the first send waits 1s"]),
        (changed('"5s"', '"5s", "4s"'), ["waits[2]: 4s after 5s: the waits shrink"]),
        (changed('"5s"', '"250ms"'), ["waits[1]: a retry after 250ms gives no time"]),
        (changed('  "5s",\n', ""), ["waits: one attempt, so nothing is ever retried"]),
        (
            GOOD.decode().replace("previous_failure", "first_attempt").replace('"5s"', '"5s", "10s", "12s"'),
            ["waits[3]: 2s after 5s: the waits shrink"],
        ),
    ],
)
def test_what_is_doubtful_is_a_warning_and_no_error(content: str, warnings: list[str]) -> None:
    reading = read(content)
    assert reading.schedule is not None
    assert len(reading.warnings) == len(warnings)
    for warning, expected in zip(reading.warnings, warnings, strict=True):
        assert re.search(rf"^mine\.toml(:\d+)?: {re.escape(expected)}", str(warning))


def test_a_warning_names_its_line() -> None:
    (warning,) = read(changed('"5s"', '"5s",\n"4s"')).warnings
    assert warning.line == 7


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_schedule_or_problems(content: bytes) -> None:
    reading = read(content)
    assert (reading.schedule is None) == bool(reading.problems)


_toml_values = st.sampled_from(
    ["0", "-1", "1e400", "nan", "true", '""', '"5s"', "[]", '["0s"]', '["0s", "1s", 3]', "{}", "{a=1}", "1979-05-27"]
)


@given(
    st.dictionaries(
        st.sampled_from(["waits", "jitter", "relative_to", "source", "description", "x", "a.b", '"q y"']), _toml_values
    )
)
def test_any_document_is_a_schedule_or_problems_with_lines(fields: dict[str, str]) -> None:
    reading = read("".join(f"{key} = {value}\n" for key, value in fields.items()) or "# none")
    assert (reading.schedule is None) == bool(reading.problems)
    assert all(problem.line is not None or problem.found == "nothing" for problem in reading.problems)
