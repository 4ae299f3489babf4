"""The settings: read once, at the edge, from environment variables that start with DISPATCHER_.

Each field's metadata says what it means; `docs/configuration.md` holds the same table, with each setting's unit and
the reason for its default, and a test compares the two.
"""

from __future__ import annotations

import os
import re
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dispatcher import renamed
from dispatcher.datafile import nearest_name
from dispatcher.errors import ConfigurationError, Problem
from dispatcher.model.access import API_KEY, API_URL, EXAMPLE_KEY
from dispatcher.model.duration import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX: Final = "DISPATCHER_"

COMMAND_LINE_KEY: Final = "DISPATCHER_COMMAND_LINE_KEY"
"""Told by `up` to the API that it starts: the key of this machine's command line, new at each start."""

PULSE: Final = "DISPATCHER_PULSE"
"""Told by `up` to each process that it starts: the pipe for its signs of life, see `dispatcher.pulse`."""

MIN_KEY_CHARACTERS: Final = 32
"""Of an operator's key. 32 hexadecimal digits are 128 bits: nobody guesses them."""

MAX_KEY_CHARACTERS: Final = 512

MAKE_KEY: Final = """python3 -c "import secrets; print('dsk_' + secrets.token_urlsafe(32))\""""
"""The command that makes an operator's key."""

PUBLISHED: Final = frozenset({"change-me", EXAMPLE_KEY})
"""Secrets that stand, or once stood, in this repository: everybody knows them, however long they are."""


class _Refused(ValueError):
    """A value that cannot be shown, with what may be said of it."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(allowed)
        self.found = found


def _text(value: str) -> str:
    return value


def database_url(value: str) -> str:
    """Any spelling of a PostgreSQL URL, as SQLAlchemy's for psycopg 3. Raises ValueError with what is allowed."""
    from dispatcher.store import addresses  # noqa: PLC0415 - SQLAlchemy, which a client of the API does without

    url = addresses.read(value)
    if url.password in PUBLISHED:
        raise _Refused("the password of the example, which everybody knows", "a password of your own")
    return url.render_as_string(hide_password=False)


_address = database_url  # a field of this name hides it


def _keyring(value: str) -> str:
    """The text of a keyring. Raises ConfigurationError with everything that is wrong in it."""
    from dispatcher.signing.secrets import Keyring  # noqa: PLC0415 - cryptography likewise

    Keyring.parse(value)
    return value


def _operator_key(value: str) -> str:
    """A key that nobody guesses, and that a header can carry."""
    allowed = f"{MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} visible ASCII characters, random ones: {MAKE_KEY}"
    if value in PUBLISHED:
        raise _Refused("a key that is published with the source code", allowed)
    if re.fullmatch("[!-~]*", value) is None:
        raise _Refused("a key with a space, a control character or another character than ASCII", allowed)
    if not MIN_KEY_CHARACTERS <= len(value) <= MAX_KEY_CHARACTERS:
        raise _Refused(f"a key of {len(value)} characters", allowed)
    return value


_REDIS: Final = ("redis://", "rediss://", "redis+socket://")
_RABBITMQ: Final = ("amqp://", "amqps://", "pyamqp://")
_BROKERS: Final = (*_REDIS, *_RABBITMQ)

_MANY_SERVERS: Final = re.compile(r"(redis|rediss|valkey)?[+-]?(?P<what>cluster|sentinel)(\+ssl)?://")

_ONE_REDIS: Final = (
    "one Redis, such as redis://user:password@host:6379/0, rediss://… or redis+socket:///path, which is to be the "
    "primary (with Sentinel, a proxy or DNS name that follows it), or RabbitMQ, such as amqp://user:password@host//"
)


def _broker_url(value: str) -> str:
    if (many := _MANY_SERVERS.match(value)) is not None:
        raise _Refused(f"the address of a Redis {many['what'].capitalize()}", _ONE_REDIS)
    if not value.startswith(_BROKERS):
        raise ValueError("a URL that starts with " + ", ".join(_BROKERS))
    urls = value.split(";")  # RabbitMQ's may be several: Celery takes the first that answers
    hosts = [url.partition("://")[2].partition("/")[0].rpartition("@")[2] for url in urls]
    if value.startswith(_REDIS) and (len(urls) > 1 or "," in hosts[0]):
        raise _Refused("the addresses of several Redis servers", _ONE_REDIS)
    if not all(url.startswith(_RABBITMQ) for url in urls[1:]) or "," in "".join(hosts):
        raise _Refused("a list that is not of whole URLs", "RabbitMQ servers such as amqp://one//;amqp://two//")
    try:
        for url in urls:
            _ = urlsplit(url).port
    except ValueError as error:  # whose text would repeat a password with a slash in it
        raise ValueError(
            "a URL such as redis://:password@host:6379/0; a password with / or # in it percent-encoded"
        ) from error
    return value


def _directory(value: str) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise ValueError("a directory that exists")
    return path


def _authorities(value: str) -> Path:
    """A PEM file of authorities. Raises _Refused with what is wrong in it."""
    from dispatcher.egress.authorities import InvalidAuthorities, read_authorities  # noqa: PLC0415 - ssl takes 10 ms

    path = Path(value)
    try:
        read_authorities(path)
    except InvalidAuthorities as error:
        allowed = "a readable PEM file with one certificate or more (-----BEGIN CERTIFICATE-----)"
        raise _Refused(f"{error.found}, {value!r}", allowed) from error
    return path


_DIGITS: Final = 20
"""No number of a setting has more."""


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        # int() raises for thousands of digits, unless the interpreter was told otherwise.
        if not value.isascii() or not value.isdigit() or len(value) > _DIGITS or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError as error:
            raise ValueError(f"seconds, from {low:g} to {high:g}") from error
        if not low <= number <= high:
            raise ValueError(f"seconds, from {low:g} to {high:g}")
        return number

    return parse


def _kept(low: timedelta) -> Callable[[str], timedelta]:
    def parse(value: str) -> timedelta:
        try:
            duration = parse_duration(value)
        except ValueError as error:
            raise ValueError(f"a duration such as 30d, from {format_duration(low)} to 3650d") from error
        if not low <= duration <= _KEPT_AT_MOST:
            raise ValueError(f"a duration such as 30d, from {format_duration(low)} to 3650d")
        return duration

    return parse


_KEPT_AT_MOST: Final = timedelta(days=3650)


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(" or ".join(allowed))
        return value.lower()

    return parse


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(part) for part in _list(value))
    except ValueError as error:
        raise ValueError("networks such as 127.0.0.0/8, separated by commas") from error


def _addresses(value: str) -> tuple[str, ...]:
    found = _list(value)
    try:
        for one in found:
            ip_network(one)
    except ValueError as error:
        raise ValueError("addresses or networks such as 192.0.2.1, 192.0.2.0/28, separated by commas") from error
    return found


def _setting(parse: Callable[[str], Any], about: str, default: Any = None, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "about": about, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator decides. Raises nothing itself: `load` reads and checks."""

    database_url: str | None = _setting(database_url, "PostgreSQL 15 or later; none: an embedded one", secret=True)
    direct_database_url: str | None = _setting(
        _address,
        "the same database past a connection pooler, for workers, schedulers and `migrate`; none: the one above",
        secret=True,
    )
    broker_url: str | None = _setting(_broker_url, "Redis or RabbitMQ; none: an embedded Redis", secret=True)
    data_dir: Path | None = _setting(Path, "where the embedded servers keep their files")
    host: str = _setting(_text, "the address that the API listens on", "127.0.0.1")
    port: int = _setting(_number(0, 65535), "the port that the API listens on; 0: any free one", 8420)
    workers: int = _setting(_number(1, 256), "Celery worker processes of `up`; one a core", os.cpu_count() or 1)
    api_head_timeout_s: float = _setting(
        _seconds(0.1, 600), "seconds that a caller of the API has for a request line and its headers", 10.0
    )
    api_body_timeout_s: float = _setting(
        _seconds(0.1, 3600), "seconds that a caller has for a body, or to take some of an answer", 30.0
    )
    api_idle_timeout_s: float = _setting(
        _seconds(0.1, 3600), "seconds that a connection may be idle between two requests", 75.0
    )
    api_max_connections: int = _setting(
        _number(1, 1_000_000), "connections of one API process; beyond it the one idle longest is closed", 4096
    )
    api_max_unfinished_bytes: int = _setting(
        _number(1024 * 1024, 2**40),
        "bytes that all bodies of one API process hold before they are complete",
        256 * 1024 * 1024,
    )
    max_in_flight: int = _setting(_number(1, 100_000), "deliveries that one worker holds at once", 2000)
    worker_lease_s: float = _setting(
        _seconds(1, 600), "seconds without a heartbeat after which a worker's claims are rescued", 30.0
    )
    shutdown_grace_s: float = _setting(
        _seconds(0, 600),
        "seconds that a stopping worker gives its deliveries in flight: the deadline and a little",
        17.0,
    )
    start_timeout_s: float = _setting(
        _seconds(1, 86_400), "seconds that a server or process that `up` starts may show no progress", 300.0
    )
    hang_timeout_s: float = _setting(
        _seconds(5, 86_400), "seconds without a sign of life after which `up` replaces a process", 60.0
    )
    schedules_dir: Path | None = _setting(_directory, "retry schedules beside the shipped ones")
    profiles_dir: Path | None = _setting(_directory, "profiles beside the shipped ones")
    default_profile: str = _setting(_text, "the profile of an endpoint that names none", "default")
    egress_addresses: tuple[str, ...] = _setting(_addresses, "what we send from, for receivers' allow lists", ())
    secret_keys: str | None = _setting(
        _keyring,
        "keyring that seals secrets: id:base64 of 32 bytes, the active one first, separated by commas",
        secret=True,
    )
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = _setting(
        _networks, "networks that may be dialled although not public, by http and with a port too", ()
    )
    ca_file: Path | None = _setting(
        _authorities, "a PEM file of authorities that receivers' certificates may be from, beside the system's"
    )
    egress_proxy: str | None = _setting(_text, "a proxy for everything that is sent", secret=True)
    bootstrap_key: str | None = _setting(
        _operator_key, "an operator's API key, made at the start if absent", secret=True
    )
    retention_payloads: timedelta = _setting(
        _kept(timedelta(days=8)), "how long events keep their payloads", timedelta(days=30)
    )
    retention_responses: timedelta = _setting(
        _kept(timedelta(days=1)), "how long attempts keep the answers that they got", timedelta(days=30)
    )
    retention_metadata: timedelta = _setting(
        _kept(timedelta(days=8)), "how long events, deliveries and attempts are kept at all", timedelta(days=90)
    )
    log_format: str = _setting(_choice("text", "json"), "text or json", "text")
    log_level: str = _setting(_choice("debug", "info", "warning", "error"), "debug, info, warning or error", "info")


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting as `config show` prints it; a secret's value is masked."""

    variable: str
    value: str
    source: str
    about: str


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings. Raises ConfigurationError with every problem at once; an unknown DISPATCHER_ variable is one."""
    found, problems = read(environ)
    if problems:
        raise ConfigurationError(problems)
    return found


def read(environ: Mapping[str, str] = os.environ) -> tuple[Settings, list[Problem]]:
    """The settings, with the default in place of each that cannot be read, and every problem.

    What Kubernetes sets for a Service whose name starts with `dispatcher` is passed over: see `is_service_link`.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    known = {PREFIX + setting.name.upper(): setting for setting in fields(Settings)}
    for variable, setting in known.items():
        raw = environ.get(variable, "")
        if raw == "" or is_service_link(variable, raw):
            continue
        try:
            values[setting.name] = setting.metadata["parse"](raw)
        except _Refused as error:
            problems.append(Problem(variable, "", error.found, str(error)))
        except ValueError as error:
            found = "***" if setting.metadata["secret"] else repr(raw)
            problems.append(Problem(variable, "", found, str(error)))
        except ConfigurationError as error:
            problems += error.problems
    problems += unknown(environ)
    metadata = values.get("retention_metadata", Settings.__dataclass_fields__["retention_metadata"].default)
    problems += [
        Problem(
            f"{PREFIX}{name.upper()}",
            "",
            format_duration(kept),
            f"at most {PREFIX}RETENTION_METADATA, {format_duration(metadata)}",
        )
        for name in ("retention_payloads", "retention_responses")
        if (kept := values.get(name, Settings.__dataclass_fields__[name].default)) > metadata
    ]
    if "direct_database_url" in values and not environ.get(f"{PREFIX}DATABASE_URL"):
        problems.append(
            Problem(
                f"{PREFIX}DIRECT_DATABASE_URL", "", "***", f"only beside {PREFIX}DATABASE_URL, of the same database"
            )
        )
    if values.get("egress_proxy") is not None:
        problems.append(
            Problem(f"{PREFIX}EGRESS_PROXY", "", "***", "nothing yet: sending through a proxy is not built")
        )
    return Settings(**values), problems


def unknown(environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """A problem for each DISPATCHER_ variable that is not a setting: a misspelt name is never ignored."""
    known = [*(PREFIX + setting.name.upper() for setting in fields(Settings)), *_OTHERS]
    return [
        _unknown(variable, known)
        for variable in sorted(environ)
        if variable.startswith(PREFIX) and variable not in known and not is_service_link(variable, environ[variable])
    ]


def _unknown(variable: str, known: Iterable[str]) -> Problem:
    """The problem of a variable that is not a setting. Its value is not shown: it may be a misspelt secret's."""
    # Without the prefix, which would make every name look like every other.
    near = nearest_name(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
    hint = renamed.hint(variable, renamed.SETTINGS)
    if not hint:
        hint = f"did you mean {PREFIX}{near}?" if near else "docs/configuration.md lists them"
    return Problem(variable, "", "a setting that does not exist", "", hint=hint)


_SERVICE_LINK: Final = re.compile(
    r"""DISPATCHER(_[A-Z0-9_]+)?_
        (SERVICE_HOST | SERVICE_PORT(_[A-Z0-9_]+)? | PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)""",
    re.VERBOSE | re.ASCII,
)
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")


def is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes sets this variable for a Service named `dispatcher` or `dispatcher-…`, in every pod beside it.

    A name that ends in `_PORT` may be a setting: only a value such as tcp://10.0.0.1:8420 tells.

    >>> is_service_link("DISPATCHER_API_SERVICE_HOST", "10.0.0.1"), is_service_link("DISPATCHER_PORT", "8420")
    (True, False)
    """
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _SERVICE_URL.match(value) is not None


_OTHERS: Final = frozenset({API_URL, API_KEY, "DISPATCHER_SUPERVISOR_PID", COMMAND_LINE_KEY, PULSE})
"""Variables that are not settings of the system: the command line's, and what a supervisor tells its children."""


def shown(value: object) -> str:
    """A setting's value as it is written: addresses with commas, durations as `30d`."""
    match value:
        case None:
            return ""
        case tuple():
            return ", ".join(map(str, value))
        case timedelta():
            return format_duration(value)
        case _:
            return str(value)


def show(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Shown]:
    """Every setting with its source, secrets masked."""
    found = []
    for setting in fields(Settings):
        variable = PREFIX + setting.name.upper()
        value = getattr(settings, setting.name)
        text = shown(value)
        if setting.metadata["secret"] and value is not None:
            text = "***"
        raw = environ.get(variable, "")
        default = setting.default is MISSING or not raw or is_service_link(variable, raw)
        found.append(Shown(variable, text, "default" if default else "environment", setting.metadata["about"]))
    return found


def with_database(settings: Settings, url: str) -> Settings:
    """The same settings on this database."""
    return replace(settings, database_url=database_url(url))
