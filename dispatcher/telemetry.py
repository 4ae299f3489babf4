"""Logging: a line is an event's dotted past-tense name and its fields, rendered as text or as JSON.

No line holds a body, a secret, or a URL's userinfo or query.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import UUID

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Value: TypeAlias = "str | int | float | bool"
"""What a field holds."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What an event means, and the names of the fields that its lines may have, in their order."""

    meaning: str
    fields: tuple[str, ...] = ()


EVENTS: Final = {
    "address.blocked": Declared(
        "a receiver's name leads to an address that may not be dialled; DISPATCHER_ALLOW_NETWORKS allows more",
        ("receiver_host", "address"),
    ),
    "api.ended_late": Declared(
        "a transaction ended after its caller had been told that the database does not answer",
        ("committed", "error"),
    ),
    "api.few_files": Declared(
        "the process may open too few files for the connections that are set; it admits fewer",
        ("limit", "connections", "wanted"),
    ),
    "api.started": Declared("the HTTP API listens", ("host", "port")),
    "api.started_read_only": Declared(
        "the API started on a database that is read-only; it answers reads",
        ("error",),
    ),
    "api.without_broker": Declared(
        "no broker is configured: a new event waits for the scheduler's next look",
        ("setting",),
    ),
    "attempt.failed_internally": Declared(
        "an internal error ended an attempt; the delivery is not charged for it",
        ("delivery_id",),
    ),
    "bell.failed": Declared(
        "the broker does not take bells; the scheduler keeps trying, and workers claim by themselves",
        ("broker", "error"),
    ),
    "broker.unusable": Declared(
        "a worker cannot use the broker; it claims by itself and keeps trying",
        ("broker", "error"),
    ),
    "broker.usable": Declared("the broker can be used again", ("broker",)),
    "claim.failed": Declared("the database did not answer a claim; it is tried again", ("worker_id", "error")),
    "claims.release_failed": Declared(
        "a worker could not give back claims whose commit it never heard of; it is tried again",
        ("worker_id", "error"),
    ),
    "claims.released": Declared(
        "a worker gave back claims that it never heard of: a commit's answer had been lost",
        ("worker_id", "deliveries"),
    ),
    "clock.repair_failed": Declared(
        "due times accepted around a step of the database's clock could not be corrected; it is tried again",
        ("error",),
    ),
    "clock.stepped": Declared(
        "the database's clock was set; what is due was corrected for it",
        ("noticed_by", "change_s"),
    ),
    "delivery.attempted": Declared(
        "an attempt was recorded, or a claim that ended without one: its outcome and the decision",
        (
            *("delivery_id", "event_id", "endpoint_id", "attempt", "mode", "decision", "charged"),
            *("wait_s", "wait_relative_to", "outcome", "status_code", "outcome_known", "duration_ms"),
        ),
    ),
    "duty.failed": Declared("another duty of the scheduler failed; it is tried again", ("duty", "error")),
    "heartbeat.failed": Declared("a worker could not show that it lives", ("worker_id", "error")),
    "key.unusable": Declared(
        "a platform key does not sign; what its schemes sign waits for one that does",
        ("error",),
    ),
    "key.use_not_noted": Declared(
        "when keys were last used could not be written; their callers were served",
        ("keys", "error"),
    ),
    "leader.elected": Declared(
        "this scheduler now rescues, prunes and makes partitions",
        ("scheduler_id", "term"),
    ),
    "leader.election_failed": Declared(
        "a scheduler could not become or stay the leader; it is tried again",
        ("scheduler_id", "error"),
    ),
    "message.dropped": Declared("a message in the broker's queue was not a bell; it was dropped", ("error",)),
    "migration.awaited": Declared(
        "this process waits, since another one migrates the database",
        ("reason",),
    ),
    "migration.lock_missed": Declared(
        "a step of a migration did not get its lock within half a second; it is tried again",
        ("step", "lock", "tries"),
    ),
    "process.awaited": Declared(
        "the supervisor waits for a server, a program or the migration to be ready",
        ("process", "waited_s", "last_line"),
    ),
    "process.exited": Declared(
        "a child of the supervisor ended by itself",
        ("process", "pid", "signal", "exit_code", "ran_s", "restart_in_s"),
    ),
    "process.hung": Declared(
        "a child showed no sign of life for too long; it is stopped, and started again",
        ("process", "pid", "silent_for_s", "signal"),
    ),
    "process.killed": Declared("a child outlived its grace", ("process", "pid")),
    "process.leftover_stopped": Declared(
        "a program that a killed supervisor had left running was stopped",
        ("pid", "command"),
    ),
    "process.list_failed": Declared(
        "the file that lists running processes could not be written or removed",
        ("file", "error"),
    ),
    "process.notify_failed": Declared(
        "systemd could not be told that the system is ready",
        ("socket", "error"),
    ),
    "process.output_failed": Declared(
        "a line that a child printed could not be passed on; its output is read all the same",
        ("process",),
    ),
    "process.restarted": Declared("the supervisor started it again", ("process", "pid", "restarts")),
    "process.start_failed": Declared(
        "a child could not be started again; it is tried later",
        ("process", "restart_in_s", "error"),
    ),
    "process.started": Declared("the supervisor started a child", ("process", "pid")),
    "process.stopped": Declared("the supervisor stopped a child", ("process", "pid")),
    "record.failed": Declared(
        "results could not be written; they are kept and tried again",
        ("worker_id", "results", "error"),
    ),
    "record.stripped": Declared(
        "the database refused an answer's evidence; the attempt was recorded without it",
        ("delivery_id", "error"),
    ),
    "request.failed": Declared(
        "the database did not answer a request, or is read-only; the caller got 503",
        ("path", "error"),
    ),
    "request.failed_internally": Declared(
        "a defect of ours ended a request, which got 500; the server logs its traceback",
        ("request_id", "path", "error"),
    ),
    "rescue.done": Declared("claims of dead workers went back to waiting", ("deliveries",)),
    "rescue.failed": Declared(
        "the scheduler could not take back claims of dead workers; it is tried again",
        ("error",),
    ),
    "retention.done": Declared(
        "a day's partition was dropped, or rewritten without its payloads or answers",
        ("partition", "action"),
    ),
    "retention.failed": Declared(
        "a partition could not be locked or rewritten; it is tried again in a minute",
        ("error",),
    ),
    "scheduler.started": Declared("a scheduler ticks", ("scheduler_id",)),
    "scheduler.stopped": Declared("a scheduler has ended", ("scheduler_id",)),
    "schema.refused": Declared(
        "a schema that an earlier version has stored has no bound; events of the type are refused",
        ("event_type", "reason"),
    ),
    "statistics.update_failed": Declared(
        "statistics could not be brought up to date; it is tried again, and answers stay complete",
        ("error",),
    ),
    "supervisor.failed_internally": Declared(
        "an internal error met a thread of the supervisor, which goes on",
        ("process",),
    ),
    "supervisor.gave_up": Declared("files of a server have vanished; everything is stopped", ("error",)),
    "tick.failed": Declared("the scheduler could not ask the database what is due; it is tried again", ("error",)),
    "wakeup.failed": Declared("the broker did not take a wake-up; the scheduler polls anyway", ("error",)),
    "wakeup.listen_failed": Declared(
        "the scheduler cannot hear wake-ups from Redis; it polls, and keeps trying",
        ("error",),
    ),
    "wakeup.unavailable": Declared(
        "this process cannot send wake-ups, since redis-py is not installed; the scheduler polls",
        ("error",),
    ),
    "worker.deregister_failed": Declared(
        "a stopping worker could not remove its row; its claims are rescued when its heartbeat's term ends",
        ("worker_id", "error"),
    ),
    "worker.failed": Declared(
        "an internal error ended a worker's duty, and with it the process; its claims are rescued",
        ("duty",),
    ),
    "worker.started": Declared("a worker may claim", ("worker_id", "max_in_flight")),
    "worker.stopped": Declared(
        "a worker has recorded or released all that it had",
        ("worker_id", "unfinished"),
    ),
}
"""Every event that a log line may tell of. `docs/logs.md` holds the same table, and a test compares the two."""

FIELDS: Final = {
    "action": "what retention did with a partition",
    "address": "the address that a receiver's name leads to",
    "attempt": "the number of the attempt, from 1",
    "broker": "the broker's address, without credentials",
    "change_s": "by how many seconds the database's clock was set forward",
    "charged": "whether the attempt counts against the schedule; present where the delivery is tried again",
    "command": "the command of a process",
    "committed": "whether the transaction was committed",
    "connections": "how many connections the API admits at once",
    "decision": "`retry`, `released`, or the state in which the delivery ended",
    "deliveries": "how many deliveries",
    "delivery_id": "the delivery, `dlv_…`",
    "duration_ms": "how long the attempt took, in milliseconds",
    "duty": "which duty of a worker or scheduler",
    "endpoint_id": "the endpoint, `ep_…`",
    "error": "the error, on one line",
    "event_id": "the event that is delivered, `evt_…`",
    "event_type": "the type of an event, such as `payment.completed`",
    "exit_code": "the exit code of a process",
    "file": "the path of a file",
    "host": "the address that the API listens on",
    "keys": "how many API keys",
    "last_line": "what the process printed last",
    "limit": "how many files the process may open",
    "lock": "the lock that was not available",
    "max_in_flight": "how many deliveries the worker holds at most",
    "mode": "`test` of an event of test mode; left out for a live one",
    "noticed_by": "which process noticed it",
    "outcome": "the class of the attempt's outcome, as in [outcomes](outcomes.md)",
    "outcome_known": "whether the receiver's answer is known; false where the request may have arrived unanswered",
    "partition": "a partition of a table",
    "path": "the path of an HTTP request to the API",
    "pid": "the number of a process",
    "port": "the port that the API listens on",
    "process": "the supervisor's name for a process, such as `worker-1`",
    "ran_s": "how long the process ran, in seconds",
    "reason": "why",
    "receiver_host": "the host of a URL that is delivered to",
    "request_id": "the number that the answer has in `x-request-id`, `req_…`",
    "restart_in_s": "after how many seconds the process is started again",
    "restarts": "how often the process has been started again",
    "results": "how many results of attempts",
    "scheduler_id": "the scheduler's id, a UUID",
    "setting": "the environment variable that would change it",
    "signal": "the signal that was sent to the process, or that ended it",
    "silent_for_s": "for how many seconds the process showed no sign of life",
    "socket": "the address of systemd's socket",
    "status_code": "the HTTP status that the receiver answered; absent where there is none",
    "step": "the step of a migration",
    "term": "the number of the leader's term",
    "tries": "how often it has been tried",
    "unfinished": "how many deliveries were in flight when the grace period ended",
    "wait_relative_to": "where `wait_s` counts from: `previous_failure` or `first_attempt`",
    "wait_s": "after how many seconds the delivery is due again",
    "waited_s": "how long it has been waited for, in seconds",
    "wanted": "how many connections are configured",
    "worker_id": "the worker's id, a UUID",
}
"""Every field that an event may have: one name for one thing. `docs/logs.md` holds the same table."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\S*)")
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[^/?#@:]*)(?::[0-9]*)?(?=[/?#,]|[^\w@]*\Z)")

_QUOTED: Final = re.compile(r"""[ "=]""")


@dataclass(frozen=True, slots=True)
class Line:
    """The message of a log record of ours. As text it is what people read, whatever handler writes it."""

    event: str
    fields: Mapping[str, Value]

    def __str__(self) -> str:
        return " ".join((self.event, *(f"{name}={_text(value)}" for name, value in self.fields.items())))


def log(
    logger: logging.Logger,
    level: int,
    event: str,
    /,
    *,
    exc_info: BaseException | bool | None = None,
    **fields: Value | UUID | Path | BaseException | None,
) -> None:
    """Logs one line. `EVENTS` declares the event's name and fields; a test compares every call with it.

    A field that is None is left out. An error is logged as `one_line` has it, and with `exc_info` its traceback too.
    """
    if logger.isEnabledFor(level):
        values = {name: _value(value) for name, value in fields.items() if value is not None}
        logger.log(level, Line(event, values), exc_info=exc_info, stacklevel=2)


def info_many(logger: logging.Logger, event: str, rows: Iterable[Mapping[str, Value]], *, at: datetime) -> None:
    """Logs many lines of one event and instant by one write: a record of logging's own for each would cost a delivery
    some 15 µs more. The rows' values are numbers, booleans, and ids and words of ours, which are written as they are:
    they hold no space, quote, equals sign or control character. A log that cannot be written, such as a file on a full
    disk or a stream that is closed, stops nobody's work: the lines are lost, as logging's own are.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    rows = list(rows)
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.StreamHandler):
            continue
        match handler.formatter:
            case TextFormatter():
                lines = _text_lines(f"{_stamp(at)} INFO {event}", rows)
            case JsonFormatter():
                entry = {"time": at, "level": "INFO", "logger": logger.name, "event": event}
                start = orjson.dumps(entry)[:-1] + b","
                lines = b"".join([start + orjson.dumps(row)[1:] + b"\n" for row in rows]).decode()
            case _:
                continue
        with handler.lock or contextlib.nullcontext(), contextlib.suppress(OSError, ValueError):
            handler.stream.write(lines)
            handler.flush()


def _text_lines(start: str, rows: list[Mapping[str, Value]]) -> str:
    """Formats all rows at once, which takes less than formatting each."""
    # By a row's names: its line, and where its booleans are, counted from its end.
    templates: dict[tuple[str, ...], tuple[str, list[int]]] = {}
    lines: list[str] = []
    values: list[Value] = []
    for row in rows:
        names = tuple(row)
        found = templates.get(names)
        if found is None:
            template = start + "".join([f" {name}=%s" for name in names]) + "\n"
            booleans = [n - len(row) for n, value in enumerate(row.values()) if type(value) is bool]
            templates[names] = template, booleans
        else:
            template, booleans = found
        lines.append(template)
        values += row.values()
        for n in booleans:
            values[n] = "true" if values[n] else "false"
    return "".join(lines) % tuple(values)


class TextFormatter(logging.Formatter):
    """`2026-01-01T00:00:00.000Z INFO worker.started worker_id=…`, and a traceback's lines indented below it.

    A value with a space, a quote, an equals sign or a control character is quoted as JSON quotes a string.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback's lines below it."""
        message = record.getMessage()
        if not isinstance(record.msg, Line):
            message = _printable(without_url_secrets(message))
        line = f"{_stamp(datetime.fromtimestamp(record.created, UTC))} {record.levelname} {message}"
        if error := _error(record):
            line += "".join(f"\n  {_printable(part)}" for part in _traceback(error).splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event and its fields, and a traceback if there is one.

    A line of another library has a `message` instead of an event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
        }
        if isinstance(record.msg, Line):
            entry |= {"event": record.msg.event, **record.msg.fields}
        else:
            entry["message"] = without_url_secrets(record.getMessage())
        if error := _error(record):
            entry["traceback"] = _traceback(error)
        try:
            return orjson.dumps(entry).decode()
        except orjson.JSONEncodeError:  # a lone surrogate, such as of a file's name, or a number of more than 64 bits
            return json.dumps({name: _unicode(value) for name, value in entry.items()}, default=datetime.isoformat)


def one_line(error: BaseException) -> str:
    """The error that is behind a library's wrapping of it, on one line.

    Of what PostgreSQL says, it has the message alone: the detail and the context may quote a whole row.
    """
    cause = getattr(error, "orig", None) or error
    message = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
    return without_url_secrets(" ".join(message.split())) or type(error).__name__


def without_url_secrets(text: str) -> str:
    """The text, its URLs without userinfo, and without what follows a `?` or `#`, up to the next white space.

    A password may hold characters that a URL must escape. So where no valid host comes first, everything up to the last
    `@` is left out.

    >>> without_url_secrets("cannot connect to amqp://me:secret@mq:5672/hooks?x=1: refused")
    'cannot connect to amqp://mq:5672/hooks refused'
    >>> without_url_secrets("postgresql://u:p/w?#@h/db"), without_url_secrets("https://h/x?a='1'&b=2 late")
    ('postgresql://h/db', 'https://h/x late')
    """
    return _URL.sub(_shown_url, text) if "://" in text else text


def _shown_url(url: re.Match[str]) -> str:
    scheme, rest = url.groups()
    if _AUTHORITY.match(rest) is None:
        _, at, rest = rest.rpartition("@")
        if not at:
            return f"{scheme}…"
    return scheme + re.split("[?#]", rest, maxsplit=1)[0]


def _value(value: Value | UUID | Path | BaseException) -> Value:
    match value:
        case BaseException():
            return one_line(value)
        case UUID() | Path():
            return without_url_secrets(str(value))
        case str():
            return without_url_secrets(value)
        case _:
            return value


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    if value and value.isprintable() and not _QUOTED.search(value):
        return value
    return _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """The text with escapes for control characters, line separators and what changes the direction of writing."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _unicode(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _traceback(error: BaseException) -> str:
    """The traceback, without what PostgreSQL quotes of rows and parameters."""
    text = logging.Formatter().formatException((type(error), error, error.__traceback__))
    for cause in _chain(error):
        diag = getattr(cause, "diag", None)
        for quoted in (getattr(diag, "message_detail", None), getattr(diag, "context", None)):
            if quoted:
                text = text.replace(quoted, "(not logged)")
    return without_url_secrets(text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it was raised from or during."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, *getattr(cause, "exceptions", ())]


def set_up(*, log_format: str, log_level: str) -> None:
    """Sends this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    for noisy in ("celery", "kombu", "alembic", "uvicorn", "httpx"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
