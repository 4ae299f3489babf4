"""`dispatcher profiles`: which providers this installation can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.datafiles import directories, directory_option, is_path, origin, print_report
from dispatcher.cli.output import Output, output_option, print_fields, print_json, print_table
from dispatcher.profiles import (
    Catalog,
    Known,
    Profile,
    ProfileFile,
    as_document,
    lint,
    load_catalog,
    load_profile,
    shipped_profiles_dir,
)
from dispatcher.retry import load_catalog as load_schedules
from dispatcher.retry import shipped_schedules_dir
from dispatcher.signing import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Iterator

_profiles_dir = directory_option("profiles")
_schedules_dir = directory_option("schedules")


@click.group()
def profiles() -> None:
    """Provider profiles: one data file each."""


@profiles.command("list")
@output_option
@_profiles_dir
@_schedules_dir
def list_(output: Output, profiles_dir: Path | None, schedules_dir: Path | None) -> None:
    """List every profile, and where it comes from."""
    files = _catalog(profiles_dir, _known(schedules_dir)).files.values()
    if output == "json":
        print_json({"data": [_as_json(file) for file in files]})
        return
    print_table(
        ["name", "urls", "methods", "signature", "success", "schedule", "events", "limit", "from"],
        [(file.profile.name, *_summary(file.profile), origin(file)) for file in files],
    )


@profiles.command()
@click.argument("name")
@output_option
@_profiles_dir
@_schedules_dir
def show(name: str, output: Output, profiles_dir: Path | None, schedules_dir: Path | None) -> None:
    """Show the profile NAME, which may also be the path of a file."""
    known = _known(schedules_dir)
    file = load_profile(Path(name), known=known) if is_path(name) else _catalog(profiles_dir, known).named(name)
    if output == "json":
        print_json(_as_json(file))
        return
    print_fields(
        [
            ("name", file.profile.name),
            *_fields(as_document(file.profile)),
            ("from", origin(file)),
            ("file", file.path),
        ]
    )


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
    """Check FILES (or directories); without any, all that this installation would load.

    An error ends in exit code 1, a warning does not.
    """
    paths = files or directories(shipped_profiles_dir(), profiles_dir)
    context.exit(print_report(lint(*paths, known=_known(schedules_dir)), output))


def _known(schedules_dir: Path | None) -> Known:
    return Known(schedules=load_schedules(*directories(shipped_schedules_dir(), schedules_dir)), schemes=SCHEMES)


def _catalog(profiles_dir: Path | None, known: Known) -> Catalog:
    return load_catalog(*directories(shipped_profiles_dir(), profiles_dir), known=known)


def _summary(profile: Profile) -> tuple[str, ...]:
    """The cells of the table between the name and the origin."""
    success = "any 2xx" if profile.success == "any_2xx" else ", ".join(map(str, sorted(profile.success)))
    urls = "/".join(profile.url_schemes) + (" with a port" if profile.url_ports else "")
    return (
        urls,
        " ".join(profile.methods),
        " ".join(profile.signature_schemes) or "none",
        success,
        profile.schedule,
        " ".join(profile.catalogue) or profile.event_choice,
        "none" if profile.endpoint_limit is None else str(profile.endpoint_limit),
    )


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


def _as_json(file: ProfileFile) -> dict[str, object]:
    return {
        "name": file.profile.name,
        **as_document(file.profile),
        "shipped": file.shipped,
        "file": file.path,
        "replaces": file.replaces,
    }
