"""Schedules: when attempts are repeated."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from typing_extensions import TypedDict

from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Instant, InstantGiven, Paged

RelativeTo: TypeAlias = Literal["previous_failure", "first_attempt"]


class Schedule(TypedDict):
    """A retry schedule, as new deliveries pin it."""

    name: Annotated[str, About(example="standard")]
    description: Annotated[
        str | None,
        About(
            "The description in the schedule's file, if new deliveries use that version.",
            "Immediately, then 5 s and 5 m.",
        ),
    ]
    source: Annotated[str | None, About("Where the numbers come from.", "the provider's documentation")]
    version: Annotated[
        str, About("The version: SHA-256 of everything that decides the schedule's behaviour, in hex.", "57929f67286c")
    ]
    relative_to: Annotated[RelativeTo, About(example="previous_failure")]
    waits: Annotated[list[str], About("The waits; the n-th one is the wait before attempt n.", ["0s", "5s", "5m"])]
    waits_s: Annotated[list[float], About(example=[0, 5, 300])]
    jitter: Annotated[float, About("A wait is multiplied by uniform(1, 1 + jitter).", 0.0)]
    attempts: Annotated[int, About(example=3)]
    total_s: Annotated[float, About("The time from the first to the last attempt without jitter, in seconds.", 305)]


class PlannedAttempt(TypedDict):
    """One attempt of a delivery whose attempts all fail at once."""

    number: Annotated[int, About(example=2)]
    wait_s: Annotated[float, About(example=5)]
    offset_s: Annotated[float, About("The time from the start with the least jitter, in seconds.", 5)]
    latest_offset_s: Annotated[float, About("The time from the start with the most jitter, in seconds.", 5)]
    at: Instant
    latest_at: Instant


class SchedulePreview(TypedDict):
    """A schedule laid out in time."""

    name: Annotated[str, About(example="standard")]
    version: Annotated[str, About(example="57929f67286c")]
    start: Instant
    attempts: list[PlannedAttempt]
    total_s: Annotated[float, About(example=99305)]


@request
class DownTime(TypedDict):
    """A span in which the receiver fails: from then until just before the end."""

    begin: Annotated[InstantGiven, About(example="2026-01-31T12:00:00Z")]
    end: Annotated[InstantGiven, About(example="2026-01-31T12:00:00Z")]


@request
class SimulatedAnswer(TypedDict, total=False):
    """The answer to a simulated attempt."""

    status_code: Annotated[
        int | None, About("The HTTP status; null means that the receiver did not answer.", 503, ge=200, le=599)
    ]
    retry_after_s: Annotated[
        float | None, About("The wait that the answer asks for by Retry-After, in seconds.", 120, ge=0, le=366 * 86400)
    ]


@request
class NewSimulation(TypedDict, total=False):
    """A simulation: of a schedule by its name, or of its own `waits`, with the receiver's answers."""

    name: Annotated[str | None, About(example="standard", max_length=200)]
    waits: Annotated[list[str] | None, About(example=["0s", "5s", "5m"], min_length=1, max_length=100)]
    relative_to: Annotated[RelativeTo, About(example="previous_failure")]
    jitter: Annotated[float, About(example=0.0, ge=0, le=1)]
    start: Annotated[
        InstantGiven | None, About("When the event is accepted; the default is now.", "2026-01-31T12:00:00Z")
    ]
    outcomes: Annotated[
        list[SimulatedAnswer], About("The answers to the first attempts; after them, `down` decides.", max_length=100)
    ]
    down: Annotated[list[DownTime], About("When the receiver fails; without any, it never fails.", max_length=100)]
    profile: Annotated[str | None, About("The profile that judges the answers.", "default", max_length=200)]
    attempt_duration_s: Annotated[float, About("How long a failed attempt takes, in seconds.", 0.0, ge=0, le=60)]


class SimulatedAttempt(TypedDict):
    """One attempt of the simulated delivery."""

    number: Annotated[int, About(example=1)]
    offset_s: Annotated[float, About(example=0)]
    at: Instant
    ok: Annotated[bool, About(example=False)]


class Simulation(TypedDict):
    """The course of the simulated delivery."""

    name: Annotated[str | None, About(example="standard")]
    version: Annotated[str, About(example="57929f67286c")]
    start: Instant
    attempts: list[SimulatedAttempt]
    ended: Annotated[Literal["delivered", "exhausted", "rejected"], About(example="delivered")]
    reason: Annotated[str, About("Why the delivery ends, as in the delivery log.", "ok 200")]
    delay_s: Annotated[float, About("The time from the event to the last attempt, in seconds.", 16505)]


class SchedulePage(Paged):
    """All schedules."""

    data: list[Schedule]
