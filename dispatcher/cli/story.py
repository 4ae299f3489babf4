"""How one delivery's story is told to a person at a terminal, and what of it can be had by itself."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from dispatcher.cli.decisions import decision_text
from dispatcher.cli.output import console, print_fields, print_line, print_table, styled, visible
from dispatcher.cli.reasons import reason_of
from dispatcher.model.delivery import DeliveryState

if TYPE_CHECKING:
    from rich.text import Text

    from dispatcher.shapes import AuditEntry, RelatedDelivery, StepTimes, Story, StoryAttempt

COLOURS: Final = {
    DeliveryState.WAITING: "yellow",
    DeliveryState.IN_FLIGHT: "cyan",
    DeliveryState.DELIVERED: "green",
    DeliveryState.EXHAUSTED: "red",
    DeliveryState.REJECTED: "red",
    DeliveryState.EXPIRED: "red",
    DeliveryState.CANCELLED: "magenta",
}

_BAR: Final = 12
_STEPS: Final = (("d", "blue", "dns"), ("c", "cyan", "connect"), ("t", "magenta", "tls"), ("=", "yellow", "the answer"))
"""Mark, colour and name of each step of an attempt, in their order."""
_ANSWER: Final = 2000
"""Characters of the last answer's body that are shown."""

_SOON: Final = 5
"""Planned attempts that are shown."""


def show(story: Story, now: datetime) -> None:
    """Prints the whole story; `now` is what planned attempts are counted from."""
    state = DeliveryState(story["delivery"]["status"])
    colour = COLOURS[DeliveryState.DELIVERED if story["delivered"] else state]
    console().print(styled(visible(story["verdict"]), f"bold {colour}"))
    print_line("")
    print_fields(_fields(story, state))
    print_line("")
    _print_attempts(story["attempts"])
    last = story["attempts"][-1] if story["attempts"] else None
    if last is not None and last["outcome"] != "ok":
        _print_explanation(last)
    if last is not None:
        _print_answer(last)
    _print_planned(story, now)
    _print_replays(story)
    _print_audit(story["audit"])


def _fields(story: Story, state: DeliveryState) -> list[tuple[str, object]]:
    one, event, endpoint = story["delivery"], story["event"], story["endpoint"]
    found: list[tuple[str, object]] = [
        ("delivery", one["id"]),
        ("status", styled(one["status"], COLOURS[state])),
    ]
    if reason := reason_of(one):
        found.append(("why", reason))
    found.append(("event", f"{event['id']}  {event['type']}  {event['mode']}"))
    if event["object_id"]:
        found.append(("object", event["object_id"]))
    body = event["body"]
    gone = f"gone: {event['payload_gone']}"
    found += [
        ("body", gone if body is None else f"{body['size']:,} bytes, sha256 {body['sha256']}"),
        ("endpoint", f"{endpoint['id']}  {endpoint['url']}"),
        ("", f"{endpoint['status']}, profile {endpoint['profile']}"),
        ("tenant", one["tenant_id"]),
        ("schedule", f"{one['schedule']['name']} (version {one['schedule']['version']})"),
        ("created", one["created_at"]),
    ]
    if one["ended_at"]:
        found.append(("ended", one["ended_at"]))
    if story["schedule"]["expires_at"]:
        found.append(("expires", story["schedule"]["expires_at"]))
    return found


def _print_attempts(attempts: list[StoryAttempt]) -> None:
    longest = max((sum(_steps(one["timings"])) for one in attempts), default=0.0)
    print_table(
        ["#", "when UTC", "outcome", "HTTP", "ms", "where it went", "decision"],
        [
            (
                one["number"],
                _moment(one["started_at"]),
                _outcome(one),
                one["status_code"],
                f"{one['duration_ms']:,.0f}",
                _bar(one["timings"], longest),
                decision_text(one),
            )
            for one in attempts
        ],
        caption="" if attempts else "No attempt has been made.",
    )
    if longest:
        print_line("where it went: " + ", ".join(f"{mark} {name}" for mark, _, name in _STEPS), style="dim")


def _outcome(one: StoryAttempt) -> Text:
    text = one["outcome"] if one["outcome_known"] else f"{one['outcome']}, perhaps received"
    return styled(text, "green" if one["outcome"] == "ok" else "red")


def _steps(times: StepTimes) -> tuple[float, ...]:
    """Milliseconds of each of `_STEPS`; 0 where it was not needed or is not known."""
    return tuple(times[one] or 0.0 for one in ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms"))


def _bar(times: StepTimes, longest: float) -> Text:
    """Where the time went, to the scale of the longest attempt; one mark at least for each step that was made."""
    bar = styled("")
    for took, (mark, style, _) in zip(_steps(times), _STEPS, strict=True):
        if took:
            bar.append(mark * max(round(_BAR * took / longest), 1), style=style)
    return bar


def _print_explanation(last: StoryAttempt) -> None:
    words = last["explanation"]
    print_line("")
    print_line(f"attempt {last['number']}, explained", style="bold")
    fields: list[tuple[str, object]] = [("what happened", words["summary"])]
    if last["error"]:
        fields.append(("exactly", last["error"]))
    fields += [("likely cause", words["likely_cause"]), ("tell the merchant", words["merchant_message"])]
    print_fields(fields)


def _print_answer(last: StoryAttempt) -> None:
    response = last["response"]
    if not response["headers"] and not response["body"]:
        return
    print_line("")
    where = f" from {last['peer_ip']}" if last["peer_ip"] else ""
    print_line(f"last answer: {last['status_code']}{where}", style="bold")
    for name, value in response["headers"]:
        print_line(f"{name}: {value}")
    if response["body"]:
        print_line(re.sub(r"^", "  ", visible(response["body"][:_ANSWER]), flags=re.MULTILINE))
    if response["body_truncated"]:
        print_line(f"(the body ended as {response['body_end']})")


def _print_planned(story: Story, now: datetime) -> None:
    schedule = story["schedule"]
    print_line("")
    print_line("what comes next", style="bold")
    if schedule["no_attempt_reason"]:
        print_line(f"nothing. {schedule['no_attempt_reason']}")
        return
    planned = schedule["planned"]
    print_table(
        ["#", "at", "", ""],
        [
            (
                f"{one['number']} of {schedule['attempts']}",
                f"{datetime.fromisoformat(one['earliest_at']):%Y-%m-%d %H:%M:%S} UTC",
                away((datetime.fromisoformat(one["earliest_at"]) - now).total_seconds()),
                "" if n == 0 else "if those before it fail",
            )
            for n, one in enumerate(planned[:_SOON])
        ],
    )
    if len(planned) > _SOON:
        last = datetime.fromisoformat(planned[-1]["earliest_at"])
        print_line(f"… and {len(planned) - _SOON} more, the last at {last:%Y-%m-%d %H:%M:%S} UTC")


def away(seconds: float) -> str:
    """How far off a moment is, in its two largest units.

    >>> away(252.4), away(-1), away(90_000)
    ('in 4 m 12 s', 'now', 'in 1 d 1 h')
    """
    rest = int(seconds)
    if rest <= 0:
        return "now"
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
    return "in " + " ".join(parts[:2])


def _print_replays(story: Story) -> None:
    related = story["replays"]
    rows = [] if related["replay_of"] is None else [_kin("replays", related["replay_of"])]
    rows += [_kin("replayed by", one) for one in related["replayed_by"]]
    if rows:
        print_line("")
        print_line("replays", style="bold")
        print_table(["", "delivery", "status", "created"], rows)


def _kin(what: str, one: RelatedDelivery) -> tuple[object, ...]:
    status = styled(one["status"], COLOURS[DeliveryState(one["status"])])
    return (what, one["id"], status, _moment(one["created_at"]))


def _print_audit(entries: list[AuditEntry]) -> None:
    if entries:
        print_line("")
        print_line("what people did", style="bold")
        print_table(
            ["when UTC", "who", "what", "to"],
            [(_moment(one["at"]), one["actor"], one["action"], one["object"]) for one in entries],
        )


def _moment(at: str) -> str:
    """An instant with the day of the year, short enough for a table.

    >>> _moment("2026-03-02T09:00:00.123456Z")
    '03-02 09:00:00'
    """
    return f"{datetime.fromisoformat(at):%m-%d %H:%M:%S}"


# By itself


def print_curl(story: Story) -> None:
    """The command that repeats the last attempt. Raises ClickException where there is none."""
    if story["curl"] is None:
        why = "the body is gone" if story["event"]["body"] is None else "nothing was sent yet"
        raise click.ClickException(f"there is nothing to repeat: {why}")
    print_line(story["curl"])


def print_body(story: Story) -> None:
    """The body: into a pipe its exact bytes, on a terminal with control characters made visible."""
    body = story["event"]["body"]
    if body is None:
        raise click.ClickException(f"the body is gone: {story['event']['payload_gone']}")
    content = body["text"].encode() if body["encoding"] == "utf-8" else bytes.fromhex(body["text"])
    if sys.stdout.isatty():
        print_line(content.decode(errors="backslashreplace"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_checks(story: Story) -> None:
    """The commands that check the last attempt's signatures, as a script for bash."""
    if not story["signature_check"]:
        raise click.ClickException("no attempt was sent with a signature")
    for one in story["signature_check"]:
        print_line(f"# {one['scheme']}: {one['header']}: {one['value']}")
        print_line(f"# signed: {one['signed']}")
        print_line(f"# needs: {one['key']}")
        if one["command"] is None or one["verify_command"] is None:
            print_line("# what was signed is gone\n")
            continue
        print_line(f"{one['command']}\n")
        print_line("# the same, and why it is not genuine if it is not")
        print_line(f"{one['verify_command']}\n")
