"""Builds the parts from the settings: the one place where they meet."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from dispatcher import __version__, telemetry
from dispatcher.datafile import nearest_name
from dispatcher.egress import AddressPolicy, PinnedTransport
from dispatcher.egress.authorities import InvalidAuthorities, default_ssl_context, read_authorities
from dispatcher.egress.url import ANY_HOST
from dispatcher.errors import ConfigurationError, Problem, Unavailable
from dispatcher.flow.register import Register
from dispatcher.flow.retention import Policy
from dispatcher.profiles import Known, shipped_profiles_dir
from dispatcher.profiles import load_catalog as load_profiles
from dispatcher.retry import RetrySchedule, load_catalog, shipped_schedules_dir
from dispatcher.signing import SCHEMES, Keyring
from dispatcher.signing.secrets import MAKE_KEYRING
from dispatcher.store import addresses, event_types, migrate, schedules, sessions
from dispatcher.store import profiles as store_profiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.config import Settings
    from dispatcher.profiles import Catalog as Profiles
    from dispatcher.retry import Catalog

_log = logging.getLogger(__name__)

USER_AGENT: Final = f"dispatcher/{__version__}".encode()

PINNED: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_memoize": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "jit": "off",
}
"""For the hot path's few statements: planned once a connection, and by index whatever the statistics say, since a
plan made while the tables are empty would otherwise scan them when they are full. By plain index scans, whose order
lets a LIMIT stop early: a bitmap of all that is due is as large as the backlog, and so is what a sort of it reads.

The order of a loop still follows the statistics of the moment: what a statement must do for that is said in
`dispatcher.store.deliveries`, and tests/store/test_bounds.py tries every statement."""

MADE_ANEW: Final = {"plan_cache_mode": "force_custom_plan"}
"""For all other statements: planned each time, for the values and the sizes of the tables at that time. A plan that is
kept may have been made while the tables were empty."""


PLANS: Final = sessions.as_options(PINNED)
"""`PINNED` as connection options."""

LIMITS: Final = "-c idle_in_transaction_session_timeout=10s"
"""A worker that hangs or is cut off between two statements of a claim would keep its lanes locked for everybody."""


_NEEDED: Final = {
    "database_url": ("a PostgreSQL URL; only `dispatcher up` brings its own", ""),
    "broker_url": ("a Redis or RabbitMQ URL; only `dispatcher up` brings its own", ""),
    "secret_keys": (
        "a keyring, id:base64 of 32 bytes; only `dispatcher up` on its own database makes one",
        f"this makes one: {MAKE_KEYRING}",
    ),
}
"""Settings that a process may need: what is allowed, and a hint."""


def _missing(name: str) -> Problem:
    allowed, hint = _NEEDED[name]
    return Problem(f"DISPATCHER_{name.upper()}", "", "nothing", allowed, hint=hint)


def require(settings: Settings, *names: str) -> None:
    """Raises ConfigurationError with each of these settings that is not set."""
    missing = [_missing(name) for name in names if getattr(settings, name) is None]
    if missing:
        raise ConfigurationError(missing)


def _database_url(settings: Settings) -> str:
    if settings.database_url is None:
        raise ConfigurationError([_missing("database_url")])
    return settings.database_url


def _direct_database_url(settings: Settings) -> str:
    """The database past a pooler."""
    return settings.direct_database_url or _database_url(settings)


def broker_url(settings: Settings) -> str:
    """Where bells are rung. Raises ConfigurationError where there is none."""
    if settings.broker_url is None:
        raise ConfigurationError([_missing("broker_url")])
    return settings.broker_url


def engine(settings: Settings) -> Engine:
    """For the command line: synchronous, planned freely; also through a pooler."""
    url = _database_url(settings)
    built = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=addresses.connect_timeout(url))
    sessions.set_up(built, **MADE_ANEW)
    return built


def direct_engine(settings: Settings) -> Engine:
    """For what may not go through a pooler: synchronous. Raises ConfigurationError where it would, as it is made."""
    url = _direct_database_url(settings)
    built = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=addresses.connect_timeout(url))
    sessions.set_up(built, **MADE_ANEW)
    try:
        with built.connect() as connection:
            refuse_pooler(connection, settings)
    except BaseException:
        built.dispose()
        raise
    return built


def refuse_pooler(connection: Connection, settings: Settings) -> None:
    """Raises ConfigurationError where a connection that has to be direct leads through a pooler."""
    if sessions.is_pooled(connection):
        name, allowed = "DISPATCHER_DIRECT_DATABASE_URL", "an address of PostgreSQL itself"
        if settings.direct_database_url is None:
            name, allowed = "DISPATCHER_DATABASE_URL", f"as it is for the API; name PostgreSQL itself in {name}"
        found = "a connection pooler, which workers, schedulers and `dispatcher migrate` cannot go through"
        raise ConfigurationError([Problem(name, "", found, allowed)])


API_POOL_S: Final = 5.0
"""How long a request waits for a connection to the database."""

API_STATEMENT_S: Final = 15.0
"""How long a statement of the API may run: its caller is answered soon after (`dispatcher.api.context.STALLED_S`)."""


def api_engine(settings: Settings, *, connections: int, pinned: bool = False) -> AsyncEngine:
    """For the API: asynchronous; so many requests at once reach the database, the others wait.

    Statements are planned each time or, with `pinned`, once a connection and by index, as workers' are: for events and
    keys, where planning each time would cost as much as the statement.

    A request waits 5 s for a lock, such as an idempotency key that a producer's open transaction holds; then it gets a
    503 rather than keep its connection from others.
    """
    url = _database_url(settings)
    built = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=API_POOL_S,
        connect_args=addresses.connect_timeout(url),
    )
    plans = PINNED if pinned else MADE_ANEW
    sessions.set_up(built.sync_engine, **plans, lock_timeout="5s", statement_timeout=f"{API_STATEMENT_S:g}s")
    return built


def hot_engine(settings: Settings, *, connections: int, statement_timeout_s: float = 0) -> AsyncEngine:
    """For workers and the scheduler: asynchronous, prepared statements, plans pinned to the indexes; past a pooler.

    No statement may take longer than `statement_timeout_s`; 0: there is no limit.
    """
    url = _direct_database_url(settings)
    limits = f"{LIMITS} -c statement_timeout={round(statement_timeout_s * 1000)}"
    options = f"{sessions.as_options(sessions.NEUTRAL)} {PLANS} {limits}"  # of a name that comes twice, the last holds
    built = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,  # every use commits or breaks; a ROLLBACK more costs a round trip each time
        connect_args={"options": options, "prepare_threshold": 0, **addresses.connect_timeout(url)},
    )
    sessions.set_up(built.sync_engine)
    sessions.replace_unfinished(built.sync_engine)
    return built


def keyring(settings: Settings) -> Keyring:
    """The keys that seal secrets. Raises ConfigurationError where there are none."""
    if settings.secret_keys is None:
        raise ConfigurationError([_missing("secret_keys")])
    return Keyring.parse(settings.secret_keys)


def transport(settings: Settings) -> PinnedTransport:
    """What posts: see `dispatcher.egress`. It checks addresses; which URLs there may be, profiles have said.

    Raises ConfigurationError where the file of authorities cannot be read any more.
    """
    context = None  # the transport makes one when it needs it
    if settings.ca_file is not None:
        try:
            context = default_ssl_context(read_authorities(settings.ca_file))
        except InvalidAuthorities as error:
            found = f"{error.found}, {str(settings.ca_file)!r}"
            raise ConfigurationError(
                [Problem("DISPATCHER_CA_FILE", "", found, "a PEM file of certificates")]
            ) from error
    return PinnedTransport(addresses=AddressPolicy(settings.allow_networks), url_policy=ANY_HOST, ssl_context=context)


def profiles(settings: Settings, *, schedules: Iterable[str] | None = None) -> Profiles:
    """The shipped profiles and the operator's. Raises ConfigurationError with every problem of every file.

    `schedules` are the names that a profile may use: by default those that can be read.
    """
    own = [settings.profiles_dir] if settings.profiles_dir else []
    names = catalog(settings) if schedules is None else schedules
    known = Known(schedules=tuple(names), schemes=SCHEMES)
    loaded = load_profiles(shipped_profiles_dir(), *own, known=known)
    if settings.default_profile not in loaded:
        near = nearest_name(settings.default_profile, loaded)
        hint = f"did you mean {near}?" if near else "`dispatcher profiles list` lists them"
        found = f"a profile that does not exist, {settings.default_profile!r}"
        raise ConfigurationError([Problem("DISPATCHER_DEFAULT_PROFILE", "", found, "", hint=hint)])
    return loaded


def register(settings: Settings) -> Register:
    """What registers endpoints. Raises ConfigurationError where keys are missing or a profile is broken."""
    return Register(keyring(settings), profiles(settings), settings.allow_networks, settings.default_profile)


def retention_policy(settings: Settings) -> Policy:
    """How long what is kept."""
    return Policy(
        payloads=settings.retention_payloads,
        responses=settings.retention_responses,
        metadata=settings.retention_metadata,
    )


def catalog(settings: Settings) -> Catalog:
    """The shipped schedules and the operator's. Raises ConfigurationError with every problem of every file."""
    own = [settings.schedules_dir] if settings.schedules_dir else []
    return load_catalog(shipped_schedules_dir(), *own)


def schedule_names(settings: Settings) -> list[str]:
    """The names of all schedule files, also of those that cannot be read."""
    directories = [shipped_schedules_dir(), *([settings.schedules_dir] if settings.schedules_dir else [])]
    return sorted({path.stem for directory in directories for path in directory.glob("*.toml")})


def publish_schedules(connection: Connection, catalog: Catalog) -> None:
    """Makes the catalogue's content what new deliveries pin."""
    for name, schedule in catalog.items():
        schedules.publish(
            connection,
            name=name,
            version=schedule.version,
            body=schedule.canonical(),
            first_wait_s=schedule.wait_before(1).total_seconds(),
        )


def publish_profiles(connection: Connection, settings: Settings, loaded: Profiles) -> None:
    """Makes the profiles what events with targets are judged by."""
    store_profiles.publish(connection, loaded, default=settings.default_profile, networks=settings.allow_networks)


def read_schedules(connection: Connection) -> dict[int, RetrySchedule]:
    """Every version that a delivery may have pinned, by its id."""
    return {id_: RetrySchedule.from_canonical(name, body) for id_, name, body in schedules.versions(connection)}


def prepare_database(settings: Settings) -> None:
    """Migrates the database, publishes the schedules and profiles: what must be done before anything runs on it.

    Raises Unavailable for a database that does not answer, ConfigurationError for broken schedule or profile files and
    for a pooler.
    Logs which schemas of event types are refused since this version: see `check_schemas`.
    """
    loaded, known = catalog(settings), profiles(settings)
    try:
        built = direct_engine(settings)
    except DBAPIError as error:
        raise unavailable(error) from error
    try:
        migrate.migrate(built)
        with built.begin() as connection:
            publish_schedules(connection, loaded)
            publish_profiles(connection, settings, known)
        with built.connect() as connection:
            check_schemas(connection)
    except DBAPIError as error:
        raise unavailable(error) from error
    finally:
        built.dispose()


def pending_migrations(settings: Settings) -> tuple[str | None, list[migrate.PlannedStep]]:
    """The schema's revision, None for an empty database, and the steps that `prepare_database` would run.

    Changes nothing. Raises Unavailable for a database that does not answer.
    """
    built = engine(settings)
    try:
        with built.connect() as connection:
            return migrate.current(connection), migrate.pending(connection)
    except DBAPIError as error:
        raise unavailable(error) from error
    finally:
        built.dispose()


def check_schemas(connection: Connection) -> None:
    """Logs a warning for each event type whose schema an earlier version has stored and this one refuses.

    Their events are refused until the schema is replaced. Nothing of this is stored: whatever judges a payload checks
    the schema itself, so an earlier version that still runs beside this one may go on storing what it accepts.
    Raises Unavailable where a type has a schema, and the validator is not installed.
    """
    for event_type in event_types.list_(connection):
        if event_type.schema is not None and (refusal := schema_refusal(event_type.schema)) is not None:
            telemetry.log(_log, logging.WARNING, "schema.refused", event_type=event_type.name, reason=refusal)


def check_validator() -> None:
    """Raises Unavailable where the validator of event types' schemas is not installed: the API needs it."""
    schema_refusal("true")


def schema_refusal(schema: str) -> str | None:
    """Why a stored schema is refused, None where it is not. Raises Unavailable without the validator."""
    from dispatcher.flow import event_schemas  # noqa: PLC0415 - only types with a schema need the validator

    return event_schemas.refusal(schema)


def check_database(settings: Settings, *, direct: bool = False) -> None:
    """Looks once whether the database answers and has this version's schema, before a process starts to serve.

    Raises Unavailable with one sentence, and with `direct`, for a process that may not go through a pooler,
    ConfigurationError where it would. What happens to the database later is survived, not refused.
    """
    revision = check_answers(settings, direct=direct)
    if not migrate.serves(revision):
        raise Unavailable(
            f"the database's schema is at {revision or 'nothing'}, this version needs {migrate.head()}: "
            "run `dispatcher migrate`"
        )


def check_answers(settings: Settings, *, direct: bool = False) -> str | None:
    """Looks once whether the database answers; the revision of its schema.

    Raises Unavailable with one sentence and, with `direct`, ConfigurationError where a pooler answers.
    """
    built = None
    try:
        built = direct_engine(settings) if direct else engine(settings)
        with built.connect() as connection:
            return migrate.current(connection)
    except DBAPIError as error:
        raise unavailable(error) from error
    finally:
        if built is not None:
            built.dispose()


def unavailable(error: DBAPIError) -> Unavailable:
    """The driver's error as one sentence."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return Unavailable(f"the database cannot be used: {lines[0] if lines else type(error.orig).__name__}")
