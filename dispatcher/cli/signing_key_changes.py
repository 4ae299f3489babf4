"""`dispatcher signing-keys generate | import | rotate | retire`: changes of the keys, on this machine's database."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from dispatcher import wiring
from dispatcher.cli import machine, target
from dispatcher.cli.output import output_option, print_fields, print_json, print_line
from dispatcher.cli.signing_keys import state
from dispatcher.clock import SYSTEM
from dispatcher.flow import signing_keys as flow
from dispatcher.retry import format_duration, parse_duration
from dispatcher.signing import Secret
from dispatcher.signing.platform_keys import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Command, Output
    from dispatcher.signing.scheme import KeyKind
    from dispatcher.store.signing_keys import SigningKey

_KEY_ID: Final = re.compile(r"-[A-Za-z0-9_-]{42}")


class _Duration(click.ParamType[timedelta]):
    """`24h`, as a timedelta."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for an invalid duration."""
        if not isinstance(value, str):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _OfAKey(click.Command):
    """A command whose argument may start with a hyphen, as one id in 64 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but such an id is not an option."""
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


def _form(key: SigningKey) -> dict[str, Any]:
    from dispatcher.api.public_keys import form  # the web framework is slow to import

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


@click.command()
@_kind
@_when
@output_option
def generate(kind: KeyKind, signs_in: timedelta | None, overlap: timedelta, output: Output) -> None:
    """Generate a signing key.

    A key of the kind rsa serves rsa_sha256 and rsa_sha1, one of the kind ed25519 serves standard_webhooks_v1a. It is
    published at once, so that receivers have it when it begins to sign.
    """
    with machine.database() as (settings, connection):
        keyring = wiring.keyring(settings)
        key = flow.generate(connection, keyring, kind, by=target.actor(), signs_in=signs_in, overlap=overlap)
    _print(key, output)


@click.command("import")
@click.argument("source", type=click.File("rb"), default="-")
@click.option(
    "--password-file", type=click.File("rb"), help="Its first line opens an encrypted key; else you are asked."
)
@_when
@output_option
def import_(
    source: BinaryIO, password_file: BinaryIO | None, signs_in: timedelta | None, overlap: timedelta, output: Output
) -> None:
    """Import a private key.

    SOURCE is a PEM file, or - for standard input; the key is then as if it were made here. Allowed are PKCS #8,
    encrypted or not, or RSA PRIVATE KEY: Ed25519, or RSA of 2,048 to 4,096 bits.
    """
    pem = source.read()
    password: Secret | None = None
    if password_file is not None:
        password = Secret(password_file.readline().rstrip(b"\r\n"))
    elif is_encrypted(pem):
        if source.name == "<stdin>":
            raise click.UsageError("the key is encrypted and comes from standard input: name its --password-file")
        password = Secret(click.prompt("Password of the key", hide_input=True).encode())
    with machine.database() as (settings, connection):
        keyring = wiring.keyring(settings)
        key = flow.import_(
            connection, keyring, pem, by=target.actor(), password=password, signs_in=signs_in, overlap=overlap
        )
    _print(key, output)


@click.command()
@_kind
@output_option
def rotate(kind: KeyKind, output: Output) -> None:
    """Replace the signing key of a kind.

    No receiver notices. The new key is published for 24 hours before it signs; the old one signs beside it for 24 hours
    more. `generate` takes other times.
    """
    with machine.database() as (settings, connection):
        key = flow.rotate(connection, wiring.keyring(settings), kind, by=target.actor())
    _print(key, output)


@click.command(cls=_OfAKey)
@click.argument("key_id")
@click.option("--force", is_flag=True, help="Even if no other key of its kind signs now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def retire(key_id: str, *, force: bool, yes: bool, output: Output) -> None:
    """Retire a signing key at once.

    From now on it neither signs nor is published, as when it leaked. Receivers refuse what it signed. To replace a key
    that is sound, `rotate` it.
    """
    if not yes:
        click.confirm(f"Retire {key_id}? Receivers refuse what it signed.", abort=True)
    with machine.database() as (_, connection):
        key = flow.retire(connection, key_id, by=target.actor(), force=force)
    if output == "json":
        print_json(_form(key))
        return
    print_line(f"retired {key_id}; workers stop signing with it within 30 s")
