"""Lists: one line a row within the terminal's width, whole values in a pipe, and nothing stored disturbs them."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from rich.cells import cell_len

import dispatcher.cli
from dispatcher import shapes
from dispatcher.cli import cli, listing, output, plain, tail, target
from dispatcher.cli.commands import VERBS
from dispatcher.cli.listing import Column, Table, short_ids
from dispatcher.client import Client
from dispatcher.client.errors import ForeignAnswer
from examples import lists
from tests.cli.test_plain import Printed

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
FULL_ID = re.compile(r"[a-z]{2,3}_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
EVERY_LIST = pytest.mark.parametrize("words", lists.COMMANDS)


def tables() -> list[Table[Any]]:
    modules = [
        importlib.import_module(f"dispatcher.cli.{module.name}")
        for module in pkgutil.iter_modules(dispatcher.cli.__path__)
    ]
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Table)}
    return list(found.values())


def rows_of(words: str) -> list[dict[str, Any]]:
    paths = {"pause --list": "pauses", "signing-keys list": "public_keys"}
    plural = {"replay": "replays", "pause": "pauses"}.get(words.split(maxsplit=1)[0], words.split(maxsplit=1)[0])
    plural = plural.replace("-", "_")
    path = f"replays/{lists.REPLAY}/endpoints" if "--endpoints" in words else paths.get(words, plural)
    rows: list[dict[str, Any]] = lists.answers()[path][1]["data"]
    return rows


def piped(words: str) -> tuple[str, str]:
    """What the command prints into a pipe, and on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with lists.answered(), redirect_stdout(out), redirect_stderr(err):
        cli.main(words.split(), prog_name="dispatcher", standalone_mode=False)
    return out.getvalue(), err.getvalue()


# Every list


def test_the_document_shows_every_list_as_it_is_printed() -> None:
    text = lists.DOCUMENT.read_text().partition(lists.MARKS[0])[2].partition(lists.MARKS[1])[0]
    assert text == "\n" + "\n".join(lists.chapters()) + "\n", "python -m examples.lists --write brings it up to date"


def test_every_command_that_lists_is_in_the_document() -> None:
    shown = {" ".join(word for word in words.split()[:2]) for words in lists.COMMANDS}
    assert {verb for verb in VERBS if verb.endswith(" list")} <= shown


@pytest.mark.parametrize("path", lists.answers())
def test_the_examples_have_the_shapes_of_the_api(path: str) -> None:
    shape, answer = lists.answers()[path]
    TypeAdapter(getattr(shapes, shape)).validate_python(answer)


def test_a_column_shows_a_member_of_the_shape() -> None:
    assert len(tables()) >= len(lists.COMMANDS)
    for table in tables():
        members = {*getattr(shapes, table.shape).__annotations__, *table.joined}
        assert {column.field for column in table.columns} <= members, table.shape


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@EVERY_LIST
def test_a_row_is_one_line_that_fits(words: str, width: int) -> None:
    with lists.answered():
        lines = lists.shown(words, width).splitlines()
    if "there are more" in lines[-1]:
        lines.pop()
    assert len(lines) == 1 + len(rows_of(words))
    assert all(cell_len(line) <= width for line in lines), lines


@EVERY_LIST
def test_a_pipe_gets_whole_ids_in_columns_that_do_not_depend_on_the_rows(words: str) -> None:
    out, err = piped(words)
    lines = out.splitlines()
    assert len(lines) == 1 + len(rows_of(words)), "the sentence that there are more is no row"
    assert "…" not in out.replace("?…", "")
    assert "token=" not in out
    for row, line in zip(rows_of(words), lines[1:], strict=True):
        assert words == "audit-log list" or row.get("id", "") in line, "a change is known by what was changed"
        assert row.get("endpoint_id") is None or row["endpoint_id"] in line
    assert ("there are more" in err) == words.startswith("deliveries")


# What is shown of ids


def test_a_prefix_in_a_list_names_one_row() -> None:
    with lists.answered():
        lines = lists.shown("deliveries list --limit 9", 120).splitlines()[1:10]
    full = [row["id"] for row in lists.DELIVERIES]
    for line, id_ in zip(lines, full, strict=True):
        assert [one for one in full if one.startswith(line.split()[0])] == [id_]


def test_ids_of_one_millisecond_lose_their_middle_where_a_prefix_has_no_room() -> None:
    ids = ["dlv_01890a5d-ac96-774b-bcce-b302099a8057", "dlv_01890a5d-ac96-774b-bcce-b302199a8157"]
    assert short_ids([*ids, None, "cli:ada"], 20) == ["dlv_01890a5d-ac96…057", "dlv_01890a5d-ac96…157", None, "cli:ada"]
    assert short_ids(ids, 40) == ["dlv_01890a5d-ac96-774b-bcce-b3020", "dlv_01890a5d-ac96-774b-bcce-b3021"]
    assert short_ids([ids[0], ids[0]], 17) == ["dlv_01890a5d-ac96"] * 2, "one object in two rows"
    assert short_ids(["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"], 17) == [
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    ], "what is no id of ours is not shortened"


def test_a_prefix_does_not_end_in_a_dash() -> None:
    later = [f"dlv_01890a5d-{digits}-774b-bcce-b302099a8057" for digits in ("ac96", "ac97")]
    assert short_ids(later, 17) == ["dlv_01890a5d-ac96", "dlv_01890a5d-ac97"]
    other = [f"dlv_01890a5d-ac96-{digits}-bcce-b302099a8057" for digits in ("774b", "874b")]
    assert short_ids(other, 20) == ["dlv_01890a5d-ac96-7", "dlv_01890a5d-ac96-8"]


# What gives, and what never does

COLUMNS = (
    Column("id", "id", kind="id"),
    Column("object", "object", least=6),
    Column("url", "url", kind="url", least=8, after="object"),
    Column("note", "note", least=6),
    Column("more", "more", where="room"),
)
TABLE: Table[Any] = Table("Delivery", COLUMNS, empty="Nothing.")


def row(tail: str = "8057", **more: Any) -> dict[str, Any]:
    return {
        "id": f"dlv_01890a5d-ac96-774b-bcce-b302099a{tail}",
        "object": None,
        "url": "https://shop.example.com/webhooks",
        "note": None,
        "more": None,
    } | more


def fitted(*rows: dict[str, Any], width: int = 80) -> list[str]:
    lines = listing.fitted(TABLE, rows, width=width, now=NOW)
    assert lines is not None
    return [line.plain for line in lines]


def test_an_empty_column_vanishes_with_its_arrow() -> None:
    assert fitted(row()) == ["id                 host/path", "dlv_01890a5d-ac96  shop.example.com/webhooks"]
    assert fitted(row(object="pay_1"), row("8157"))[1:] == [
        "dlv_01890a5d-ac96…057  pay_1  → shop.example.com/webhooks",
        "dlv_01890a5d-ac96…157         → shop.example.com/webhooks",
    ]


def test_a_column_that_needs_room_is_shown_where_all_others_are_whole() -> None:
    one = row(object="pay_1", note="a note", more="seen")
    assert "seen" in fitted(one, width=80)[1]
    narrow = fitted(one, width=63)
    assert "seen" not in narrow[1]
    assert "…" not in narrow[1]


def test_what_is_cut_is_cut_with_an_ellipsis_and_no_id_is() -> None:
    _, line = fitted(row(object="o" * 90, note="n" * 90), width=60)
    assert cell_len(line) == 60
    assert line.startswith("dlv_01890a5d-ac96 ")
    assert line.count("…") == 3


def test_of_one_host_the_end_of_the_path_is_kept_of_several_the_host() -> None:
    long = {"note": "n" * 90, "object": "o" * 90}
    one = fitted(row(url="https://a.example/hooks/payments/eu", **long), width=60)[1]
    assert "/eu" in one
    two = fitted(
        row("8057", url="https://a.example/hooks/payments/eu", **long),
        row("8157", url="https://b.example/hooks/payments/us", **long),
    )
    assert "a.exam" in two[1]
    assert "b.exam" in two[2]


def test_wide_characters_count_as_the_columns_that_they_take() -> None:
    _, line = fitted(row(note="支付" * 40), width=60)
    assert cell_len(line) <= 60


def test_a_terminal_that_is_too_narrow_for_a_line_gets_a_block_for_each_row() -> None:
    with lists.answered():
        text = lists.shown("deliveries list --limit 9", 40)
    assert text.count("\ndelivery ") == 8
    assert "".join(text.split()).count("…") == sum("?" in row["url"] for row in lists.DELIVERIES)


# What is stored, and where it is shown


@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\tb", "a\rb", "\u202egnp.exe", "\u061ca", "a\u2028b", "\x1b[2Jb", "\x85a"]
)
def test_no_stored_text_adds_a_line_or_turns_one(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(fitted(row(note=hostile)))
    assert len(text.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in text)
    listing.print_rows(TABLE, [row(note=hostile)])
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in printed)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_a_line_fits_also_where_marks_take_more_columns(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    out = Printed(encoding)
    with out, lists.answered():
        for words in lists.COMMANDS:
            cli.main(words.split(), prog_name="dispatcher", standalone_mode=False)
    plain_text = re.sub(r"\x1b\[[0-9;]*m", "", out.text)
    assert max(map(len, plain_text.splitlines())) <= 80
    assert "->" in plain_text
    assert encoding == "cp1252" or "..." in plain_text


def test_a_stream_without_an_encoding_has_every_character() -> None:
    assert plain.shown("→ …", io.StringIO()) == "→ …"


def test_there_is_no_colour_under_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")

    def printed() -> str:
        out = io.StringIO()
        with lists.answered(), redirect_stdout(out):
            cli.main(["endpoints", "list"], prog_name="dispatcher", standalone_mode=False)
        return out.getvalue()

    coloured = printed()
    monkeypatch.setenv("NO_COLOR", "1")
    plain_ = printed()
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(coloured)
    assert not colour.search(plain_)


# How much more there is


class Pages:
    """An API with so many tenants, and what it was asked for."""

    def __init__(self, count: int) -> None:
        self.rows = [lists.TENANTS[0] | {"name": f"shop-{number}"} for number in range(count)]
        self.asked: list[tuple[int, int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        start, limit = int(request.url.params.get("cursor", "0")), int(request.url.params["limit"])
        self.asked.append((start, limit))
        end = min(start + limit, len(self.rows))
        more = end < len(self.rows)
        page = {"data": self.rows[start:end], "has_more": more, "next_cursor": str(end) if more else None}
        return httpx.Response(200, json=page)


def answer_by(answer: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every command's client answered so."""

    def client() -> Client:
        return Client("http://api.example", api_key="key", transport=httpx.MockTransport(answer))

    monkeypatch.setattr(target, "client", client)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    found = Pages(2300)
    answer_by(found, monkeypatch)
    return found


def ran(*words: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        cli.main(words, prog_name="dispatcher", standalone_mode=False)
    return out.getvalue()


def test_a_list_in_json_says_whether_there_is_more_and_where_it_goes_on(pages: Pages) -> None:
    first = json.loads(ran("tenants", "list", "--limit", "1500", "--output", "json"))
    assert (len(first["data"]), first["has_more"], first["next_cursor"]) == (1500, True, "1500")
    rest = json.loads(ran("tenants", "list", "--limit", "1500", "--cursor", first["next_cursor"], "--output", "json"))
    assert (len(rest["data"]), rest["has_more"], rest["next_cursor"]) == (800, False, None)
    assert first["data"] + rest["data"] == pages.rows
    assert pages.asked == [(0, 1000), (1000, 500), (1500, 1000)]


def test_a_list_for_people_says_whether_there_is_more(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran("tenants", "list", "--limit", "3").count("\n") == 4
    assert capsys.readouterr().err == "3 shown, there are more: --cursor 3\n"
    ran("tenants", "list", "--cursor", "2299")
    assert capsys.readouterr().err == ""


def test_pages_that_never_end_are_an_error() -> None:
    def fetch(**_: Any) -> Any:
        return {"data": [], "has_more": True, "next_cursor": "x"}

    with pytest.raises(ForeignAnswer, match="no cursor"):
        listing.take(fetch, 10, None)


# The lists that ask for more than their rows


def test_endpoints_are_listed_where_the_key_may_not_read_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"type": "about:blank", "title": "Forbidden", "status": 403, "code": "FORBIDDEN", "request_id": "req_1"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/statistics":
            return httpx.Response(403, json=problem | {"detail": "this key may do endpoints:write", "errors": []})
        return httpx.Response(200, json=lists.answers()[request.url.path.removeprefix("/v1/")][1])

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    answer_by(answer, monkeypatch)
    text = ran("endpoints", "list")
    assert "ledger.example.net" in text
    assert "disabled" in text
    assert "are not shown: " in text
    assert "this key may do endpoints:write" in text


def test_people_read_the_http_status_and_programs_the_class() -> None:
    with lists.answered():
        assert "503 Service Unavailable" in lists.shown("deliveries list --limit 9", 200)
    assert "503 Service Unavailable" in piped("deliveries list --limit 9")[0]
    rows = json.loads(piped("deliveries list --limit 9 --output json")[0])["data"]
    assert [row["last_outcome"] for row in rows if row["last_status_code"] == 503] == ["http_retryable"]


def test_a_line_break_in_a_cell_of_a_table_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["rule"], [["a\nb"]])
    assert capsys.readouterr().out == "rule\na\\nb\n"


def test_a_delivery_that_is_followed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    one: Any = lists.DELIVERIES[3] | {
        "status_reason": "paused: moved\n03:12:35 delivered dlv_1",
        "object_id": "a\u2028b",
    }
    tail.show(one, "table")
    assert len(capsys.readouterr().out.splitlines()) == 1
