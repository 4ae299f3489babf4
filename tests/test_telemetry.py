"""The log: one line an event, whatever it holds."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from dispatcher import telemetry

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
WORKER = UUID("01a1fd73-fb0e-7fbf-bf8a-378bc13b268a")
_log = logging.getLogger("dispatcher.test")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], io.StringIO]:
    def set_up(log_format: str, log_level: str) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        telemetry.set_up(log_format=log_format, log_level=log_level)
        return stream

    return set_up


def test_a_line_is_a_name_and_its_fields(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("text", "info")
    telemetry.log(_log, logging.INFO, "worker.started", worker_id=WORKER, max_in_flight=8, committed=True, error=None)
    _, _, line = stream.getvalue().partition(" ")
    assert line == f"INFO worker.started worker_id={WORKER} max_in_flight=8 committed=true\n"


def test_json_has_the_same_fields_with_numbers_as_numbers(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("json", "info")
    telemetry.log(_log, logging.WARNING, "worker.started", worker_id=WORKER, ran_s=1.5, charged=False, error=None)
    line = json.loads(stream.getvalue())
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "WARNING",
        "logger": "dispatcher.test",
        "event": "worker.started",
        "worker_id": str(WORKER),
        "ran_s": 1.5,
        "charged": False,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("Zürich", "Zürich"),
        ("retry in 5 s", '"retry in 5 s"'),
        ('say "no"', r'"say \"no\""'),
        ("a=b", '"a=b"'),
        ("", '""'),
        ("a\nb", r'"a\nb"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("\x7f\x85\u2028", r'"\u007f\u0085\u2028"'),
        ("evil\u202egpj", r'"evil\u202egpj"'),
        ("file\udc80", r'"file\udc80"'),
    ],
)
def test_a_value_that_could_be_misread_is_quoted_as_json(
    log: Callable[[str, str], io.StringIO], value: str, text: str
) -> None:
    stream = log("text", "info")
    telemetry.log(_log, logging.INFO, "claim.failed", error=value)
    assert stream.getvalue().endswith(f" INFO claim.failed error={text}\n")
    if text != value:
        assert json.loads(text) == value


def test_an_error_is_one_line_without_what_the_library_wraps_around_it(
    log: Callable[[str, str], io.StringIO],
) -> None:
    stream = log("text", "info")
    telemetry.log(_log, logging.INFO, "claim.failed", error=DBAPIError("SELECT 1", {}, OSError("gone\n away")))
    telemetry.log(_log, logging.INFO, "claim.failed", error=TimeoutError())
    first, second = stream.getvalue().splitlines()
    assert first.endswith(' claim.failed error="gone away"')
    assert second.endswith(" claim.failed error=TimeoutError")


def test_many_lines_are_written_as_each_alone_would_be(log: Callable[[str, str], io.StringIO]) -> None:
    rows: list[dict[str, telemetry.Value]] = [
        {"delivery_id": "dlv_1", "attempt": 1, "outcome_known": True},
        {"delivery_id": "dlv_2", "attempt": 2, "outcome_known": False},
        {"delivery_id": "dlv_3", "wait_s": 1.5},
    ]
    for log_format in ("text", "json"):
        stream = log(log_format, "info")
        telemetry.info_many(_log, "delivery.attempted", rows, at=AT)
        together = stream.getvalue()
        stream = log(log_format, "info")
        for row in rows:
            telemetry.log(_log, logging.INFO, "delivery.attempted", **row)
        alone = stream.getvalue()
        if log_format == "text":
            assert without_time(alone) == without_time(together)
            assert together.startswith("2026-01-02T03:04:05.678Z INFO delivery.attempted delivery_id=dlv_1 ")
        else:
            assert [json.loads(line) | {"time": ""} for line in alone.splitlines()] == [
                json.loads(line) | {"time": ""} for line in together.splitlines()
            ]
            assert json.loads(together.splitlines()[0])["time"] == AT.isoformat()


def without_time(text: str) -> list[str]:
    return [line.partition(" ")[2] for line in text.splitlines()]


def test_a_higher_level_silences_them(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("text", "warning")
    telemetry.info_many(_log, "delivery.attempted", [{"attempt": 1}], at=AT)
    telemetry.log(_log, logging.INFO, "worker.started", worker_id=WORKER)
    assert stream.getvalue() == ""


def test_another_librarys_line_keeps_its_message(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("json", "info")
    logging.getLogger("asyncio").warning("%d tasks of %s", 2, "http://me:secret@a.example/x?token=secret")
    line = json.loads(stream.getvalue())
    assert (line["logger"], line["message"]) == ("asyncio", "2 tasks of http://a.example/x")
    assert "event" not in line
    stream = log("text", "info")
    logging.getLogger("asyncio").warning("a\n2026 INFO forged\x1b[2J")
    assert stream.getvalue().endswith(r" WARNING a\n2026 INFO forged\u001b[2J" + "\n")


def test_a_handler_of_a_producers_own_gets_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        telemetry.log(_log, logging.INFO, "wakeup.failed", error="a b")
    (record,) = caplog.records
    assert record.getMessage() == 'wakeup.failed error="a b"'
    assert record.funcName == "test_a_handler_of_a_producers_own_gets_text"


def test_a_traceback_is_kept_and_cannot_forge_a_line(log: Callable[[str, str], io.StringIO]) -> None:
    def fail() -> None:
        try:
            raise ValueError("why\n2026 INFO forged\x1b[2J")
        except ValueError as error:
            telemetry.log(_log, logging.ERROR, "attempt.failed_internally", exc_info=error)

    stream = log("text", "info")
    fail()
    first, *others = stream.getvalue().splitlines()
    assert first.endswith(" ERROR attempt.failed_internally")
    assert others[0] == "  Traceback (most recent call last):"
    assert others[-2:] == ["  ValueError: why", r"  2026 INFO forged\u001b[2J"]
    stream = log("json", "info")
    fail()
    line = json.loads(stream.getvalue())
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: why\n" in line["traceback"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret/@h/db",
        "https://me:#s3cret@h/x",
        "redis://:pa?s3cret@h:6379/0",
        "https://me:s3cret word@h/",
        "https://h/x?a='1'&b=s3cret",
        "https://h/x?a=1)s3cret",
        "https://h/x#token=s3cret",
        "_https://me:s3cret@h/",
        "https://me:p@s3cret@h/",
    ],
)
def test_a_secret_in_an_odd_place_of_a_url_is_left_out(url: str) -> None:
    assert "s3cret" not in telemetry.without_url_secrets(f"cannot reach {url}")


@pytest.mark.parametrize(
    "url", ["http://h:8080: refused", "http://[::1]:80/a", "https://h:5432,h2/db", "http://h/@me/x"]
)
def test_a_url_without_secrets_stays(url: str) -> None:
    assert telemetry.without_url_secrets(url) == url


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_holds_a_urls_userinfo_or_query(log: Callable[[str, str], io.StringIO], log_format: str) -> None:
    stream = log(log_format, "info")
    told = "cannot reach https://me:SECRET@a.example:8443/hook?token=SECRET#x, nor amqp://u:p@SECRET@mq/vhost"
    try:
        raise ValueError(told)
    except ValueError as error:
        telemetry.log(_log, logging.ERROR, "claim.failed", error=error, exc_info=True)
    telemetry.log(_log, logging.ERROR, "claim.failed", error=told)
    assert "SECRET" not in stream.getvalue()
    assert stream.getvalue().count("https://a.example:8443/hook nor amqp://mq/vhost") == 3


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_holds_the_row_that_the_database_refused(
    log: Callable[[str, str], io.StringIO], log_format: str, engine: Engine
) -> None:
    stream = log(log_format, "info")
    for statement, value in (
        ("INSERT INTO refused VALUES (%s)", "SECRET"),
        ("SELECT CAST(%s AS jsonb)", '{"card": SECRET'),
    ):
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE TEMPORARY TABLE refused (body text CHECK (body = ''))")
            with pytest.raises(DBAPIError) as raised:
                connection.exec_driver_sql(statement, (value,))
        cause = raised.value.orig
        assert "SECRET" in str(cause)
        error = ValueError("recording failed")
        error.__cause__ = cause
        telemetry.log(_log, logging.ERROR, "record.stripped", error=raised.value, exc_info=error)
    assert "SECRET" not in stream.getvalue()
    assert stream.getvalue().count("violates check constraint") == 2
    assert stream.getvalue().count("invalid input syntax for type json") == 2


def test_what_json_cannot_hold_is_logged_all_the_same(log: Callable[[str, str], io.StringIO]) -> None:
    stream = log("json", "info")
    telemetry.log(_log, logging.ERROR, "process.list_failed", file=Path("a\udc80"), pid=2**70)
    line = orjson.loads(stream.getvalue())
    assert (line["file"], line["pid"]) == (r"a\udc80", 2**70)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
def test_many_lines_for_a_stream_that_is_closed_stop_nobody(log: Callable[[str, str], io.StringIO]) -> None:
    log("text", "info").close()
    telemetry.info_many(_log, "delivery.attempted", [{"attempt": 1}], at=AT)


def test_many_lines_that_find_the_disk_full_stop_nobody(monkeypatch: pytest.MonkeyPatch, log) -> None:
    log("text", "info")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(handler, "stream", stream)
    telemetry.info_many(_log, "delivery.attempted", [{"attempt": 1}], at=AT)
    with pytest.raises(OSError, match="No space left on device"):
        stream.close()
