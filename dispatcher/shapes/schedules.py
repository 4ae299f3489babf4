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
        str | None, About("As its file says, if that is what new deliveries pin.", "Immediately, then 5 s and 5 m.")
    ]
    source: Annotated[str | None, About("Who declared the numbers.", "the provider's documentation")]
    version: Annotated[str, About("SHA-256 of what decides its behaviour, in hex.", "57929f67286c")]
    relative_to: Annotated[RelativeTo, About(example="previous_failure")]
    waits: Annotated[list[str], About("The n-th precedes attempt n.", ["0s", "5s", "5m"])]
    waits_s: Annotated[list[float], About(example=[0, 5, 300])]
    jitter: Annotated[float, About("A wait is multiplied by uniform(1, 1 + jitter).", 0.0)]
    attempts: Annotated[int, About(example=3)]
    total_s: Annotated[float, About("If failures took no time and jitter drew nothing.", 305)]


class PlannedAttempt(TypedDict):
    """One attempt of a delivery of which every attempt fails at once."""

    number: Annotated[int, About(example=2)]
    wait_s: Annotated[float, About(example=5)]
    offset_s: Annotated[float, About("From the start, with the least jitter.", 5)]
    latest_offset_s: Annotated[float, About("The same with the most.", 5)]
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
    """What an attempt meets."""

    status_code: Annotated[int | None, About("None: the receiver did not answer.", 503, ge=200, le=599)]
    retry_after_s: Annotated[float | None, About("What it asks for by Retry-After.", 120, ge=0, le=366 * 86400)]


@request
class NewSimulation(TypedDict, total=False):
    """What is simulated: a schedule by its name, or one of its own (`waits`), and what the receiver answers."""

    name: Annotated[str | None, About(example="standard", max_length=200)]
    waits: Annotated[list[str] | None, About(example=["0s", "5s", "5m"], min_length=1, max_length=100)]
    relative_to: Annotated[RelativeTo, About(example="previous_failure")]
    jitter: Annotated[float, About(example=0.0, ge=0, le=1)]
    start: Annotated[
        InstantGiven | None, About("When the event is accepted; now, if left out.", "2026-01-31T12:00:00Z")
    ]
    outcomes: Annotated[
        list[SimulatedAnswer], About("What the first attempts meet, before `down` says it.", max_length=100)
    ]
    down: Annotated[list[DownTime], About("Without any the receiver never fails.", max_length=100)]
    profile: Annotated[str | None, About("By which outcomes are judged.", "default", max_length=200)]
    takes_s: Annotated[float, About("How long a failing attempt takes.", 0.0, ge=0, le=60)]


class SimulatedAttempt(TypedDict):
    """One attempt of the simulated delivery."""

    number: Annotated[int, About(example=1)]
    offset_s: Annotated[float, About(example=0)]
    at: Instant
    ok: Annotated[bool, About(example=False)]


class Simulation(TypedDict):
    """How the delivery goes."""

    name: Annotated[str | None, About(example="standard")]
    version: Annotated[str, About(example="57929f67286c")]
    start: Instant
    attempts: list[SimulatedAttempt]
    ended: Annotated[Literal["delivered", "exhausted", "rejected"], About(example="delivered")]
    reason: Annotated[str, About("What ends it, as in the delivery log.", "ok 200")]
    delay_s: Annotated[float, About("From the event to the last attempt.", 16505)]


class SchedulePage(Paged):
    """All schedules."""

    data: list[Schedule]
