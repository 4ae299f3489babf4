"""Names that have changed: an old one is refused with the new one, and documented."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dispatcher import config, renamed
from dispatcher.api.problems import field_faults
from dispatcher.cli import cli
from dispatcher.cli.verbs import leaves
from dispatcher.errors import ConfigurationError
from tests.support.command import Command

ROOT = Path(__file__).parents[1]

TABLES = {
    "setting": renamed.SETTINGS,
    "request field": renamed.REQUEST_FIELDS,
    "answer field": renamed.ANSWER_FIELDS,
    "option": renamed.OPTIONS,
    "accepted option": renamed.ACCEPTED_OPTIONS,
    "metric": renamed.METRICS,
}


def test_the_table_in_the_documents_is_the_code_s() -> None:
    found = re.findall(
        r"^\| ([a-z ]+) \| `([^`]+)` \| `([^`]+)` \|$", (ROOT / "docs/compatibility.md").read_text(), re.MULTILINE
    )
    assert found == [(what, *pair) for what, names in TABLES.items() for pair in names.items()]


@pytest.mark.parametrize(("old", "new"), renamed.SETTINGS.items())
def test_an_old_setting_is_refused_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{old}.*it is now {new}"):
        config.load({old: "30"})


@pytest.mark.parametrize(("old", "new"), renamed.REQUEST_FIELDS.items())
def test_an_old_field_of_a_request_is_refused_with_the_new_one(old: str, new: str) -> None:
    (fault,) = field_faults([{"type": "extra_forbidden", "loc": ("body", old), "msg": "", "input": 5}], body={old: 5})
    assert fault["detail"] == f"found the old name of a field; allowed: {new}"


@pytest.mark.parametrize(("old", "new"), renamed.OPTIONS.items())
def test_an_old_option_is_refused_with_the_new_one(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Command(monkeypatch, capsys)("schedules", "simulate", "standard", old, "5s")
    assert ran.code == 2
    assert f"dispatcher: No such option '{old}': it is now {new}\n" in ran.err


@pytest.mark.parametrize(
    ("words", "old"),
    [
        ("events send --type a.b --object-id pay_1 --dry-run", "--type"),
        ("events send --type=a.b --dry-run", "--type"),
    ],
)
def test_an_accepted_old_option_works_and_the_new_one_is_announced(
    words: str, old: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Command(monkeypatch, capsys)(*words.split(), stdin="{}")
    assert (ran.code, ran.out) == (0, "checked 1 event, all right; nothing was sent\n")
    assert ran.err == f"dispatcher: {old}: it is now {renamed.ACCEPTED_OPTIONS[old]}\n"


def test_each_accepted_old_option_is_taken_by_every_command_that_has_the_new_one() -> None:
    seen = set()
    for verb, command in leaves(cli):
        names = {name for parameter in command.params for name in parameter.opts}
        parser = command.make_parser(click.Context(command))
        for old, new in renamed.ACCEPTED_OPTIONS.items():
            if new in names:
                assert old in parser._long_opt, (verb, old)
                seen.add(old)
        with pytest.raises(click.NoSuchOption):
            parser.parse_args(["--no-such-option"])
    assert seen == set(renamed.ACCEPTED_OPTIONS)


def test_no_name_is_both_old_and_new() -> None:
    for names in TABLES.values():
        assert not set(names) & set(names.values())
