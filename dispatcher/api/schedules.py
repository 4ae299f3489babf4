"""`/v1/schedules`: when attempts are made, and what that makes of an outage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, cast

from fastapi import APIRouter, Path, Query, Response

from dispatcher import wiring
from dispatcher.api.caller import CallerOf
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import InstantParameter, whole
from dispatcher.egress import classify
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.flow.rules import decision_rules
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import RetrySchedule, format_duration, parse_duration, preview, simulate
from dispatcher.shapes import (
    NewSimulation,
    PlannedAttempt,
    Schedule,
    SchedulePage,
    SchedulePreview,
    SimulatedAnswer,
    SimulatedAttempt,
    Simulation,
)
from dispatcher.shapes.values import instant
from dispatcher.store import schedules as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.api.context import Context
    from dispatcher.config import Settings
    from dispatcher.model.profile import Profile
    from dispatcher.retry import Catalog
    from dispatcher.retry import Simulation as Simulated

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

Name = Annotated[str, Path(description="The schedule's name.", max_length=200, examples=["standard"])]


@router.get("", response_model=SchedulePage)
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """List the retry schedules."""
    found = await context.transaction(store.current)
    files = _files(context.settings)
    return reply(whole([_form(RetrySchedule.from_canonical(name, body), files) for name, body in found]))


@router.get("/{name}", response_model=Schedule)
async def show(name: Name, context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001
    """Get a retry schedule."""
    schedule = await context.transaction(lambda connection: _named(connection, name))
    return reply(_form(schedule, _files(context.settings)))


@router.get("/{name}/preview", response_model=SchedulePreview)
async def preview_(
    name: Name,
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001
    start: Annotated[
        InstantParameter | None,
        Query(description="When the event is accepted; now, if left out.", examples=["2026-01-31T12:00:00Z"]),
    ] = None,
) -> Response:
    """Preview when each attempt of a delivery would start if all failed at once."""
    schedule = await context.transaction(lambda connection: _named(connection, name))
    begin = _start(start, context.clock.now())
    planned = preview(schedule)
    try:
        attempts: list[PlannedAttempt] = [
            {
                "number": one.number,
                "wait_s": one.wait.total_seconds(),
                "offset_s": one.earliest.total_seconds(),
                "latest_offset_s": one.latest.total_seconds(),
                "at": instant(begin + one.earliest),
                "latest_at": instant(begin + one.latest),
            }
            for one in planned
        ]
    except OverflowError as error:
        raise InvalidInput("/start", begin.isoformat(), "an instant from which no attempt is after 9999") from error
    found: SchedulePreview = {
        "name": schedule.name,
        "version": schedule.version,
        "start": instant(begin),
        "attempts": attempts,
        "total_s": planned[-1].earliest.total_seconds(),
    }
    return reply(found)


@router.post("/simulate", response_model=Simulation)
async def simulate_(
    asked: NewSimulation,
    once: OnceOf,
    context: ContextOf,
    caller: CallerOf,  # noqa: ARG001 - any key
) -> Response:
    """Simulate a schedule during an outage: each attempt, how the delivery ends and how late. Nothing is sent."""
    begin = _start(cast("datetime | None", asked.get("start")), context.clock.now())
    profile = _profile(context, asked.get("profile"))
    answers = [_outcome(one, profile) for one in asked.get("outcomes", ())]

    def work(connection: Connection) -> Simulation:
        schedule = _asked(connection, asked)
        spans = []
        for n, down in enumerate(asked.get("down", ())):
            down_at, up_at = cast("datetime", down["begin"]), cast("datetime", down["end"])
            if up_at <= down_at:
                raise InvalidInput(f"/down/{n}/end", up_at.isoformat(), "an instant after its begin")
            spans.append((down_at - begin, up_at - begin))
        takes = timedelta(seconds=asked.get("attempt_duration_s", 0.0))
        done = simulate(schedule, spans, answers=answers, rules=decision_rules(profile), takes=takes)
        return _simulated(asked, schedule, begin, done)

    return await once.run(work)


def _simulated(asked: NewSimulation, schedule: RetrySchedule, begin: datetime, done: Simulated) -> Simulation:
    try:
        attempts: list[SimulatedAttempt] = [
            {
                "number": attempt.number,
                "offset_s": attempt.offset.total_seconds(),
                "at": instant(begin + attempt.offset),
                "ok": attempt.ok,
            }
            for attempt in done.attempts
        ]
    except OverflowError as error:
        raise InvalidInput("/start", begin.isoformat(), "an instant from which no attempt is after 9999") from error
    return {
        "name": asked.get("name"),
        "version": schedule.version,
        "start": instant(begin),
        "attempts": attempts,
        "ended": cast("Literal['delivered', 'exhausted', 'rejected']", done.ended),
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


def _outcome(answer: SimulatedAnswer, profile: Profile) -> Outcome:
    status, retry_after_s = answer.get("status_code"), answer.get("retry_after_s")
    if status is None:
        return Outcome(OutcomeClass.CONNECT)
    kind = classify(status, has_retry_after=retry_after_s is not None, success=profile.success)
    return Outcome(kind, status_code=status, retry_after_s=retry_after_s)


def _asked(connection: Connection, asked: NewSimulation) -> RetrySchedule:
    name, given = asked.get("name"), asked.get("waits")
    if (name is None) == (given is None):
        found = "neither a name nor waits" if name is None else "a name and waits"
        raise InvalidInput("/name", found, "one of the two")
    if name is not None:
        return _named(connection, name)
    waits = []
    for n, wait in enumerate(given or ()):
        try:
            waits.append(parse_duration(wait))
        except ValueError as error:
            raise InvalidInput(f"/waits/{n}", repr(wait)[:80], "a duration such as 5s, 30m or 1h30m") from error
    try:
        return RetrySchedule(
            "", tuple(waits), relative_to=asked.get("relative_to", "previous_failure"), jitter=asked.get("jitter", 0.0)
        )
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


def _form(schedule: RetrySchedule, files: Catalog) -> Schedule:
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
