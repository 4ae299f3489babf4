"""`dispatcher endpoints`: registered URLs."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast
from uuid import UUID

import click
import orjson

from dispatcher.cli import target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.listing import PAGE, Column, Table, limit_options, print_page, take
from dispatcher.cli.output import (
    counted,
    note_secret,
    output_option,
    print_fields,
    print_json,
    print_line,
    print_table,
    progress_bar,
    styled,
)
from dispatcher.cli.pauses import holds
from dispatcher.cli.statistics import rate
from dispatcher.client import Forbidden, TooMany, Unavailable
from dispatcher.ids import format_id
from dispatcher.model import json_text
from dispatcher.model.duration import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dispatcher.cli.output import Command, Output
    from dispatcher.client import Client
    from dispatcher.shapes import (
        Endpoint,
        EndpointChanges,
        ImportedEndpoint,
        ImportItem,
        NewEndpoint,
        Pause,
        StatisticsGroup,
    )

CHUNK: Final = 25
"""Endpoints in one request of an import: a URL that has to answer a ping may take 15 s."""

CLEARABLE: Final = (
    *("name", "description", "event_types", "metadata", "schedule", "signature", "auth", "headers", "method"),
    *("max_in_flight", "rate_limit", "ordered"),
)


@click.group()
def endpoints() -> None:
    """Register, change or test endpoints."""


def _print(endpoint: Mapping[str, Any], output: Output) -> None:
    if output == "json":
        print_json(endpoint)
        return
    shown = dict(endpoint)
    shown["event_types"] = ", ".join(shown["event_types"] or ["all"])
    shown["auth"] = None if shown["auth"] is None else f"{shown['auth']['type']}, {shown['auth']['username']}"
    shown["metadata"] = orjson.dumps(shown["metadata"]).decode() if shown["metadata"] else None
    for name in ("headers", "signature"):
        shown[name] = ", ".join(shown[name] or ())
    warnings = shown.pop("warnings", [])
    print_fields([(name, value) for name, value in shown.items() if value not in (None, "")])
    for warning in warnings:
        print_line(f"warning: {warning}")


def _choices(command: Command) -> Command:
    """Adds the options of what an owner chooses, passed as `chosen`."""
    options: list[Callable[[Any], Any]] = [
        click.option("--name"),
        click.option("--description"),
        click.option("--event-type", "event_types", multiple=True, help="A type, or payment.*; may be repeated."),
        click.option("--metadata", metavar="JSON", help="An object of your own."),
        click.option("--schedule", help="When it is tried again."),
        click.option("--signature", multiple=True, help="A scheme; may be repeated: all of them sign."),
        click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with every delivery."),
        click.option("--basic-auth", metavar="USERNAME", help="Authenticate deliveries; asks for the password."),
        click.option("--password-file", type=click.File("r"), help="Read the password from here; - for stdin."),
        click.option("--method", type=click.Choice(["POST", "GET"])),
        click.option("--max-in-flight", type=click.IntRange(1, 1000), help="Attempts at once."),
        click.option("--rate-limit", type=click.FloatRange(0.01, 10_000), help="Attempts a second."),
        click.option("--ordered/--unordered", default=None, help="One delivery after the other."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options, as the API takes it."""
    chosen = {name: value for name, value in options.items() if value not in (None, ())}
    for name in ("event_types", "signature"):
        if name in chosen:
            chosen[name] = list(chosen[name])
    if "metadata" in chosen:
        text = chosen["metadata"].encode(errors="surrogateescape")  # as it was typed
        chosen["metadata"] = json_text.read(text, "--metadata")
    if "headers" in chosen:
        chosen["headers"] = dict(_header(text) for text in chosen["headers"])
    file = chosen.pop("password_file", None)
    username = chosen.pop("basic_auth", None)
    if username is not None:
        password = click.prompt("Password", hide_input=True, err=True) if file is None else file.read().rstrip("\r\n")
        chosen["auth"] = {"type": "basic", "username": username, "password": password}
    elif file is not None:
        raise click.UsageError("--password-file goes with --basic-auth")
    return chosen


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.BadParameter(f"found {name[:80]!r} without a colon", param_hint="--header")
    return name.strip(), value.strip()


_endpoint_id = click.argument("endpoint_id", type=Id("ep"))


@endpoints.command()
@click.argument("url")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Whose it is.  [default: the default tenant's]")
@click.option("--profile", help="The rules that it follows.  [default: its tenant's]")
@click.option("--disabled", is_flag=True, help="Hold its deliveries until it is enabled.")
@_choices
@output_option
def create(
    url: str, tenant_id: UUID | None, profile: str | None, disabled: bool, output: Output, **options: Any
) -> None:
    """Register an endpoint.

    Deliveries are sent to URL. The endpoint's signing secret is shown this once.
    """
    asked = cast("NewEndpoint", {"url": url, "profile": profile} | _chosen(options))
    if tenant_id is not None:
        asked["tenant_id"] = format_id("ten", tenant_id)
    if disabled:
        asked["status"] = "disabled"
    with target.client() as client:
        endpoint = client.endpoints.create(**asked)
    _print(endpoint, output)
    note_secret()


@endpoints.command("import")
@click.argument("source", type=click.File("rb"), default="-")
@output_option
@click.pass_context
def import_(context: click.Context, source: BinaryIO, output: Output) -> None:
    """Import endpoints with their secrets.

    SOURCE, a file or - for standard input, lists endpoints with the secrets that they have elsewhere. One JSON object a
    line, or one JSON array: {"url": "https://…", "secret": "whsec_…"}, with the fields of POST /v1/endpoints; "secrets"
    for several, the newest first. They are sealed and never shown. Bad ones stop no others; the exit code is 1 if there
    are any.
    """
    found = _read(source.read())
    results: list[ImportItem] = []
    progress = progress_bar(sys.stdout)
    try:
        with target.client() as client, progress:
            task = progress.add_task("importing", total=len(found))
            for start in range(0, len(found), CHUNK):
                chunk = client.endpoints.import_many(found[start : start + CHUNK])
                results += [{**one, "index": one["index"] + start} for one in chunk]
                progress.update(task, completed=len(results))
    finally:
        if results or not found:
            _report(results, output)
    if any(one["status"] == "failed" for one in results):
        context.exit(1)


def _read(text: bytes) -> list[ImportedEndpoint]:
    """The endpoints of a file: of an array, an object with `endpoints`, or one a line."""
    try:
        whole = orjson.loads(text)
    except orjson.JSONDecodeError:
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("endpoints"), list):
        whole = whole["endpoints"]
    if not isinstance(whole, list):
        whole = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                whole.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                # Not the error's own words: they would repeat a line that holds a secret.
                raise click.UsageError(f"line {number}: found invalid JSON; allowed: one JSON object a line") from error
    for number, one in enumerate(whole, 1):
        if not isinstance(one, dict):
            raise click.UsageError(f"endpoint {number}: found no object; allowed: objects with a url and a secret")
    return cast("list[ImportedEndpoint]", whole)


def _report(results: Sequence[ImportItem], output: Output) -> None:
    if output == "json":
        print_json({"data": results})
        return
    print_table(
        ["endpoint", "status", "id", "error"],
        [
            (
                one["index"] + 1,
                one["status"],
                one["id"],
                "; ".join(one["warnings"]) if one["error"] is None else one["error"]["detail"],
            )
            for one in results
        ],
    )
    failed = sum(1 for one in results if one["status"] == "failed")
    print_line(f"{counted(len(results) - failed, 'endpoint')} registered, {failed} failed")


_HEALTHS: Final = 100
"""Endpoints of which the API tells statistics at once, those that fail most."""


def _health(one: Mapping[str, Any]) -> object:
    """How many of the last hour's attempts succeeded, or why there can be none."""
    if one["status"] == "disabled":
        return styled("disabled", "yellow")
    health = one["health"]
    return None if health is None else rate(health["attempts"]["success_rate"])


def _waiting(one: Mapping[str, Any]) -> object:
    """How many deliveries wait for it now."""
    if one["health"] is None:
        return None
    backlog = one["health"]["backlog"]
    return f"{backlog['waiting']}+" if backlog["waiting_is_minimum"] else backlog["waiting"]


def _paused(one: Mapping[str, Any]) -> object:
    """Which deliveries to it are held by pauses: all, or those of some types."""
    types: list[str | None] = [pause["event_type"] for pause in one["paused"]]
    if not types:
        return None
    return styled("all" if None in types else ", ".join(sorted(map(str, types))), "yellow")


ENDPOINTS: Final[Table[Mapping[str, Any]]] = Table(
    "Endpoint",
    (
        Column("endpoint", "id", kind="id"),
        Column("name", "name", least=8),
        Column("tenant", "tenant_id", kind="id", least=8, short=lambda one: one["tenant_name"] or one["tenant_id"]),
        Column("status", "status", where="pipe"),
        Column("health", "health", _health),
        Column("waiting", "health", _waiting),
        Column("paused", "paused", _paused),
        Column("types", "event_types", lambda one: ", ".join(one["event_types"] or ["all"]), where="room"),
        Column("profile", "profile", where="room"),
        Column("schedule", "schedule", where="room"),
        Column("url", "url", kind="url", least=12, share=3),
        Column("reason", "status_reason", least=8),
    ),
    empty="No endpoint matches.",
    joined=("tenant_name", "health", "paused"),
)


@endpoints.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"))
@click.option("--status", type=click.Choice(["active", "disabled"]))
@click.option("--profile")
@limit_options(100, most=10_000)
@output_option
def list_(
    tenant_id: UUID | None, status: Any, profile: str | None, limit: int, cursor: str | None, output: Output
) -> None:
    """List endpoints, the newest first.

    Their health is how many of the last hour's attempts in live mode succeeded.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        page = take(client.endpoints.list, limit, cursor, tenant_id=tenant, status=status, profile=profile)
        if output == "json":
            print_json(page)
            return
        rows, note = _with_health(client, page["data"], tenant) if page["data"] else ([], "")
    print_page(ENDPOINTS, {**page, "data": rows}, output, note=note)


def _with_health(
    client: Client, endpoints: Sequence[Endpoint], tenant_id: str | None
) -> tuple[list[Mapping[str, Any]], str]:
    """The endpoints with what people want to see of them, and what is to be said of it.

    A key that may list endpoints may not read statistics or tenants; an answer may take too long. The list is shown
    all the same.
    """
    note = ""
    groups: dict[str, StatisticsGroup] = {}
    names: dict[str, str] = {}
    pauses: list[Pause] = []
    try:
        pauses = list(client.pauses.iterate(limit=PAGE))  # a key that may list endpoints may list pauses
        found = client.statistics(by="endpoint", window="1h", tenant_id=tenant_id, limit=_HEALTHS)
        groups = {group["key"]: group for group in found["groups"]}
        if found["has_more"]:
            note = f"Health and waiting are of the {_HEALTHS} endpoints that failed most."
        names = {one["id"]: one["name"] for one in client.tenants.list(limit=PAGE)["data"]}
    except (Forbidden, Unavailable, TooMany) as error:
        note = f"The health of endpoints and the names of tenants are not shown: {error}."
    rows: list[Mapping[str, Any]] = [
        {
            **one,
            "tenant_name": names.get(one["tenant_id"]),
            "health": groups.get(one["id"]),
            "paused": _pauses_of(one, pauses),
        }
        for one in endpoints
    ]
    return rows, note


def _pauses_of(endpoint: Endpoint, pauses: Sequence[Pause]) -> list[Pause]:
    """Those that hold deliveries to the endpoint."""
    return [pause for pause in pauses if holds(pause, tenant_id=endpoint["tenant_id"], endpoint_id=endpoint["id"])]


@endpoints.command()
@_endpoint_id
@output_option
def show(endpoint_id: UUID, output: Output) -> None:
    """Show an endpoint.

    And the pauses that hold deliveries to it.
    """
    with target.client() as client:
        endpoint = client.endpoints.get(format_id("ep", endpoint_id))
        pauses = [] if output == "json" else list(client.pauses.iterate(limit=PAGE))
    _print(endpoint, output)
    for pause in _pauses_of(endpoint, pauses):
        what = "all deliveries" if pause["event_type"] is None else f"deliveries of {pause['event_type']}"
        print_line(f"paused: {pause['id']} holds {what} since {pause['created_at']}: {pause['reason']}")


@endpoints.command()
@_endpoint_id
@click.option("--url", help="Where deliveries go from now on, those that wait too.")
@_choices
@click.option("--clear", multiple=True, type=click.Choice(CLEARABLE), help="Take back to what the profile has.")
@output_option
def update(endpoint_id: UUID, clear: tuple[str, ...], output: Output, **options: Any) -> None:
    """Change an endpoint.

    What no option names stays as it is.
    """
    chosen = _chosen(options)
    if both := sorted(chosen.keys() & set(clear)):
        raise click.UsageError(f"--clear {both[0]}: found a value for it too; allowed: one of the two")
    changes = cast("EndpointChanges", chosen | dict.fromkeys(clear))
    if not changes:
        raise click.UsageError("found nothing to change; allowed: at least one option")
    with target.client() as client:
        endpoint = client.endpoints.update(format_id("ep", endpoint_id), **changes)
    _print(endpoint, output)


@endpoints.command("set-url")
@click.argument("url")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Whose URL it is.  [default: the default tenant's]")
@output_option
def set_url(url: str, tenant_id: UUID | None, output: Output) -> None:
    """Set or replace a tenant's notification URL.

    For tenants that have one endpoint, such as a website. The first call registers it and shows its secret, this once.
    A later call gives it the new URL: it keeps its id and secret, and what waits for it goes to the new URL.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        endpoint = client.endpoints.set_url(url, tenant_id=tenant)
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@output_option
def enable(endpoint_id: UUID, output: Output) -> None:
    """Enable an endpoint.

    What was held meanwhile is sent first.
    """
    with target.client() as client:
        endpoint = client.endpoints.enable(format_id("ep", endpoint_id))
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@click.option("--reason", default="disabled by an operator", show_default=True)
@output_option
def disable(endpoint_id: UUID, reason: str, output: Output) -> None:
    """Disable an endpoint.

    Its deliveries wait until it is enabled. After 7 days they expire, and are not sent.
    """
    with target.client() as client:
        endpoint = client.endpoints.disable(format_id("ep", endpoint_id), reason=reason)
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def delete(endpoint_id: UUID, yes: bool, output: Output) -> None:
    """Delete an endpoint.

    The deliveries that wait for it are cancelled; the log stays.
    """
    name = format_id("ep", endpoint_id)
    if not yes:
        click.confirm(f"Delete {name} and cancel what waits for it?", abort=True)
    with target.client() as client:
        deleted = client.endpoints.delete(name)
    if output == "json":
        print_json(deleted)
        return
    cancelled = counted(deleted["cancelled_deliveries"], "waiting delivery", "waiting deliveries")
    print_line(f"deleted; {cancelled} cancelled")


@endpoints.command()
@_endpoint_id
@output_option
@click.pass_context
def ping(context: click.Context, endpoint_id: UUID, output: Output) -> None:
    """Ping an endpoint.

    This sends a test request to its URL. The exit code is 1 if a delivery would fail.
    """
    with target.client() as client:
        result = client.endpoints.ping(format_id("ep", endpoint_id))
    if output == "json":
        print_json(result)
    else:
        print_fields([(name, value) for name, value in result.items() if value is not None])
    if not result["ok"]:
        context.exit(1)


@endpoints.command("rotate-secret")
@_endpoint_id
@click.option("--overlap", default="24h", show_default=True, help="How long the old secret signs beside the new one.")
@output_option
def rotate_secret(endpoint_id: UUID, overlap: str, output: Output) -> None:
    """Replace an endpoint's signing secret.

    The new secret is shown this once.
    """
    try:
        kept = parse_duration(overlap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overlap") from error
    with target.client() as client:
        endpoint = client.endpoints.rotate_secret(format_id("ep", endpoint_id), overlap_s=kept.total_seconds())
    _print(endpoint, output)
    note_secret()


@endpoints.command()
@click.argument("endpoint_id", type=Id("ep"))
@click.option("--since", required=True, type=Since(), help="Failed after: 24h, or an instant.")
@click.option("--until", type=Since(), help="Failed before.")
@click.option("--mode", type=click.Choice(["live", "test"]), help="Only this mode.")
@click.option("--dry-run", is_flag=True, help="Count what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def recover(
    endpoint_id: UUID,
    since: datetime,
    until: datetime | None,
    mode: Literal["live", "test"] | None,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> None:
    """Replay what an endpoint missed.

    This starts a replay of the deliveries that failed; `replay status` tells how far it is.
    """
    id_ = format_id("ep", endpoint_id)
    with target.client() as client:
        if dry_run or not yes:
            preview = client.replays.preview(endpoint_id=id_, ended_after=since, ended_before=until, mode=mode)
            number = counted(preview["count"], "delivery", "deliveries")
            if dry_run:
                print_line(f"{number} would be replayed")
                return
            if preview["count"]:
                click.confirm(f"Replay {number}?", abort=True, err=output == "json")
        made = client.endpoints.recover(id_, since=since, until=until, mode=mode)
    if output == "json":
        print_json(made)
        return
    print_line(f"{made['id']} is {made['status']}")


@endpoints.command()
@click.argument("endpoint_id", type=Id("ep"))
@click.option("--window", type=click.Choice(["1h", "24h", "7d", "30d"]), default="24h", show_default=True)
@click.option("--mode", type=click.Choice(["live", "test"]), default="live", show_default=True, help="Only this mode.")
@output_option
def stats(
    endpoint_id: UUID, window: Literal["1h", "24h", "7d", "30d"], mode: Literal["live", "test"], output: Output
) -> None:
    """Show an endpoint's statistics.

    They are of now and of the window; `stats --endpoint` tells more.
    """
    with target.client() as client:
        found = client.endpoints.stats(format_id("ep", endpoint_id), window=window, mode=mode)
    if output == "json":
        print_json(found)
        return
    shown: dict[str, Any] = dict(found)
    if (failure := found["last_failure"]) is not None:
        shown["last_failure"] = ", ".join(str(value) for value in failure.values() if value is not None)
    print_fields([(name, value) for name, value in shown.items() if value is not None])
