"""One delivery's whole story: where it is, what was tried, why it failed, what comes next, and how to prove it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dispatcher.flow import evidence, intervene
from dispatcher.ids import format_id
from dispatcher.model.advice import advise
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import BodyForm, StoredEvent
from dispatcher.model.event import body as body_of
from dispatcher.model.outcome import OutcomeClass, Phase
from dispatcher.model.profile import Profile
from dispatcher.retry import ahead
from dispatcher.retry.schedule import RetrySchedule
from dispatcher.store import endpoints, log, trail
from dispatcher.store import story as store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.flow.evidence import SignatureCheck
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.outcome_class import Advice
    from dispatcher.retry.preview import DatedAttempt
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery, LoggedEvent
    from dispatcher.store.story import Replayed
    from dispatcher.store.trail import Entry

ENTRIES: Final = 100
"""Of the audit log, that are told of each object: the newest ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The attempts that a schedule still has for a delivery; `no_attempt_reason` says why where there is none."""

    attempts: int
    planned: tuple[DatedAttempt, ...]
    no_attempt_reason: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """See the module. `event` None is past its retention, `body` None is gone; `replays` is what it replays.

    `delivered` says whether the delivery or its latest replay to the same endpoint was delivered.
    """

    verdict: str
    delivered: bool
    delivery: LoggedDelivery
    event: LoggedEvent | None
    body: bytes | None
    endpoint: Endpoint
    attempts: tuple[LoggedAttempt, ...]
    plan: Plan
    replays: Replayed | None
    replayed_by: tuple[Replayed, ...]
    audit: tuple[Entry, ...]
    curl: str | None
    signatures: tuple[SignatureCheck, ...]


def tell(
    connection: Connection, delivery_id: UUID, *, profiles: Mapping[str, Profile], now: datetime, own: UUID | None
) -> Story:
    """Reads it. Raises NotFound where it is not there, or not of the tenant `own`, if given.

    An owner is told of replays to endpoints of its own, and only operators of changes of the endpoint.
    """
    one = intervene.find(connection, delivery_id, own=own)
    endpoint = endpoints.fetch(connection, [one.endpoint_id])[one.endpoint_id]
    event = log.find_event(connection, one.event_id)
    attempts = log.attempts(connection, delivery_id)
    profile = profiles.get(endpoint.profile)
    sent = next((each for each in reversed(attempts) if each.request_headers), None)
    expires_at, target_method = store.more(connection, delivery_id)
    method = sent.method if sent is not None else target_method or endpoint.method
    body = _body(event, method, sent, profile)
    renamed = {} if profile is None else dict(profile.signature_headers)
    plan = _plan(connection, one, expires_at, now)
    replayed_by = store.replays(connection, delivery_id, one.event_id, own=own)
    return Story(
        verdict=verdict(one, attempts, plan, replayed_by),
        delivered=_was_delivered(one, replayed_by),
        delivery=one,
        event=event,
        body=body,
        endpoint=endpoint,
        attempts=tuple(attempts),
        plan=plan,
        replays=_original(connection, one, own),
        replayed_by=tuple(replayed_by),
        audit=tuple(_audit(connection, one, own)),
        curl=None if sent is None or body is None else evidence.curl(sent, body),
        signatures=() if sent is None else tuple(evidence.signature_checks(sent, _signed(sent, body), renamed=renamed)),
    )


def _body(event: LoggedEvent | None, method: str, sent: LoggedAttempt | None, profile: Profile | None) -> bytes | None:
    """The bytes that were sent or, where nothing was yet, will be: empty by GET. None where they are gone.

    The hash of what was sent decides between the forms: the profile may have been changed since.
    """
    if event is None or event.payload is None:
        return None
    if method == "GET":
        return b""
    kept = StoredEvent(event.id, event.type, event.mode, event.payload, event.created_at, event.object_id)
    now = Profile(name="") if profile is None else profile
    forms = [(BodyForm(now.body), now.envelope_members), (BodyForm.ENVELOPE, ()), (BodyForm.VERBATIM, ())]
    bodies = [body_of(kept, form, members) for form, members in forms]
    return next((one for one in bodies if sent is not None and sent.body_sha256 == sha256(one).digest()), bodies[0])


def _signed(sent: LoggedAttempt, body: bytes | None) -> bytes | None:
    """What of an attempt was signed, if that is still known."""
    content = evidence.target_of(sent.url) if sent.method == "GET" else body
    return content if content is not None and sha256(content).digest() == sent.body_sha256 else None


def _original(connection: Connection, one: LoggedDelivery, own: UUID | None) -> Replayed | None:
    found = None if one.replay_of is None else log.find(connection, one.replay_of)
    if found is None or own not in (None, found.tenant_id):
        return None
    return store.Replayed(found.id, found.state, found.created_at, found.endpoint_id)


def _audit(connection: Connection, one: LoggedDelivery, own: UUID | None) -> list[Entry]:
    """The oldest first."""
    entries = trail.read(connection, object=format_id("dlv", one.id), limit=ENTRIES)
    if own is None:
        endpoint_id = format_id("ep", one.endpoint_id)
        entries += trail.read(connection, object=endpoint_id, since=one.created_at, limit=ENTRIES)
    return sorted(entries, key=lambda entry: entry.id)


# What comes next


def _plan(connection: Connection, one: LoggedDelivery, expires_at: datetime | None, now: datetime) -> Plan:
    schedule = RetrySchedule.from_canonical(
        one.schedule, store.schedule(connection, one.schedule, one.schedule_version)
    )
    no_attempt_reason = _no_attempt_reason(one)
    planned = () if no_attempt_reason is not None else tuple(_planned(schedule, one, now, expires_at))
    if not planned and no_attempt_reason is None:
        no_attempt_reason = "The attempt that is being made is the last one."
        if expires_at is not None and (one.state is DeliveryState.WAITING or one.attempts + 1 < schedule.attempts):
            no_attempt_reason = f"It expires at {_at(expires_at)}, before another attempt is due."
    return Plan(schedule.attempts, planned, no_attempt_reason, expires_at)


def _no_attempt_reason(one: LoggedDelivery) -> str | None:
    match one.state:
        case DeliveryState.WAITING:
            return None if one.held is None else f"It is held: {one.held}."
        case DeliveryState.IN_FLIGHT:
            return None
        case DeliveryState.DELIVERED:
            return "It was delivered."
        case DeliveryState.EXHAUSTED:
            return "Every attempt of its schedule was made."
        case DeliveryState.REJECTED:
            return f"It was given up, since another attempt would end the same: {one.reason}."
        case DeliveryState.EXPIRED:
            return "It expired."
        case DeliveryState.CANCELLED:
            return f"It was cancelled: {one.reason}."


def _planned(
    schedule: RetrySchedule, one: LoggedDelivery, now: datetime, expires_at: datetime | None
) -> list[DatedAttempt]:
    """What the pinned schedule still has, if everything fails; of one in flight, what follows the attempt."""
    number, first_at = one.attempts + 1, one.first_attempt_at
    if one.state is DeliveryState.IN_FLIGHT or one.due_at is None:
        found = ahead(schedule, number, now, first_at=first_at)[1:]
    else:
        found = ahead(schedule, number, max(one.due_at, now), first_at=first_at)
        found = (replace(found[0], earliest=one.due_at, latest=one.due_at), *found[1:])
    return [each for each in found if expires_at is None or each.earliest < expires_at]


# What to say first


def verdict(one: LoggedDelivery, attempts: Sequence[LoggedAttempt], plan: Plan, replayed_by: Sequence[Replayed]) -> str:
    """Where the notification is, in one sentence."""
    said = _said(one, attempts, plan)
    newest = _latest_replay(one, replayed_by)
    if newest is None:
        return f"{said}."
    became = f"it was replayed as {format_id('dlv', newest.id)}, which"
    match newest.state:
        case DeliveryState.DELIVERED if one.state is not DeliveryState.DELIVERED:
            return f"Delivered by its replay {format_id('dlv', newest.id)}; by itself, {said[0].lower()}{said[1:]}."
        case DeliveryState.DELIVERED:
            return f"{said}; {became} was delivered."
        case DeliveryState.WAITING:
            return f"{said}; {became} waits for its next attempt."
        case DeliveryState.IN_FLIGHT:
            return f"{said}; {became} is being attempted now."
        case _:
            return f"{said}; {became} has ended as {newest.state} too."


def _was_delivered(delivery: LoggedDelivery, replayed_by: Sequence[Replayed]) -> bool:
    replay = _latest_replay(delivery, replayed_by)
    return DeliveryState.DELIVERED in (delivery.state, None if replay is None else replay.state)


def _latest_replay(delivery: LoggedDelivery, replayed_by: Sequence[Replayed]) -> Replayed | None:
    """The latest replay to the same endpoint."""
    return next((replay for replay in reversed(replayed_by) if replay.endpoint_id == delivery.endpoint_id), None)


def _said(one: LoggedDelivery, attempts: Sequence[LoggedAttempt], plan: Plan) -> str:
    last = attempts[-1] if attempts else None
    failure = "" if last is None or last.outcome == OutcomeClass.OK else _short(last)
    match one.state:
        case DeliveryState.DELIVERED:
            if last is None:
                return f"Delivered: {one.url} accepted it"
            by = f"with {last.status_code} on attempt {last.number}"
            return f"Delivered: {one.url} accepted it {by}, {_at(last.started_at)}"
        case DeliveryState.IN_FLIGHT:
            before = f"; before that, {failure}" if failure else ""
            return f"On its way: attempt {one.attempts + 1} of {plan.attempts} is being made now{before}"
        case DeliveryState.WAITING if one.held is not None:
            tried = f"after {_times(one.attempts)}" if one.attempts else "before its first attempt"
            return f"Held {tried}: {one.held}"
        case DeliveryState.WAITING:
            return _waiting(failure, plan)
        case DeliveryState.EXHAUSTED:
            return (
                f"Not delivered: {_times(one.attempts)} failed and no more is planned; at last, {failure or one.reason}"
            )
        case DeliveryState.REJECTED:
            return f"Not delivered, and given up after {_times(max(1, one.attempts))}: {failure or one.reason}"
        case DeliveryState.EXPIRED:
            before = f"; at last, {failure}" if failure else ""
            return f"Not delivered: it expired after {_times(one.attempts)}{before}"
        case DeliveryState.CANCELLED:
            return f"Not delivered: it was cancelled after {_times(one.attempts)} ({one.reason})"


def _waiting(failure: str, plan: Plan) -> str:
    if not plan.planned:
        return f"Not delivered yet: {plan.no_attempt_reason or 'no attempt is planned'}".removesuffix(".")
    following = plan.planned[0]
    due = f"attempt {following.number} of {plan.attempts} is due at {_at(following.earliest)}"
    if not failure:
        return f"Not sent yet: {due}"
    return f"Not delivered yet: {failure}; {due}"


def _short(last: LoggedAttempt) -> str:
    """What happened in the last attempt, as a part of a sentence."""
    summary = explain(last).summary.partition(". ")[0].removesuffix(".")
    return summary[0].lower() + summary[1:]


def explain(one: LoggedAttempt) -> Advice:
    """What is to be said of an attempt."""
    phase = None if one.phase is None else Phase(one.phase)
    return advise(OutcomeClass.named(one.outcome), status_code=one.status_code, phase=phase, known=one.outcome_known)


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _at(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
