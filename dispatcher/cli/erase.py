"""`dispatcher erase`: what events of one object said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import archive, target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import counted, output_option, print_fields, print_json, print_line
from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id
from dispatcher.model.parse import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.shapes import Erasure

POLL_S: Final = 0.5

PATIENCE_S: Final = 60.0
"""Without a step of the scheduler; it makes one within seconds."""

_PAGE: Final = 200


@click.command()
@click.argument("object_id")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only this tenant's events.")
@click.option("--all-tenants", is_flag=True, help="The events of every tenant, where more than one has some.")
@click.option("--reason", help="Why, for the audit log.")
@click.option(
    "--export", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write what goes to this .jsonl.gz first."
)
@click.option("--dry-run", is_flag=True, help="Only say what there is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def erase(
    object_id: str,
    tenant_id: UUID | None,
    reason: str | None,
    path: Path | None,
    *,
    all_tenants: bool,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> None:
    """Erase the payloads of an object's events.

    The payloads of all events of OBJECT_ID and the answers to their attempts are erased. It cannot be undone.
    Deliveries that wait are cancelled. Hashes, outcomes and times stay. What is in flight ends as it ends; the
    scheduler erases then what it was answered.
    """
    if all_tenants and tenant_id is not None:
        raise click.UsageError("found --tenant and --all-tenants; allowed: one of the two")
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        found = _Found.of(client, object_id, tenant)
        payloads = f"{counted(found.payloads, 'payload')} of {counted(len(found.events), 'event')}"
        deliveries = counted(found.live_deliveries, "delivery that has not ended", "deliveries that have not ended")
        if dry_run:
            if output == "json":
                print_json(
                    {
                        "events": len(found.events),
                        "payloads": found.payloads,
                        "live_deliveries": found.live_deliveries,
                    }
                )
            else:
                print_line(f"would erase {payloads}, and cancel what waits of {deliveries}")
            return
        if len(found.tenants) > 1 and not all_tenants:
            named = ", ".join(sorted(found.tenants))
            raise click.UsageError(f"found events of {named}; allowed: --tenant with one of them, or --all-tenants")
        if not yes:
            click.confirm(f"Erase {payloads}, and cancel what waits of {deliveries}?", abort=True)
        if path is not None:
            archive.write(path, found.rows(client))
        everywhere = all_tenants and len(found.tenants) > 1  # else a tenant's own key may do it, too
        started = client.erasures.create(object_id=object_id, tenant_id=tenant, all_tenants=everywhere, reason=reason)
        erasure = _finished(client, started)
    if output == "json":
        print_json(erasure)
        return
    print_erasure(erasure)
    if erasure["status"] == "running":
        print_line("The scheduler goes on with the others.")


def print_erasure(erasure: Erasure) -> None:
    """Print what an erasure has done and, while it runs, when the scheduler erases what is still in flight."""
    labels = {"next_check_at": "goes on at"}
    print_fields(
        [(labels.get(name, name.replace("_", " ")), value) for name, value in erasure.items() if value is not None]
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What an erasure would meet: events by their ids, of which tenants, how many have a payload, their deliveries."""

    events: list[str]
    tenants: set[str]
    payloads: int
    deliveries: list[str]
    live_deliveries: int

    @classmethod
    def of(cls, client: Client, object_id: str, tenant_id: str | None) -> _Found:
        """All there is of the object now."""
        chosen: dict[str, Any] = {"object_id": object_id, "limit": _PAGE}
        events, tenants, payloads = [], set(), 0
        for event in client.events.iterate(**chosen, tenant_id=tenant_id):
            events.append(event["id"])
            tenants.add(event["tenant_id"])
            payloads += event.get("payload_gone") is None
        its_own = set(events)  # of a tenant's event, tenants above it have deliveries too
        deliveries = [one for one in client.deliveries.iterate(**chosen) if one["event_id"] in its_own]
        live = sum(one["status"] in {"waiting", "in_flight"} for one in deliveries)
        return cls(events, tenants, payloads, [one["id"] for one in deliveries], live)

    def rows(self, client: Client) -> Iterator[dict[str, Any]]:
        """The events with their payloads as they were written, then the attempts of their deliveries."""
        for event_id in self.events:
            event = read_object(client.events.text(event_id).encode())
            assert isinstance(event, dict)
            yield {"kind": "event", **event}
        for delivery_id in self.deliveries:
            for attempt in client.deliveries.attempts(delivery_id)["data"]:
                yield {"kind": "attempt", "delivery_id": delivery_id, **attempt}


def _finished(client: Client, erasure: Erasure) -> Erasure:
    """The erasure once all events of the object were erased that were there, or once nothing moves any more."""
    until = SYSTEM.monotonic() + PATIENCE_S
    while erasure["status"] == "running" and SYSTEM.monotonic() < until:
        sleep(POLL_S)
        before, erasure = erasure, client.erasures.get(erasure["id"])
        if erasure != before:
            until = SYSTEM.monotonic() + PATIENCE_S
    return erasure
