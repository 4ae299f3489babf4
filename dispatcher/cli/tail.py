"""`dispatcher deliveries tail`: what happens in the delivery log, as it happens."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import target
from dispatcher.cli.deliveries import ago, filter_options, query_of
from dispatcher.cli.output import console, one_line, output_option, styled
from dispatcher.cli.reasons import reason_of
from dispatcher.cli.story import COLOURS
from dispatcher.client.errors import ForeignAnswer, TooMany
from dispatcher.clock import SYSTEM
from dispatcher.errors import NotFound, Unavailable
from dispatcher.model.delivery import LIVE, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.model.filter import Filter
    from dispatcher.shapes import Delivery, DeliveryFilter

FOLLOWED: Final = 500
"""Live deliveries that are followed, the newest: one page of a look."""

ASKED: Final = 50
"""Of those that live no more, so many are asked for by their ids at each look; the others at the next."""

OVERLAP: Final = timedelta(seconds=30)
"""How far behind the newest delivery each look goes: an event's transaction may commit that much later."""

PAGES: Final = 10
"""Of new deliveries, at each look; of more than these hold, the newest are shown."""

_PAGE: Final = 200
_AWAY: Final = (Unavailable, TooMany, ForeignAnswer)


@click.command()
@filter_options
@click.option("-n", "--lines", type=click.IntRange(0, 1000), default=10, show_default=True, help="Shown at the start.")
@click.option("--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds.")
@output_option
def tail(chosen: Filter, lines: int, interval: float, output: Output) -> None:
    """Follow the delivery log.

    Until Ctrl-C, it prints a line for each new delivery, each attempt and each end, the newest at the bottom. Times are
    UTC. It begins with the newest deliveries. Followed are all new ones, and of older ones the newest 500
    that live. While the API is away it waits. With --output json, a delivery as it is now a line.
    """
    away = False
    try:
        with target.client() as client:
            feed = Feed(client, chosen)
            for one in feed.start(lines):
                show(one, output)
            while True:
                sys.stdout.flush()
                time.sleep(interval)
                try:
                    for one in feed.look():
                        show(one, output)
                except _AWAY as error:
                    if not away:
                        click.echo(f"dispatcher: {error}; waiting for it", err=True)
                    away = True
                    continue
                if away:
                    click.echo("dispatcher: it answers again", err=True)
                away = False
    except KeyboardInterrupt:
        sys.stdout.flush()


class Feed:
    """The changes of the deliveries that are chosen, each once.

    A look costs two lists and at most `ASKED` single deliveries, whatever is in the log: those created since the one
    before, by the cursor of ids; the newest `FOLLOWED` that live; and, of these, those that no longer do.
    """

    def __init__(self, client: Client, chosen: Filter) -> None:
        self._client = client
        self._states = _states(chosen)
        # By state it is chosen here, or a delivery that leaves the state would not be seen to.
        self._query: DeliveryFilter = query_of(replace(chosen, states=(), undelivered=False))
        self._newest: str | None = None
        self._floor = ""
        self._seen: dict[str, Delivery] = {}
        self._live: dict[str, Delivery] = {}
        self._gone: dict[str, Delivery] = {}

    def start(self, count: int) -> list[Delivery]:
        """The newest that are there, at most so many, the oldest first; they are not told again until they change."""
        first = self._client.deliveries.list(limit=max(count, 1), **self._query)["data"]
        if first:
            self._newest, self._floor = first[0]["created_at"], first[0]["id"]
        self._take_live()
        return [one for one in reversed(first[:count]) if self._wanted(one)]

    def look(self) -> list[Delivery]:
        """What has changed since the last look: new ones, then those that were attempted or have ended."""
        changed = [*self._take_new(), *self._take_live(), *self._take_ended()]
        return [one for one in changed if self._wanted(one)]

    def _wanted(self, one: Delivery) -> bool:
        return self._states is None or DeliveryState(one["status"]) in self._states

    def _take_new(self) -> list[Delivery]:
        since = None if self._newest is None else datetime.fromisoformat(self._newest) - OVERLAP
        new = list(self._unseen(since))
        for one in new:
            self._seen[one["id"]] = one
            self._newest = max(self._newest or "", one["created_at"])
            if one["ended_at"] is None:
                self._live[one["id"]] = one
        if since is not None:
            oldest = since - OVERLAP
            self._seen = {
                id_: one for id_, one in self._seen.items() if datetime.fromisoformat(one["created_at"]) >= oldest
            }
        return new[::-1]

    def _unseen(self, since: datetime | None) -> Iterator[Delivery]:
        """Pages back from the newest, while there is anything new."""
        cursor: str | None = None
        query: dict[str, Any] = {**self._query}
        if since is not None:
            query["created_after"] = since
        for _ in range(PAGES):
            page = self._client.deliveries.list(limit=_PAGE, cursor=cursor, **query)
            new = [one for one in page["data"] if one["id"] not in self._seen and one["id"] > self._floor]
            yield from new
            cursor = page["next_cursor"]
            if cursor is None or not new:
                return

    def _take_live(self) -> list[Delivery]:
        query: dict[str, Any] = {**self._query, "status": ",".join(LIVE)}
        page = self._client.deliveries.list(limit=FOLLOWED, **query)
        found = {one["id"]: one for one in page["data"]}
        oldest = min(found, default="") if page["has_more"] else ""
        changed = [one for id_, one in reversed(found.items()) if id_ in self._live and moved(self._live[id_], one)]
        # Older than the oldest that is followed: it may live still, and is followed no more.
        self._gone |= {id_: one for id_, one in self._live.items() if id_ not in found and id_ >= oldest}
        self._live = found
        return changed

    def _take_ended(self) -> list[Delivery]:
        ended: list[Delivery] = []
        for id_ in list(self._gone)[:ASKED]:
            try:
                one = self._client.deliveries.get(id_)
            except NotFound:  # pruned or erased meanwhile
                del self._gone[id_]
                continue
            before = self._gone.pop(id_)
            if moved(before, one):
                ended.append(one)
            if one["ended_at"] is None:
                self._live[id_] = one
        return sorted(ended, key=lambda one: (one["ended_at"] or "", one["id"]))


def _states(chosen: Filter) -> frozenset[DeliveryState] | None:
    if not chosen.undelivered:
        return frozenset(chosen.states) or None
    return frozenset(chosen.states or DeliveryState) - {DeliveryState.DELIVERED}


def moved(before: Delivery, after: Delivery) -> bool:
    """Whether anything came of it: an attempt, an end, a hold. That it is being attempted is none yet."""
    return _came_of(before) != _came_of(after)


def _came_of(one: Delivery) -> tuple[object, ...]:
    status = one["status"] if one["ended_at"] else "live"
    return status, one["attempt_count"], one["status_reason"]


def show(one: Delivery, output: Output) -> None:
    """Prints the delivery as one line: coloured on a terminal, or as JSON."""
    if output == "json":
        click.echo(json.dumps(one))
        return
    out = console()
    out.print(line(one), soft_wrap=not out.is_terminal)


def line(one: Delivery) -> Text:
    """When it happened, what the delivery is, and what comes next."""
    found = styled("")
    found.append(f"{_happened_at(one):%H:%M:%S} ", style="dim")
    found.append(f"{one['status']:<9} ", style=COLOURS[DeliveryState(one["status"])])
    found.append(f"{one['id']} ")
    found.append(one_line(" ".join(filter(None, (one["event_type"], one["object_id"])))), style="bold")
    found.append(one_line(f" → {one['url'].partition('://')[2].partition('/')[0]}"))
    if one["attempt_count"]:
        found.append(f" try {one['attempt_count']}")
    if reason := reason_of(one):
        found.append(one_line(f": {reason}"))
    if one["next_attempt_at"] is not None:
        wait_s = (datetime.fromisoformat(one["next_attempt_at"]) - SYSTEM.now()).total_seconds()
        found.append(f", next {'now' if wait_s < 1 else 'in ' + ago(wait_s)}", style="dim")
    if one["replay_of"]:
        found.append(" (a replay)", style="dim")
    return found


def _happened_at(one: Delivery) -> datetime:
    """The instant of its end or its making, which the log has; of an attempt, now."""
    if one["ended_at"]:
        return datetime.fromisoformat(one["ended_at"])
    return SYSTEM.now() if one["attempt_count"] else datetime.fromisoformat(one["created_at"])
