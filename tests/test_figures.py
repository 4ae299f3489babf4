"""The figures of the documents are those of the code: each limit and default stands beside its constant here.

A figure that somebody measured names its command beside it, or stands between the marks of the command that writes it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from dispatcher.api import authenticate, connections, gate, once
from dispatcher.cli import doctor
from dispatcher.config import Settings
from dispatcher.egress import connection, transport, url
from dispatcher.flow import enqueue, register, schema_bounds, signing_keys
from dispatcher.local import starting, supervisor
from dispatcher.model import event, parse
from dispatcher.retry import decision, schedule
from dispatcher.signing import platform_keys, scheme
from dispatcher.store import deliveries
from dispatcher.store import limits as time_limits
from dispatcher.store.migrate import head
from dispatcher.workers import loop, scheduler

ROOT: Final = Path(__file__).parents[1]


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def kib(size: int) -> str:
    return f"{size // 1024} KiB"


def mib(size: int) -> str:
    return f"{size // 1024**2} MiB"


def hours(duration: timedelta | float) -> str:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return f"{seconds / 3600:g} hours"


DEFAULTS: Final = Settings()

FIGURES: Final = {
    "docs/api.md": [
        f"kept for {hours(once.KEY_LIFETIME_S)}",
        f"A payload has {kib(event.MAX_PAYLOAD_BYTES)} at most and a request {kib(gate.MAX_BODY_BYTES)}",
        f"of 1 to {thousands(parse.MAX_BATCH)} events, and `POST /v1/endpoints/import` have {mib(gate.MAX_BULK_BYTES)}",
        f"They have {schema_bounds.MAX_PATTERN_CHARACTERS} characters and 256 KiB when compiled",
        (
            f"a search takes longer than {time_limits.SEARCH_S:g} s, or a preview or a start longer than"
            f" {time_limits.COUNT_S:g} s"
        ),
        f"have more than {kib(connections.MAX_HEAD_BYTES)}, or more than {connections.MAX_HEADERS} headers",
    ],
    "docs/authentication.md": [
        f"counts for {authenticate.TOLERANCE_S} seconds either way",
    ],
    "docs/life-of-a-delivery.md": [
        (
            f"takes an idempotency key for {hours(enqueue.KEY_LIFETIME)} and an id of the producer's for"
            f" {enqueue.ID_LIFETIME.days} days"
        ),
        (
            f"one claim takes {loop.BATCH} deliveries of as many lanes,"
            f" and the next look is {scheduler.TICK_S[0] * 1000:g} ms away"
        ),
        f"it sends a message for each {deliveries.LANES_A_BELL} lanes",
        f"after its next record or {loop.CONTENDED_S * 1000:g} ms",
        f"a POST may take {transport.DEADLINE_S:g} seconds",
        f"every {loop.FLUSH_S[0] * 1000:g} to {loop.FLUSH_S[1] * 1000:g} ms or {loop.FLUSH_RESULTS} results",
    ],
    "docs/operations.md": [
        f"after {supervisor.FIRST_BACK_OFF_S:g} s, doubling to {supervisor.LONGEST_BACK_OFF_S:g} s",
        f"it logs every {starting.SAY_EVERY_S:g} s what it waits for",
        f"After `DISPATCHER_HANG_TIMEOUT_S` ({DEFAULTS.hang_timeout_s:g} s)",
        f"`max_connections`: {loop.CONNECTIONS} for each worker, {scheduler.CONNECTIONS} for each scheduler",
        f"A scheduler has up to {scheduler.CONNECTIONS} connections to the database",
        (
            f"process raises its own to the connections that it may have and {connections.RESERVED_FILES} more:"
            f" {thousands(DEFAULTS.api_max_connections)} + {connections.RESERVED_FILES}"
        ),
        f"every sixth of `DISPATCHER_WORKER_LEASE_S` ({DEFAULTS.worker_lease_s / 6:g} s)",
        f"the leader is replaced within {scheduler.LEADER_TERM_S:g} s",
        f"again in {decision.INTERNAL_WAIT_S[0]:g} to {decision.INTERNAL_WAIT_S[1]:g} s, not charged",
        f"{scheduler.RESCUE_TIMEOUT_S:g} s for the rescue and the lead",
        f"Each check ends within {doctor.DEADLINE_S:g} s",
        f"| clock | {doctor.SKEW_S[0]:g} s apart | {doctor.SKEW_S[1]:g} s apart |",
        f"no answer within {doctor.DNS_S:g} s",
        f"| disk | {doctor.FREE_SHARE[0]:.0%} free | {doctor.FREE_SHARE[1]:.0%} or 1 GiB free |".replace("%", " %"),
        f"schema        at {head()}",
    ],
    "docs/outcomes.md": [
        (
            f"{transport.DEADLINE_S:g} s in all from the start of the dial ({transport.DNS_TIMEOUT_S:g} s of them at"
            f" most for the look-up, {transport.CONNECT_TIMEOUT_S:g} s for connecting, TLS included)"
        ),
        (
            f"{kib(connection.MAX_HEAD_BYTES)} of reason phrase and headers, of which {connection._MAX_REASON_BYTES}"
            f" bytes and {connection._MAX_HEADERS} headers are kept, {kib(transport.BODY_BYTES)} of body kept"
        ),
        f"| sends more than {kib(connection.MAX_HEAD_BYTES)} of headers |",
        f"R in {decision.INTERNAL_WAIT_S[0]:g} to {decision.INTERNAL_WAIT_S[1]:g} s, not charged",
        f"max(2 × step, {decision.RETRY_AFTER_FLOOR_S:g} s)",
    ],
    "docs/profiles.md": [f"Deadlines are {transport.DEADLINE_S:g} s everywhere"],
    "docs/replays.md": [
        f"They stop after {time_limits.COUNT_S:g} s",
        f"a lease of {scheduler.LEADER_TERM_S:g} s",
    ],
    "docs/retries.md": [
        (
            f"1 to {schedule.MAX_ATTEMPTS} durations, each at most {schedule.MAX_WAIT.days} days,"
            f" {schedule.MAX_TOTAL.days} days in all"
        ),
    ],
    "docs/scaling.md": [f"{thousands(DEFAULTS.max_in_flight)} deliveries in flight (`DISPATCHER_MAX_IN_FLIGHT`)"],
    "docs/search.md": [
        f"takes longer than {time_limits.SEARCH_S:g} s",
        f"stop after {time_limits.COUNT_S:g} s",
    ],
    "docs/security.md": [
        f"more than {thousands(url.MAX_URL_CHARACTERS)} characters",
        f"bodies are cut at {kib(transport.BODY_BYTES)}",
        f"headers at {kib(connection.MAX_HEAD_BYTES)}",
        f"for {hours(register.OVERLAP)} unless told otherwise",
        (
            f"| a request line and its headers | {kib(connections.MAX_HEAD_BYTES)}, {connections.MAX_HEADERS} headers,"
            f" counted as they come; {DEFAULTS.api_head_timeout_s:g} s |"
        ),
        f"{kib(gate.MAX_BODY_BYTES)}, {mib(gate.MAX_BULK_BYTES)} on the bulk paths; {DEFAULTS.api_body_timeout_s:g} s",
        f"| all unfinished bodies together | {mib(DEFAULTS.api_max_unfinished_bytes)} |",
        f"{kib(connections.MAX_FRAMING_BYTES)}, and {connections.FRAMING_PER_BYTE} bytes for each byte of the body",
        f"| an idle connection | {DEFAULTS.api_idle_timeout_s:g} s | closed |",
        f"| connections | {thousands(DEFAULTS.api_max_connections)} |",
    ],
    "docs/signatures.md": [
        f"| {hours(signing_keys.SIGNS_IN)} later (`--signs-in`) |",
        f"| {hours(signing_keys.OVERLAP)} later (`--overlap`) |",
        f"a new one {thousands(platform_keys.NEW_RSA_BITS)}",
    ],
    "docs/receivers.md": [f"more than {scheme.TOLERANCE_S} s away"],
}
"""What each document says, with the figure taken from where the code has it."""


@pytest.mark.parametrize("document", FIGURES)
def test_the_figures_of_a_document_are_those_of_the_code(document: str) -> None:
    text = re.sub(r"\s+", " ", (ROOT / document).read_text())
    missing = [sentence for sentence in FIGURES[document] if re.sub(r"\s+", " ", sentence) not in text]
    assert missing == []
