"""`dispatcher profiles`: which providers a system can be; a profile's file by its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import target
from dispatcher.cli.datafiles import directories, directory_option, is_path, print_report
from dispatcher.cli.listing import Column, Table, print_page
from dispatcher.cli.output import Output, output_option, print_fields, print_json
from dispatcher.client import NotFound
from dispatcher.datafile import unknown
from dispatcher.profiles import Known, as_document, lint, load_profile, shipped_profiles_dir
from dispatcher.retry import load_catalog as load_schedules
from dispatcher.retry import shipped_schedules_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

_profiles_dir = directory_option("profiles")
_schedules_dir = directory_option("schedules")


@click.group()
def profiles() -> None:
    """Show or check provider profiles."""


def _urls(one: dict[str, Any]) -> str:
    url = one["document"]["url"]
    return "/".join(url["schemes"]) + (" with a port" if url["ports"] else "")


def _success(one: dict[str, Any]) -> str:
    success = one["document"]["answers"]["success"]
    return "any 2xx" if success == "any_2xx" else ", ".join(map(str, success))


def _events(one: dict[str, Any]) -> str:
    events = one["document"]["events"]
    return " ".join(events["catalogue"]) or str(events["choice"])


PROFILES: Final[Table[dict[str, Any]]] = Table(
    "Profile",
    (
        Column("name", "name"),
        Column("default", "default", lambda one: "yes" if one["default"] else None),
        Column("urls", "document", _urls, least=6),
        Column("methods", "document", lambda one: " ".join(one["document"]["methods"]), least=6),
        Column(
            "signature", "document", lambda one: " ".join(one["document"]["signature"]["schemes"]) or "none", least=8
        ),
        Column("success", "document", _success, least=7),
        Column("schedule", "document", lambda one: one["document"]["schedule"], least=8),
        Column("events", "document", _events, least=6),
        Column("limit", "document", lambda one: str(one["document"]["registration"]["limit"])),
    ),
    empty="There are no profiles.",
)
"""What tells profiles apart."""


@profiles.command("list")
@output_option
def list_(output: Output) -> None:
    """List the profiles.

    Listed are those that endpoints may name.
    """
    with target.client() as client:
        page = client.profiles()
    if output == "json":
        print_json({**page, "data": [_as_json(one) for one in page["data"]]})
        return
    print_page(PROFILES, page, output)


@profiles.command()
@click.argument("name")
@output_option
@_schedules_dir
def show(name: str, output: Output, schedules_dir: Path | None) -> None:
    """Show a profile.

    NAME is a profile of the system, or the path of a file, for which no system is asked.
    """
    if is_path(name):
        profile = load_profile(Path(name), known=_known(schedules_dir)).profile
        found: dict[str, Any] = {"name": profile.name, "document": as_document(profile)}
    else:
        with target.client() as client:
            try:
                found = client.profile(name)
            except NotFound as error:
                raise unknown("profile", name, [one["name"] for one in client.profiles()["data"]]) from error
    if output == "json":
        print_json(_as_json(found))
        return
    default = [("default", "true" if found["default"] else "false")] if "default" in found else []
    print_fields([("name", found["name"]), *default, *_fields(found["document"])])


@profiles.command("lint")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@output_option
@_profiles_dir
@_schedules_dir
@click.pass_context
def lint_(
    context: click.Context,
    files: tuple[Path, ...],
    output: Output,
    profiles_dir: Path | None,
    schedules_dir: Path | None,
) -> None:
    """Check profile files.

    FILES may be directories; without any, all that this installation would load is checked. An error ends in exit code
    1, a warning does not.
    """
    paths = files or directories(shipped_profiles_dir(), profiles_dir)
    context.exit(print_report(lint(*paths, known=_known(schedules_dir)), output))


def _known(schedules_dir: Path | None) -> Known:
    from dispatcher.signing import SCHEMES  # only a file is compared with the schemes of this installation

    return Known(schedules=load_schedules(*directories(shipped_schedules_dir(), schedules_dir)), schemes=SCHEMES)


def _fields(document: dict[str, Any], table: str = "") -> Iterator[tuple[str, str]]:
    """A profile's fields under the names of a file, tables dotted."""
    for key, value in document.items():
        match value:
            case bool():
                yield table + key, "true" if value else "false"
            case dict() if not table:
                yield from _fields(value, f"{key}.")
            case dict():
                yield table + key, " ".join(f"{header}={sent}" for header, sent in value.items())
            case list():
                yield table + key, " ".join(map(str, value))
            case float():
                yield table + key, f"{value:g}"
            case _:
                yield table + key, str(value)


def _as_json(found: dict[str, Any]) -> dict[str, object]:
    """A profile's name and fields side by side, as in its file."""
    return {**{name: value for name, value in found.items() if name != "document"}, **found["document"]}
