"""`dispatcher signing-keys`: the platform's own keys. `dispatcher.cli.signing_key_changes` has what changes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import target
from dispatcher.cli.commands import Group
from dispatcher.cli.listing import Column, Table, print_page
from dispatcher.cli.output import instant, output_option, print_json
from dispatcher.clock import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.cli.output import Output
    from dispatcher.shapes import PublicKey
    from dispatcher.store.signing_keys import SigningKey


@click.group("signing-keys", cls=Group)
def signing_keys() -> None:
    """Create, publish or retire signing keys.

    These are the platform's own keys, for the schemes that sign with one key for all receivers.
    """


@dataclass(frozen=True, slots=True)
class Windows:
    """When a key signs, and until when it is published; None where no end is planned."""

    signs_from: datetime
    signs_until: datetime | None
    published_until: datetime | None


def _windows(key: PublicKey) -> Windows:
    """Those of a key as the API has it."""
    ends = (key["signs_until"], key["published_until"])
    signs_until, published_until = (None if at is None else datetime.fromisoformat(at) for at in ends)
    return Windows(datetime.fromisoformat(key["signs_from"]), signs_until, published_until)


def state(key: SigningKey | Windows, now: datetime) -> str:
    """What the key does, in words."""
    if key.published_until is not None and key.published_until <= now:
        return f"ended, was published until {instant(key.published_until)}"
    if key.signs_until is not None and key.signs_until <= max(now, key.signs_from):
        gone = "" if key.published_until is None else f", is published until {instant(key.published_until)}"
        return f"signs no more{gone}"
    ends = "" if key.signs_until is None else f" until {instant(key.signs_until)}"
    if key.signs_from <= now:
        return f"signs since {instant(key.signs_from)}{ends}"
    return f"is published, signs from {instant(key.signs_from)}{ends}"


_SECONDS: Final = re.compile(r"(?<=\d)T(\d\d:\d\d):[\d.]+Z")
_PUBLISHED: Final = "is published, "

SIGNING_KEYS: Final[Table[Mapping[str, Any]]] = Table(
    "PublicKey",
    (
        Column("kind", "kind"),
        Column("id", "id"),
        Column(
            "state", "state", least=10, short=lambda one: _SECONDS.sub(r" \1", one["state"]).removeprefix(_PUBLISHED)
        ),
    ),
    empty="No signing key is published; `dispatcher signing-keys generate` makes one.",
    joined=("state",),
)


@signing_keys.command("list")
@output_option
def list_(output: Output) -> None:
    """List the published signing keys.

    They are those that sign, are about to, or did so lately, the newest first.
    """
    now = SYSTEM.now()
    with target.client() as client:
        page = client.public_keys()
    rows: list[Mapping[str, Any]] = [{**key, "state": state(_windows(key), now)} for key in page["data"]]
    print_page(SIGNING_KEYS, {**page, "data": rows}, output)


@signing_keys.command("export-jwks")
def export_jwks() -> None:
    """Print the public keys as a JWKS.

    This is the JSON Web Key Set that /.well-known/jwks.json answers.
    """
    with target.client() as client:
        print_json(client.jwks())
