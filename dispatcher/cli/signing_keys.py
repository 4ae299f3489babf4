"""`dispatcher signing-keys`: the platform's own keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from dispatcher import wiring
from dispatcher.cli import target
from dispatcher.cli.output import instant, output_option, print_fields, print_json, print_line, print_table
from dispatcher.clock import SYSTEM
from dispatcher.flow import signing_keys as flow
from dispatcher.retry import format_duration, parse_duration
from dispatcher.signing import Secret
from dispatcher.signing.platform_keys import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Command, Output
    from dispatcher.shapes import PublicKey
    from dispatcher.signing.scheme import KeyKind
    from dispatcher.store.signing_keys import SigningKey

_KEY_ID: Final = re.compile(r"-[A-Za-z0-9_-]{42}")


@click.group("signing-keys")
def signing_keys() -> None:
    """The platform's own keys, for the schemes that sign with one key for all receivers."""


class _Duration(click.ParamType[timedelta]):
    """`24h`, as a timedelta."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for what is no duration."""
        if not isinstance(value, str):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _OfAKey(click.Command):
    """A command whose argument may start with a hyphen, as one id in 64 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but that such an id is no option."""
        ids = [one for one in args if _KEY_ID.fullmatch(one)]
        if ids and "--" not in args:
            args = [*(one for one in args if one not in ids), "--", *ids]
        return super().parse_args(ctx, args)


_kind: Callable[[Command], Command] = click.argument("kind", type=click.Choice(["rsa", "ed25519"]))


def _when(command: Command) -> Command:
    """Add `--signs-in` and `--overlap`."""
    signs_in = click.option(
        "--signs-in",
        type=_Duration(),
        help="How long it is published before it signs.  [default: "
        f"{format_duration(flow.SIGNS_IN)}, or at once where no key of its kind signs]",
    )
    overlap = click.option(
        "--overlap",
        type=_Duration(),
        default=format_duration(flow.OVERLAP),
        show_default=True,
        help="How long the old key signs beside it, and is published after.",
    )
    return signs_in(overlap(command))


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


def _form(key: SigningKey) -> dict[str, Any]:
    from dispatcher.api.public_keys import form  # noqa: PLC0415 - the web framework is slow to import

    return form(key) | {"created_at": key.created_at, "state": state(key, SYSTEM.now())}


def _print(key: SigningKey, output: Output) -> None:
    values = _form(key)
    if output == "json":
        print_json(values)
        return
    print_fields(
        [
            ("id", key.id),
            ("kind", key.kind),
            ("schemes", ", ".join(values["schemes"])),
            ("state", values["state"]),
            *([("whpk", values["whpk"])] if values["whpk"] else []),
            ("public key", values["public_key_pem"].strip()),
        ]
    )


@signing_keys.command()
@_kind
@_when
@output_option
def generate(kind: KeyKind, signs_in: timedelta | None, overlap: timedelta, output: Output) -> None:
    """Make a new key: rsa serves rsa_sha256 and rsa_sha1, ed25519 serves standard_webhooks_v1a.

    It is published at once, so that receivers have it when it begins to sign.
    """
    with target.database() as (settings, connection):
        keyring = wiring.keyring(settings)
        key = flow.generate(connection, keyring, kind, by=target.actor(), signs_in=signs_in, overlap=overlap)
    _print(key, output)


@signing_keys.command("import")
@click.argument("source", type=click.File("rb"), default="-")
@click.option(
    "--password-file", type=click.File("rb"), help="Its first line opens an encrypted key; else you are asked."
)
@_when
@output_option
def import_(
    source: BinaryIO, password_file: BinaryIO | None, signs_in: timedelta | None, overlap: timedelta, output: Output
) -> None:
    """Take the private key in SOURCE, a PEM file or - for standard input, as if it were made here.

    PKCS #8, encrypted or not, or RSA PRIVATE KEY: Ed25519, or RSA of 2,048 to 4,096 bits.
    """
    pem = source.read()
    password: Secret | None = None
    if password_file is not None:
        password = Secret(password_file.readline().rstrip(b"\r\n"))
    elif is_encrypted(pem):
        if source.name == "<stdin>":
            raise click.UsageError("the key is encrypted and comes from standard input: name its --password-file")
        password = Secret(click.prompt("Password of the key", hide_input=True).encode())
    with target.database() as (settings, connection):
        keyring = wiring.keyring(settings)
        key = flow.import_(
            connection, keyring, pem, by=target.actor(), password=password, signs_in=signs_in, overlap=overlap
        )
    _print(key, output)


@signing_keys.command()
@_kind
@output_option
def rotate(kind: KeyKind, output: Output) -> None:
    """Put a new key in the place of the one of its kind that signs, so that no receiver notices.

    It is published for 24 hours before it signs; the old one signs beside it for 24 hours more. `generate` takes other
    times.
    """
    with target.database() as (settings, connection):
        key = flow.rotate(connection, wiring.keyring(settings), kind, by=target.actor())
    _print(key, output)


@signing_keys.command("list")
@output_option
def list_(output: Output) -> None:
    """The published keys, the newest first: those that sign, are about to, or did so lately."""
    now = SYSTEM.now()
    with target.client() as client:
        found = [(key, state(_windows(key), now)) for key in client.public_keys()["data"]]
    if output == "json":
        print_json({"data": [{**key, "state": said} for key, said in found]})
        return
    print_table(
        ["kind", "id", "state"],
        [(key["kind"], key["id"], said) for key, said in found],
        caption="" if found else "No signing key is published; `dispatcher signing-keys generate` makes one.",
    )


@signing_keys.command(cls=_OfAKey)
@click.argument("key_id")
@click.option("--force", is_flag=True, help="Even if no other key of its kind signs now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def retire(key_id: str, *, force: bool, yes: bool, output: Output) -> None:
    """Have a key neither sign nor be published from now on, as when it leaked.

    Receivers refuse what it signed. To replace a key that is sound, `rotate` it.
    """
    if not yes:
        click.confirm(f"Retire {key_id}? Receivers refuse what it signed.", abort=True)
    with target.database() as (_, connection):
        key = flow.retire(connection, key_id, by=target.actor(), force=force)
    if output == "json":
        print_json(_form(key))
        return
    print_line(f"retired {key_id}; workers stop signing with it within 30 s")


@signing_keys.command("export-jwks")
def export_jwks() -> None:
    """Print the published public keys as a JSON Web Key Set, as /.well-known/jwks.json answers."""
    with target.client() as client:
        print_json(client.jwks())
