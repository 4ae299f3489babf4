"""Deliveries as files: whole or not there, safe for spreadsheets, read and written a page at a time."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli import export, sheet
from dispatcher.shapes import Delivery
from tests.cli.test_commands import Run, line

_TEXT = st.text() | st.from_regex(r"[ \t\r\n\"\'\u200b]*[=+\-@\t\r].*")


def delivery(**values: Any) -> Delivery:
    return cast(
        "Delivery",
        dict.fromkeys(sheet.COLUMNS)
        | {"url": "https://shop.example.com/hook", "schedule": {"name": "standard"}}
        | values,
    )


def table(found: list[Delivery]) -> list[list[str]]:
    text = "".join(sheet.lines(found, "csv"))
    return list(csv.reader(io.StringIO(text, newline="")))


@given(_TEXT)
def test_no_cell_begins_a_formula_and_every_other_text_comes_back(text: str) -> None:
    header, row = table([delivery(object_id=text, status_reason=text)])
    assert header == list(sheet.COLUMNS)
    (cell,) = {row[header.index("object_id")], row[header.index("status_reason")]}
    assert cell == sheet.cell(text)
    bare = cell.strip(" \"'`")
    assert cell.startswith("'") or bare[:1] not in {"=", "+", "-", "@"}
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in cell)
    if text.isprintable() and bare[:1] not in set("=+-@＝＋－﹣−＠‘’“”"):
        assert cell == text


@given(
    st.sampled_from(["", " ", "\u00a0", "\t", "\r\n", '"', "'", "\"'", "\u200b", "\ufeff", "\x00"]),
    st.sampled_from("=+-@"),
)
def test_what_stands_before_a_formula_does_not_hide_it(before: str, sign: str) -> None:
    assert sheet.cell(f"{before}{sign}1+cmd|' /C calc'!A0").startswith("'")


def test_a_ready_made_apostrophe_is_doubled() -> None:
    assert sheet.cell("'=1") == "''=1", "so that the documented one can be taken away again"


def test_what_a_url_has_behind_its_question_mark_is_left_out() -> None:
    one = delivery(url="https://shop.example.com/hook?token=tell-nobody")
    for form in sheet.FORMATS:
        text = "".join(sheet.lines([one], form))
        assert "tell-nobody" not in text
        assert "https://shop.example.com/hook?" in text


@pytest.fixture
def some(run: Run) -> Run:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(object_id="=1+1") + line(object_id='b,"c"') + line() * 3)
    return run


@pytest.mark.parametrize("form", sheet.FORMATS)
def test_the_list_and_the_export_print_the_same(some: Run, form: str) -> None:
    listed = some("deliveries", "list", "--output", form)
    exported = some("deliveries", "export", "--format", form)
    assert listed.code == exported.code == 0
    assert listed.out == exported.out
    if form == "csv":
        objects = {row["object_id"] for row in csv.DictReader(io.StringIO(listed.out))}
        assert objects == {"'=1+1", 'b,"c"', ""}
    else:
        assert {json.loads(one)["object_id"] for one in listed.out.splitlines()} == {"=1+1", 'b,"c"', None}


def test_a_file_holds_all_that_is_chosen_however_many_pages(
    some: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PAGE", 2)
    path = tmp_path / "out.jsonl"
    ran = some("deliveries", "export", "--file", str(path))
    assert "5 deliveries written" in ran.err
    assert ran.out == ""
    assert len(path.read_text().splitlines()) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    some("deliveries", "export", "--object-id", "=1+1", "--format", "csv", "--file", str(path))
    assert len(path.read_text().splitlines()) == 2, "the file was replaced"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_does_not_get_whole_does_not_get_there(
    some: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")

    def breaks(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sheet, "write", breaks)
    assert some("deliveries", "export", "--file", str(path)).code == 1
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_is_refused(some: Run, tmp_path: Path) -> None:
    nowhere = some("deliveries", "export", "--file", str(tmp_path / "no" / "out.csv"))
    assert nowhere.code == 1
    assert "cannot be written" in nowhere.err
    assert some("deliveries", "export", "--undelivered", "--status", "delivered").code == 2
    assert some("deliveries", "export", "--output", "xml").code == 2
