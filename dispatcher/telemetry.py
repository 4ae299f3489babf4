"""Logging: one line an event, a dotted past-tense name and its ids; never a body, a secret or a URL's userinfo."""

from __future__ import annotations

import contextlib
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

EVENTS: Final = {
    "api.ended_late": "a transaction ended whose caller had been told that the database does not answer",
    "api.failed": "the database did not answer a request, which got 503",
    "api.few_files": "the process may open too few files for the connections that are set; it admits fewer",
    "api.started": "the HTTP API listens",
    "api.started_read_only": "the API started on a database that is read-only; it answers reads",
    "api.without_broker": "no broker is named: a new event waits for the scheduler's next look",
    "attempt.failed_internally": "a defect of ours ended an attempt; the delivery is not charged for it",
    "bell.dropped": "a message in the broker's queue was not a bell; it was dropped",
    "bell.failed": "the broker does not take bells; the scheduler keeps trying, and workers claim by themselves",
    "broker.unusable": "a worker cannot use the broker; it claims by itself and keeps trying",
    "broker.usable": "the broker can be used again",
    "claims.given_up": "a worker gave back claims that it never heard of: a commit's answer had been lost",
    "clock.stepped": "the database's clock was set; what is due was corrected for it",
    "delivery.attempted": "an attempt was made and recorded: what came of it and what was decided",
    "claim.failed": "the database did not answer a claim; it is tried again",
    "fold.failed": "statistics could not be brought up to date; it is tried again, and answers stay complete",
    "heartbeat.failed": "a worker could not show that it lives",
    "keeper.failed": "a defect of ours met the supervisor, which goes on",
    "leader.elected": "this scheduler now rescues, prunes and makes partitions",
    "migration.lock_missed": "a step of a migration did not get its lock within half a second; it is tried again",
    "migration.waits": "another process migrates the database; this one waits for it to end",
    "process.awaited": "the supervisor waits for a server, a program or the migration to be ready",
    "process.exited": "a child of the supervisor ended by itself",
    "process.given_up": "files of a server have vanished; everything is stopped",
    "process.hung": "a child showed no sign of life for too long; it is stopped, and started again",
    "process.killed": "a child outlived its grace",
    "process.leftover_stopped": "what a killed supervisor had left running was stopped",
    "process.list_failed": "the supervisor could not write the list of what it runs; it is tried again",
    "process.output_failed": "what a child printed could not be passed on; it is read all the same",
    "process.notify_failed": "systemd could not be told that the system is ready",
    "process.restarted": "the supervisor started it again",
    "process.start_failed": "a child could not be started again; it is tried later",
    "process.started": "the supervisor started a child",
    "process.stopped": "the supervisor stopped a child",
    "record.failed": "results could not be written; they are kept and tried again",
    "record.stripped": "the database refused an answer's evidence; the attempt was recorded without it",
    "rescue.done": "claims of dead workers went back to waiting",
    "rescue.failed": "the scheduler could not keep its lead or rescue; it tries again",
    "duty.failed": "another duty of the scheduler failed; it is tried again",
    "retention.done": "a day's partition was dropped, or rewritten without its payloads or answers",
    "retention.failed": "a partition could not be locked or rewritten; it is tried again in a minute",
    "scheduler.started": "a scheduler ticks",
    "scheduler.stopped": "a scheduler has ended",
    "schema.refused": "a schema that an earlier version has stored has no bound; events of the type are refused",
    "key.use_not_noted": "when keys were last used could not be written; their callers were served",
    "key.unusable": "a platform key does not sign; what its schemes sign waits for one that does",
    "tick.failed": "the scheduler could not ask the database what is due; it is tried again",
    "wakeup.failed": "the broker did not take a wake-up; the scheduler polls anyway",
    "worker.failed": "a defect of ours ended a worker's duty, and with it the process; its claims are rescued",
    "worker.started": "a worker may claim",
    "worker.stopped": "a worker has recorded or released all that it had",
}
"""Every name that a log line may have. `docs/logs.md` holds the same table, and a test compares the two."""

_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))}


class TextFormatter(logging.Formatter):
    """`2026-01-01T00:00:00.000Z INFO worker.started worker=…`, control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback's lines below it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = f"{at} {record.levelname} {record.getMessage().translate(_CONTROL)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


def one_line(error: BaseException) -> str:
    """The error that is behind a library's wrapping of it, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__


def info_many(logger: logging.Logger, name: str, details: Iterable[str], *, at: datetime) -> None:
    """Logs many lines of one name and instant by one write: a record of logging's own for each would cost a delivery
    some 15 µs more. `details` hold no control characters. A log that cannot be written, such as a file on a full disk,
    stops nobody's work: the lines are lost, as logging's own are.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    messages = [f"{name} {detail}" for detail in details]
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.StreamHandler):
            continue
        match handler.formatter:
            case TextFormatter():
                stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
                lines = [f"{stamp} INFO {message}\n" for message in messages]
            case JsonFormatter():
                entry = {"time": at, "level": "INFO", "logger": logger.name}
                lines = [orjson.dumps(entry | {"message": message}).decode() + "\n" for message in messages]
            case _:
                continue
        with handler.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            handler.stream.write("".join(lines))
            handler.flush()


def set_up(*, log_format: str, log_level: str) -> None:
    """Sends this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    for noisy in ("celery", "kombu", "alembic", "uvicorn", "httpx"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
