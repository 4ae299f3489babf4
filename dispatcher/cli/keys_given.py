"""The keys that a command is given: secrets, private keys and public keys, from options and files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dispatcher.cli.arguments import SECRET_VARIABLE
from dispatcher.errors import InvalidInput
from dispatcher.model import json_text
from dispatcher.signing import loaded_keys, parse_secret
from dispatcher.signing.platform_keys import import_pem
from dispatcher.signing.standard_webhooks_v1a import PRIVATE_PREFIX, PUBLIC_PREFIX, parse_whpk, parse_whsk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.cli.output import Command

_PUBLIC_ALLOWED: Final = "a public key in PEM, or whpk_…"
_JWK_ALLOWED: Final = "RSA with n and e, or OKP Ed25519 with x, in base64url"


def secret_options(command: Command) -> Command:
    """Add `--secret` and `--secret-file`, passed as `secrets` and `secret_file`."""
    command = click.option(
        "--secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with the secret."
    )(command)
    return click.option(
        "--secret",
        "secrets",
        multiple=True,
        envvar=SECRET_VARIABLE,
        show_envvar=True,
        help="whsec_…; repeated, or parted by spaces in the variable, while one rotates.",
    )(command)


def given_secrets(texts: Sequence[str], file: Path | None) -> list[str]:
    """The texts of the secrets: those of the file where there is one, else those of the option or the variable."""
    return list(texts) if file is None else _read(file).decode(errors="replace").split()


def secret_keys(texts: Sequence[str]) -> list[bytes]:
    """Their bytes. Raises InvalidInput for an invalid secret, without repeating it."""
    return [parse_secret(text, pointer="--secret").reveal() for text in texts]


def private_keys(file: Path) -> list[bytes]:
    """The PKCS #8 of the one private key in a file: PEM, or `whsk_…`. Raises InvalidInput, without repeating it."""
    content = _read(file)
    if content.lstrip().startswith(PRIVATE_PREFIX.encode()):
        return [parse_whsk(content.decode(errors="replace").strip(), pointer="--private-key").reveal()]
    return [import_pem(content, pointer="--private-key").private.reveal()]


def public_keys(given: str) -> list[bytes]:
    """The SubjectPublicKeyInfo of a public key: `whpk_…` itself, or a file with that or PEM. Raises InvalidInput."""
    if given.startswith(PUBLIC_PREFIX):
        return [parse_whpk(given, pointer="--public-key")]
    content = _read(Path(given))
    if content.lstrip().startswith(PUBLIC_PREFIX.encode()):
        return [parse_whpk(content.decode(errors="replace").strip(), pointer="--public-key")]
    if b"PRIVATE KEY-----" in content:
        raise InvalidInput("--public-key", "a private key", _PUBLIC_ALLOWED)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput("--public-key", f"no public key in {given}", _PUBLIC_ALLOWED) from error
    fault = loaded_keys.fault_of(key)
    if fault is not None:
        raise InvalidInput("--public-key", fault, _PUBLIC_ALLOWED)
    return [loaded_keys.public_der(key)]  # type: ignore[arg-type]  # of another kind it has a fault


def jwks_keys(file: Path) -> list[bytes]:
    """The SubjectPublicKeyInfo of every key of a JWKS (RFC 7517). Raises InvalidInput naming the first bad one."""
    try:
        keys = json_text.read(_read(file), "--jwks")["keys"]
        found = [_from_jwk(one, f"--jwks: /keys/{n}") for n, one in enumerate(keys)]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("--jwks", f"an invalid JWKS in {file}", 'a JSON object {"keys": […]}') from error
    if not found:
        raise InvalidInput("--jwks", "no keys", 'at least one in {"keys": […]}')
    return found


def _from_jwk(one: dict[str, Any], pointer: str) -> bytes:
    key: loaded_keys.PublicKey
    try:
        if one.get("kty") == "RSA":
            key = RSAPublicNumbers(int.from_bytes(_decoded(one["e"])), int.from_bytes(_decoded(one["n"]))).public_key()
        elif (one.get("kty"), one.get("crv")) == ("OKP", "Ed25519"):
            key = Ed25519PublicKey.from_public_bytes(_decoded(one["x"]))
        else:
            raise InvalidInput(pointer, f"a key of the kind {one.get('kty')!r}"[:80], _JWK_ALLOWED)
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(pointer, "a key that cannot be read", _JWK_ALLOWED) from error
    fault = loaded_keys.fault_of(key)
    if fault is not None:
        raise InvalidInput(pointer, fault, _JWK_ALLOWED)
    return loaded_keys.public_der(key)


def is_ed25519(der: bytes) -> bool:
    """Whether a public key is one of Ed25519; else it is one of RSA."""
    return isinstance(loaded_keys.public_key(der), Ed25519PublicKey)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
