"""`dispatcher sign` and `dispatcher verify`: signatures on a laptop, without a server."""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

import click
from click.core import ParameterSource

from dispatcher.cli import keys_given
from dispatcher.cli.arguments import SECRET_VARIABLE, Since
from dispatcher.cli.diagnosis import Signed, age, fault_of
from dispatcher.cli.output import output_option, print_json, print_line, visible
from dispatcher.clock import SYSTEM
from dispatcher.errors import InvalidInput
from dispatcher.ids import format_id, uuid7
from dispatcher.model import json_text
from dispatcher.signing import SCHEMES
from dispatcher.signing.scheme import TOLERANCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.cli.output import Output
    from dispatcher.signing import Scheme

_HEADERS_ALLOWED: Final = "lines of 'name: value', or JSON: names and values, or what `deliveries show` prints"
_REQUEST: Final = re.compile(r"[A-Z]+ \S+(?: HTTP/\S+)?\s*$")

_scheme_option = click.option(
    "--scheme", "scheme_name", type=click.Choice(list(SCHEMES)), default="standard_webhooks_v1", show_default=True
)


def _target(name: str, url: str) -> bytes:
    """Path and query of a GET, which are signed in the place of a body. Raises UsageError for an invalid URL."""
    from dispatcher.egress import parse_url
    from dispatcher.egress.url import ANY_HOST

    if click.get_current_context().get_parameter_source("body") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"give BODY or {name}, not both: a GET has no body")
    try:
        return parse_url(f"http://localhost{url}" if url.startswith("/") else url, ANY_HOST).target
    except InvalidInput as error:
        raise click.UsageError(f"{name}: found {error.found}; allowed: {error.allowed}") from error


@click.command()
@click.argument("body", type=click.File("rb"), default="-")
@_scheme_option
@keys_given.secret_options
@click.option(
    "--private-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM, or whsk_…: for the schemes that sign with the platform's key.",
)
@click.option("--id", "message_id", help="webhook-id; a new event's by default.")
@click.option("--timestamp", type=click.IntRange(0), help="Seconds since 1970; now by default.")
@click.option("--url", help="With --output curl: where to post it.")
@click.option("--get", "get_url", metavar="URL", help="Sign a GET of this URL: its path and query. BODY is not read.")
@click.option(
    "--output",
    type=click.Choice(["headers", "json", "curl"]),
    default="headers",
    show_default=True,
    help="The headers one a line, as a JSON object, or a curl command that sends BODY, or the GET, with them.",
)
def sign(
    body: BinaryIO,
    scheme_name: str,
    secrets: tuple[str, ...],
    secret_file: Path | None,
    private_key: Path | None,
    message_id: str | None,
    timestamp: int | None,
    url: str | None,
    get_url: str | None,
    output: Literal["headers", "json", "curl"],
) -> None:
    """Sign a body as the platform does.

    BODY is a file, or - for standard input. No server is needed. Signed are exactly the bytes that are read, a trailing
    newline among them.
    """
    if get_url is not None and url is not None:
        raise click.UsageError("give --url or --get, not both: --url is where a body is posted")
    if get_url is None and (output == "curl") != (url is not None):
        raise click.UsageError("--url and --output curl go together")
    scheme = SCHEMES[scheme_name]
    if scheme.key_owner == "endpoint":
        keys = keys_given.secret_keys(keys_given.given_secrets(secrets, secret_file))
        if not keys:
            raise click.UsageError(
                f"{scheme.name} signs with the endpoint's secret: give --secret, --secret-file or {SECRET_VARIABLE}"
            )
    else:
        if private_key is None:
            raise click.UsageError(f"{scheme.name} signs with the platform's key: give --private-key")
        keys = keys_given.private_keys(private_key)
    content = body.read() if get_url is None else _target("--get", get_url)
    try:
        raw = scheme.sign(
            message_id=format_id("evt", uuid7()) if message_id is None else message_id,
            timestamp=int(SYSTEM.now().timestamp()) if timestamp is None else timestamp,
            body=content,
            keys=keys,
        )
    except ValueError as error:
        raise click.UsageError(f"{scheme.name}: found {error}") from error
    headers = {name.decode(): value.decode() for name, value in raw}
    match output:
        case "headers":
            for name, value in headers.items():
                print_line(f"{name}: {value}")
        case "json":
            print_json(headers)
        case "curl":
            if get_url is not None:
                print_line(_curl_get(get_url, headers))
                return
            assert url is not None
            print_line(_curl(url, headers, content, _path(body)))


def _path(file: BinaryIO) -> str | None:
    """The file's path; None for standard input."""
    name = str(getattr(file, "name", "-"))
    return None if name in {"-", "<stdin>"} else name


def _curl_get(url: str, headers: Mapping[str, str]) -> str:
    """The command that asks for exactly this URL."""
    if url.startswith("/"):
        raise click.UsageError("--get: found a path without a host; allowed with --output curl: a whole URL")
    from dispatcher.egress import parse_url
    from dispatcher.egress.url import ANY_HOST

    lines = [f"curl --globoff --path-as-is {shlex.quote(parse_url(url, ANY_HOST).canonical)}"]
    return " \\\n  ".join([*lines, *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())])


def _curl(url: str, headers: Mapping[str, str], body: bytes, file: str | None) -> str:
    """The command; the body is named if it is a file, else written out."""
    lines = [f"curl {shlex.quote(url)}", *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())]
    lines.insert(1, "-H 'content-type: application/json'")
    if file is not None:
        return " \\\n  ".join([*lines, f"--data-binary {shlex.quote('@' + file)}"])
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if visible(text) != text:
        raise click.UsageError("BODY: found bytes that no command line can hold; allowed: such a body as a file")
    return " \\\n  ".join([*lines, f"--data-raw {shlex.quote(text)}"])


@click.command()
@click.argument("body", type=click.File("rb"), default="-")
@_scheme_option
@click.option("--header", "header_lines", multiple=True, metavar="'NAME: VALUE'", help="May be repeated.")
@click.option("--headers-file", type=click.File("rb"), help="All headers: lines, or JSON as `deliveries show` prints.")
@keys_given.secret_options
@click.option("--public-key", metavar="FILE", help="PEM, or whpk_…, also without a file.")
@click.option("--jwks", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The published JWKS.")
@click.option(
    "--tolerance", "tolerance_s", type=click.IntRange(0), default=TOLERANCE_S, show_default=True, help="In s."
)
@click.option("--at", type=Since(), help="When it was received; now by default.")
@click.option(
    "--get", "get_url", metavar="URL", help="Verify a GET of this URL, or of this path and query. BODY is not read."
)
@output_option
def verify(
    body: BinaryIO,
    scheme_name: str,
    header_lines: tuple[str, ...],
    headers_file: BinaryIO | None,
    secrets: tuple[str, ...],
    secret_file: Path | None,
    public_key: str | None,
    jwks: Path | None,
    tolerance_s: int,
    at: datetime | None,
    get_url: str | None,
    output: Output,
) -> None:
    """Verify a signed body.

    BODY is a file, or - for standard input; the headers are those that came with it. No server is needed. It exits with
    1 if it is not genuine, and says why: a wrong secret, an old timestamp, a body that was changed.
    """
    scheme = SCHEMES[scheme_name]
    texts = keys_given.given_secrets(secrets, secret_file)
    keys = _verifying_keys(scheme, texts, public_key, jwks)
    headers, sent_sha256 = ({}, None) if headers_file is None else _read_headers(headers_file.read())
    headers |= _lines(header_lines)
    if not headers:
        raise click.UsageError("give the headers that came with BODY: --header or --headers-file")
    now = int((SYSTEM.now() if at is None else at).timestamp())
    fault = fault_of(
        Signed(
            scheme=scheme,
            headers=headers,
            body=body.read() if get_url is None else _target("--get", get_url),
            what="body" if get_url is None else "request target",
            keys=keys,
            secrets=texts,
            now=now,
            tolerance_s=tolerance_s,
            sent_sha256=sent_sha256 if get_url is None else None,
        )
    )
    dated = "webhook-timestamp" in scheme.header_names
    if output == "json":
        print_json({"valid": fault is None, "scheme": scheme.name, "reason": fault})
    elif fault is not None:
        print_line(f"not valid: {fault}", style="red")
    elif dated:
        when = age(now - int(headers["webhook-timestamp"]))
        print_line(f"valid: {headers['webhook-id']}, signed {when} by {scheme.name}", style="green")
    else:
        print_line(f"valid: signed by {scheme.name}, which tells neither an id nor a time", style="green")
    if fault is not None:
        click.get_current_context().exit(1)


def _verifying_keys(scheme: Scheme, secrets: list[str], public_key: str | None, jwks: Path | None) -> list[bytes]:
    if scheme.key_owner == "endpoint":
        if not secrets:
            raise click.UsageError(
                f"{scheme.name} verifies with the endpoint's secret: give --secret, --secret-file or {SECRET_VARIABLE}"
            )
        return keys_given.secret_keys(secrets)
    keys = [] if public_key is None else keys_given.public_keys(public_key)
    keys += [] if jwks is None else keys_given.jwks_keys(jwks)
    # A JWKS holds the keys of every scheme; only those of the kind that signs here can match.
    fitting = [key for key in keys if keys_given.is_ed25519(key) == (scheme.key_kind == "ed25519")]
    if not fitting:
        found = " of its kind; none given fits" if keys else ": give --public-key or --jwks"
        raise click.UsageError(f"{scheme.name} verifies with the platform's public key{found}")
    return fitting


def _lines(lines: tuple[str, ...]) -> dict[str, str]:
    """Headers by their names in lower case. Raises UsageError for an invalid line."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"a header: found {line[:80]!r}; allowed: {_HEADERS_ALLOWED}")
        found[name.strip().lower()] = value.strip()
    return found


def _read_headers(content: bytes) -> tuple[dict[str, str], str | None]:
    """The headers in a file, and the hash of the body that was sent where the delivery log is what the file holds."""
    text = content.decode("utf-8-sig", errors="replace")
    try:
        value: Any = json_text.read(text.encode(), "--headers-file", depth=json_text.MAX_REQUEST_DEPTH)
    except InvalidInput:
        # The request's first line, as browsers and curl copy it, is not a header.
        return _lines(tuple(line for line in text.splitlines() if line.strip() and not _REQUEST.match(line))), None
    sent_sha256 = None
    if isinstance(value, dict) and isinstance(value.get("attempts"), list) and value["attempts"]:
        value = value["attempts"][-1]
    if isinstance(value, dict) and isinstance(value.get("request"), dict):
        sent_sha256, value = value.get("body_sha256"), value["request"]
    if isinstance(value, dict) and isinstance(value.get("headers"), dict | list):
        value = value["headers"]
    pairs = list(value.items()) if isinstance(value, dict) else value
    try:
        return {str(name).lower(): str(held) for name, held in pairs}, sent_sha256
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--headers-file: found other JSON; allowed: {_HEADERS_ALLOWED}") from error
