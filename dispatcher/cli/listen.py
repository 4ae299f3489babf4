"""`dispatcher listen`: events as they are accepted, forwarded to a laptop that nothing can reach."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from time import sleep
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click
import httpx
import orjson

from dispatcher import __version__
from dispatcher.cli import target
from dispatcher.cli.arguments import SECRET_VARIABLE, Id
from dispatcher.cli.output import counted, output_option, print_line
from dispatcher.clock import SYSTEM
from dispatcher.errors import Unavailable
from dispatcher.ids import format_id, parse_id
from dispatcher.model.endpoint import validate_event_types
from dispatcher.model.event import BodyForm, StoredEvent
from dispatcher.model.event import body as body_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.shapes import Event, EventFilter
    from dispatcher.signing import Secret

POLL_S: Final = 1.0

OVERLAP: Final = timedelta(seconds=30)
"""How far behind the newest event each look goes: a producer may commit that much after the event's time."""

_PAGE: Final = 100
_WHOLE_EVERY: Final = 10  # looks
_DEADLINE_S: Final = 15.0  # what a delivery has


@click.command()
@click.option("--forward-to", "url", metavar="URL", help="Post each event here, such as http://localhost:3000/hook.")
@click.option("--event-type", "event_types", multiple=True, help="A type, or payment.*; may be repeated.")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Whose events.")
@click.option("--print", "shows_bodies", is_flag=True, help="Show what is sent.")
@click.option(
    "--secret",
    envvar=SECRET_VARIABLE,
    show_envvar=True,
    help="whsec_… to sign with; a new one by default, which is printed.",
)
@output_option
def listen(
    url: str | None,
    event_types: tuple[str, ...],
    tenant_id: UUID | None,
    shows_bodies: bool,
    secret: str | None,
    output: Output,
) -> None:
    """Show new events, and forward them.

    Each event is shown as it is accepted and, with --forward-to, posted once from this machine to a local URL, in test
    and live mode, signed as Standard Webhooks has it by a secret of this session. What is registered is delivered as
    ever; nothing is recorded of what is forwarded. Ctrl-C ends it. With --output
    json, a JSON object a line.
    """
    patterns = validate_event_types(event_types or None)
    chosen: EventFilter = {} if tenant_id is None else {"tenant_id": format_id("ten", tenant_id)}
    key = None if secret is None and url is None else _key(secret)
    if url is not None:
        _check_url(url)
        if secret is None and key is not None:
            _say_secret(key, output)
    seen = forwarded = 0
    with target.client() as client, httpx.Client(trust_env=False, timeout=_DEADLINE_S) as http:
        feed, envelopes = Feed(client, chosen), Envelopes(client)
        feed.start()
        if output == "table":
            print_line("listening; Ctrl-C ends it")
            sys.stdout.flush()
        try:
            while True:
                for event in _new(feed):
                    if patterns is not None and not any(fnmatchcase(event["type"], one) for one in patterns):
                        continue
                    stored = _stored(client, event)
                    has_body = url is not None or shows_bodies
                    members = envelopes.members(event["tenant_id"]) if has_body else ()
                    content = body_of(stored, BodyForm.ENVELOPE, members)
                    result = None if url is None or key is None else forward(http, url, stored, content, key)
                    seen += 1
                    forwarded += result is not None and result.is_success
                    _show(event, content, result, shows_bodies=shows_bodies, output=output)
                sleep(POLL_S)
        except KeyboardInterrupt:
            if output == "table":
                print_line(_summary(seen, None if url is None else forwarded))


class Feed:
    """The events of a client as they become visible, each once, the oldest first.

    An event whose own id is older than OVERLAP when it is accepted is not seen.
    """

    def __init__(self, client: Client, chosen: EventFilter) -> None:
        self._client = client
        self._chosen = chosen
        self._seen: dict[str, datetime] = {}
        self._newest: datetime | None = None
        self._looks = 0

    def start(self) -> None:
        """What is there now is not new. By the platform's time: a laptop's clock may be wrong."""
        for event in self._client.events.list(limit=1, **self._chosen)["data"]:
            self._newest = datetime.fromisoformat(event["created_at"])
        if self._newest is not None:
            self._take()

    def poll(self) -> list[Event]:
        """What has become visible since the last look."""
        return self._take()[::-1]

    def _take(self) -> list[Event]:
        """What was not seen before, the newest first; remembered."""
        since = None if self._newest is None else self._newest - OVERLAP
        # All of OVERLAP is much where much happens: most looks end where nothing is new.
        new = list(self._unseen(since, whole=self._looks % _WHOLE_EVERY == 0))
        self._looks += 1
        for event in new:
            at = datetime.fromisoformat(event["created_at"])
            self._seen[event["id"]] = at
            self._newest = at if self._newest is None else max(at, self._newest)
        if since is not None:
            self._seen = {event_id: at for event_id, at in self._seen.items() if at >= since - OVERLAP}
        return new

    def _unseen(self, since: datetime | None, *, whole: bool) -> Iterator[Event]:
        """Pages back from the newest, all that is asked for if `whole`, else while there is anything new."""
        cursor: str | None = None
        while True:
            chosen: EventFilter = {**self._chosen, "created_after": since}
            page = self._client.events.list(limit=_PAGE, cursor=cursor, **chosen)
            new = [event for event in page["data"] if event["id"] not in self._seen]
            yield from new
            cursor = page["next_cursor"]
            if cursor is None or not (new or whole):
                return


class Envelopes:
    """What a tenant's profile copies into the envelope; asked of the API once for each tenant."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._members: dict[str, tuple[str, ...]] = {}

    def members(self, tenant_id: str) -> tuple[str, ...]:
        """The names of the copied members of the payload."""
        if tenant_id not in self._members:
            name = self._client.tenants.get(tenant_id)["profile"]
            for profile in self._client.profiles()["data"]:
                if profile["default"] if name is None else profile["name"] == name:
                    # An API of an earlier version does not have the field.
                    self._members[tenant_id] = tuple(profile["document"].get("envelope_members", ()))
        return self._members.setdefault(tenant_id, ())


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the local URL answered: a status, or why there was none."""

    status_code: int | None
    error: str | None
    duration_ms: float

    @property
    def is_success(self) -> bool:
        """Whether a delivery would count as delivered."""
        return self.status_code is not None and 200 <= self.status_code <= 299


def _key(secret: str | None) -> Secret:
    """The secret that is given, or a new one. Raises InvalidInput for what is not a secret."""
    from dispatcher.signing import generate_secret, parse_secret  # cryptography, which only forwarding needs

    return generate_secret() if secret is None else parse_secret(secret, pointer="--secret")


def forward(http: httpx.Client, url: str, event: StoredEvent, content: bytes, secret: Secret) -> Forwarded:
    """Signs the body of one event and posts it, once."""
    from dispatcher.signing import SCHEMES

    signed = SCHEMES["standard_webhooks_v1"].sign(
        message_id=format_id("evt", event.id),
        timestamp=int(SYSTEM.now().timestamp()),
        body=content,
        keys=[secret.reveal()],
    )
    headers = [(b"content-type", b"application/json"), (b"user-agent", f"dispatcher/{__version__}".encode()), *signed]
    started = SYSTEM.monotonic()
    try:
        answer = http.post(url, content=content, headers=headers)
    except httpx.HTTPError as error:
        took_ms = (SYSTEM.monotonic() - started) * 1000
        return Forwarded(None, str(error) or type(error).__name__, round(took_ms, 1))
    return Forwarded(answer.status_code, None, round((SYSTEM.monotonic() - started) * 1000, 1))


def _new(feed: Feed) -> Sequence[Event]:
    """A look; where the platform does not answer, none, and a word about it."""
    try:
        return feed.poll()
    except Unavailable as error:
        click.echo(f"dispatcher: {error}; trying again", err=True)
        return []


def _stored(client: Client, event: Event) -> StoredEvent:
    """The event as it is sent; its payload is written anew, from the JSON that the API answered."""
    payload = event["payload"] if "payload" in event else client.events.get(event["id"])["payload"]
    return StoredEvent(
        parse_id("evt", event["id"]),
        event["type"],
        event["mode"],
        orjson.dumps(payload),
        datetime.fromisoformat(event["created_at"]),
    )


def _show(event: Event, content: bytes, result: Forwarded | None, *, shows_bodies: bool, output: Output) -> None:
    if output == "json":
        values: dict[str, Any] = {
            "id": event["id"],
            "type": event["type"],
            "mode": event["mode"],
            "object_id": event["object_id"],
            "created_at": event["created_at"],
        }
        if result is not None:
            values["forwarded"] = {
                "status_code": result.status_code,
                "error": result.error,
                "duration_ms": result.duration_ms,
            }
        if shows_bodies:
            values["body"] = content.decode()
        _print_json_line(values)
        return
    about = f"  {event['object_id']}" if event["object_id"] else ""
    line = f"{event['created_at']}  {event['type']}  {event['mode']}{about}  {event['id']}"
    style = ""
    if result is not None:
        answer = result.error if result.status_code is None else str(result.status_code)
        line += f"  → {answer}  {result.duration_ms:,.0f} ms"
        style = "green" if result.is_success else "red"
    print_line(line, style=style)
    if shows_bodies:
        print_line(content.decode())
    sys.stdout.flush()


def _print_json_line(values: dict[str, Any]) -> None:
    # ASCII only: a payload must not steer a terminal.
    sys.stdout.write(json.dumps(values).replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()


def _say_secret(secret: Secret, output: Output) -> None:
    if output == "json":
        _print_json_line({"secret": secret.reveal_whsec()})
    else:
        print_line(f"signed with {secret.reveal_whsec()}, this session's: give it to what verifies")


def _summary(seen: int, forwarded: int | None) -> str:
    return counted(seen, "event") + ("" if forwarded is None else f", {forwarded} answered with success")


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise click.UsageError(f"--forward-to: found {error}; allowed: http://localhost:3000/hook") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise click.UsageError(f"--forward-to: found {url[:80]!r}; allowed: a URL such as http://localhost:3000/hook")
