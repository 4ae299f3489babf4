"""`/v1/schedules`: when attempts are made, and what that makes of an outage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher import wiring
from dispatcher.api.context import CallerOf, ContextOf, Instant, OnceOf, Page, reply, whole
from dispatcher.egress import classify
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.flow.rules import decision_rules
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import RetrySchedule, format_duration, parse_duration, preview, simulate
from dispatcher.store import schedules as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.api.context import Context
    from dispatcher.config import Settings
    from dispatcher.model.profile import Profile
    from dispatcher.retry import Catalog, Simulation

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

Name = Annotated[str, Path(description="The schedule's name.", max_length=200, examples=["standard"])]
_RELATIVE_TO = Literal["previous_failure", "first_attempt"]


class Schedule(BaseModel):
    """A retry schedule, as new deliveries pin it."""

    name: str = Field(examples=["standard"])
    description: str | None = Field(
        description="As its file says, if that is what new deliveries pin.", examples=["Immediately, then 5 s and 5 m."]
    )
    source: str | None = Field(description="Who declared the numbers.", examples=["the provider's documentation"])
    version: str = Field(description="SHA-256 of what decides its behaviour, in hex.", examples=["57929f67286c"])
    relative_to: _RELATIVE_TO = Field(examples=["previous_failure"])
    waits: list[str] = Field(description="The n-th precedes attempt n.", examples=[["0s", "5s", "5m"]])
    waits_s: list[float] = Field(examples=[[0, 5, 300]])
    jitter: float = Field(description="A wait is multiplied by uniform(1, 1 + jitter).", examples=[0.0])
    attempts: int = Field(examples=[3])
    total_s: float = Field(description="If failures took no time and jitter drew nothing.", examples=[305])


class PlannedAttempt(BaseModel):
    """One attempt of a delivery of which every attempt fails at once."""

    number: int = Field(examples=[2])
    wait_s: float = Field(examples=[5])
    offset_s: float = Field(description="From the start, with the least jitter.", examples=[5])
    latest_offset_s: float = Field(description="The same with the most.", examples=[5])
    at: datetime = Field(examples=["2026-01-31T12:00:05Z"])
    latest_at: datetime = Field(examples=["2026-01-31T12:00:05Z"])


class SchedulePreview(BaseModel):
    """A schedule laid out in time."""

    name: str = Field(examples=["standard"])
    version: str = Field(examples=["57929f67286c"])
    start: datetime = Field(examples=["2026-01-31T12:00:00Z"])
    attempts: list[PlannedAttempt]
    total_s: float = Field(examples=[99305])


class Down(BaseModel):
    """A span in which the receiver fails: from then until just before the end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    begin: Instant = Field(examples=["2026-01-31T12:00:00Z"])
    end: Instant = Field(examples=["2026-01-31T15:30:00Z"])


class Answer(BaseModel):
    """What an attempt meets."""

    model_config = ConfigDict(extra="forbid", strict=True)

    status_code: int | None = Field(
        default=None, ge=200, le=599, description="None: the receiver did not answer.", examples=[503]
    )
    retry_after_s: float | None = Field(
        default=None, ge=0, le=366 * 86_400, description="What it asks for by Retry-After.", examples=[120]
    )


class SimulationIn(BaseModel):
    """What is simulated: a schedule by its name, or one of its own (`waits`), and what the receiver answers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(default=None, max_length=200, examples=["standard"])
    waits: list[str] | None = Field(default=None, min_length=1, max_length=100, examples=[["0s", "5s", "5m"]])
    relative_to: _RELATIVE_TO = Field(default="previous_failure", examples=["previous_failure"])
    jitter: float = Field(default=0.0, ge=0, le=1, examples=[0.0])
    start: Instant | None = Field(
        default=None, description="When the event is accepted; now, if left out.", examples=["2026-01-31T12:00:00Z"]
    )
    outcomes: list[Answer] = Field(
        default_factory=list, max_length=100, description="What the first attempts meet, before `down` says it."
    )
    down: list[Down] = Field(default_factory=list, max_length=100, description="Without any the receiver never fails.")
    profile: str | None = Field(
        default=None, max_length=200, description="By which outcomes are judged.", examples=["default"]
    )
    takes_s: float = Field(default=0.0, ge=0, le=60, description="How long a failing attempt takes.", examples=[0.0])


class SimulatedAttempt(BaseModel):
    """One attempt of the simulated delivery."""

    number: int = Field(examples=[1])
    offset_s: float = Field(examples=[0])
    at: datetime = Field(examples=["2026-01-31T12:00:00Z"])
    ok: bool = Field(examples=[False])


class SimulationOut(BaseModel):
    """How the delivery goes."""

    name: str | None = Field(examples=["standard"])
    version: str = Field(examples=["57929f67286c"])
    start: datetime = Field(examples=["2026-01-31T12:00:00Z"])
    attempts: list[SimulatedAttempt]
    ended: Literal["delivered", "exhausted", "rejected"] = Field(examples=["delivered"])
    reason: str = Field(description="What ends it, as in the delivery log.", examples=["ok 200"])
    delay_s: float = Field(description="From the event to the last attempt.", examples=[16505])


@router.get("", response_model=Page[Schedule])
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """The schedules that an endpoint may name."""
    found = await context.transaction(store.current)
    files = _files(context.settings)
    return reply(whole([_form(RetrySchedule.from_canonical(name, body), files) for name, body in found]))


@router.get("/{name}", response_model=Schedule)
async def show(name: Name, context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001
    """One schedule."""
    schedule = await context.transaction(lambda connection: _named(connection, name))
    return reply(_form(schedule, _files(context.settings)))


@router.get("/{name}/preview", response_model=SchedulePreview)
async def preview_(
    name: Name,
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001
    start: Annotated[
        Instant | None,
        Query(description="When the event is accepted; now, if left out.", examples=["2026-01-31T12:00:00Z"]),
    ] = None,
) -> Response:
    """When each attempt of a delivery would start, if every one failed at once."""
    schedule = await context.transaction(lambda connection: _named(connection, name))
    begin = _start(start, context.clock.now())
    planned = preview(schedule)
    try:
        attempts = [
            {
                "number": one.number,
                "wait_s": one.wait.total_seconds(),
                "offset_s": one.earliest.total_seconds(),
                "latest_offset_s": one.latest.total_seconds(),
                "at": begin + one.earliest,
                "latest_at": begin + one.latest,
            }
            for one in planned
        ]
    except OverflowError as error:
        raise InvalidInput("/start", begin.isoformat(), "an instant from which no attempt is after 9999") from error
    return reply(
        {
            "name": schedule.name,
            "version": schedule.version,
            "start": begin,
            "attempts": attempts,
            "total_s": planned[-1].earliest.total_seconds(),
        }
    )


@router.post("/simulate", response_model=SimulationOut)
async def simulate_(
    asked: SimulationIn,
    once: OnceOf,
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001 - any key
) -> Response:
    """What a schedule makes of an outage: each attempt, how the delivery ends and how late. Nothing is sent."""
    begin = _start(asked.start, context.clock.now())
    profile = _profile(context, asked.profile)
    answers = [_outcome(one, profile) for one in asked.outcomes]

    def work(connection: Connection) -> dict[str, Any]:
        schedule = _asked(connection, asked)
        spans = []
        for n, one in enumerate(asked.down):
            if one.end <= one.begin:
                raise InvalidInput(f"/down/{n}/end", one.end.isoformat(), "an instant after its begin")
            spans.append((one.begin - begin, one.end - begin))
        takes = timedelta(seconds=asked.takes_s)
        done = simulate(schedule, spans, answers=answers, rules=decision_rules(profile), takes=takes)
        return _simulated(asked, schedule, begin, done)

    return await once.run(work)


def _simulated(asked: SimulationIn, schedule: RetrySchedule, begin: datetime, done: Simulation) -> dict[str, Any]:
    try:
        attempts = [
            {"number": one.number, "offset_s": one.offset.total_seconds(), "at": begin + one.offset, "ok": one.ok}
            for one in done.attempts
        ]
    except OverflowError as error:
        raise InvalidInput("/start", begin.isoformat(), "an instant from which no attempt is after 9999") from error
    return {
        "name": asked.name,
        "version": schedule.version,
        "start": begin,
        "attempts": attempts,
        "ended": done.ended,
        "reason": done.reason,
        "delay_s": done.delay.total_seconds(),
    }


def _start(asked: datetime | None, now: datetime) -> datetime:
    """In UTC. Raises InvalidInput for one that UTC cannot express."""
    try:
        return (asked or now).astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput("/start", str(asked), "an instant of the years 1 to 9999 in UTC") from error


def _profile(context: Context, name: str | None) -> Profile:
    profile = context.profiles.get(context.settings.default_profile if name is None else name)
    if profile is None:
        raise InvalidInput("/profile", repr(name)[:80], ", ".join(sorted(context.profiles)))
    return profile


def _outcome(answer: Answer, profile: Profile) -> Outcome:
    if answer.status_code is None:
        return Outcome(OutcomeClass.CONNECT)
    kind = classify(answer.status_code, has_retry_after=answer.retry_after_s is not None, success=profile.success)
    return Outcome(kind, status_code=answer.status_code, retry_after_s=answer.retry_after_s)


def _asked(connection: Connection, asked: SimulationIn) -> RetrySchedule:
    if (asked.name is None) == (asked.waits is None):
        found = "neither a name nor waits" if asked.name is None else "a name and waits"
        raise InvalidInput("/name", found, "one of the two")
    if asked.name is not None:
        return _named(connection, asked.name)
    waits = []
    for n, wait in enumerate(asked.waits or ()):
        try:
            waits.append(parse_duration(wait))
        except ValueError as error:
            raise InvalidInput(f"/waits/{n}", repr(wait)[:80], "a duration such as 5s, 30m or 1h30m") from error
    try:
        return RetrySchedule("", tuple(waits), relative_to=asked.relative_to, jitter=asked.jitter)
    except ValueError as error:
        raise InvalidInput("/waits", str(error)[:200], "waits that a schedule can have") from error


def _named(connection: Connection, name: str) -> RetrySchedule:
    body = dict(store.current(connection)).get(name)
    if body is None:
        raise NotFound("there is no such schedule")
    return RetrySchedule.from_canonical(name, body)


@lru_cache(maxsize=8)
def _files(settings: Settings) -> Catalog:
    """The files as they were when the first of these was asked for; they were right when the application was made."""
    return wiring.catalog(settings)


def _form(schedule: RetrySchedule, files: Catalog) -> dict[str, Any]:
    """What the database says; only words are the file's, if it is the version that is pinned."""
    file = files.get(schedule.name)
    words = file if file is not None and file.version == schedule.version else None
    return {
        "name": schedule.name,
        "description": None if words is None else words.description,
        "source": None if words is None else words.source,
        "version": schedule.version,
        "relative_to": schedule.relative_to,
        "waits": [format_duration(wait) for wait in schedule.waits],
        "waits_s": [wait.total_seconds() for wait in schedule.waits],
        "jitter": schedule.jitter,
        "attempts": schedule.attempts,
        "total_s": schedule.total.total_seconds(),
    }
