"""All that `up` refuses before it starts anything: one list of checks, for `up` and for `config check`.

A check is a function of the settings that raises the DispatcherError which `up` would end with. It makes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dispatcher import config, wiring
from dispatcher.errors import ConfigurationError, DispatcherError
from dispatcher.local import binaries, ports
from dispatcher.local.accounts import server_account
from dispatcher.local.files import read_secret
from dispatcher.local.lock import DataDirLock
from dispatcher.local.paths import check_data_dir, default_data_dir, servers_dir
from dispatcher.local.postgres import check_cluster
from dispatcher.local.running import find_running
from dispatcher.local.supervisor import leftovers
from dispatcher.signing import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dispatcher.config import Settings


class Refused(DispatcherError):
    """`up` would not start. `str()` has one line for each reason."""

    def __init__(self, errors: list[DispatcherError]) -> None:
        self.code = next((error.code for error in errors if isinstance(error, ConfigurationError)), errors[0].code)
        lines = [line for error in errors for line in str(error).splitlines()]
        super().__init__("\n".join(dict.fromkeys(lines)))


@dataclass(frozen=True, slots=True)
class Check:
    """`needs` names the settings without which it cannot be made. `files`: it looks at settings and files only."""

    ask: Callable[[Settings], None]
    needs: tuple[str, ...] = ()
    files: bool = False


def settings(environ: Mapping[str, str] = os.environ, *, port: int | None = None, files_only: bool = False) -> Settings:
    """The settings, once every check has passed; `port` replaces the one that is set.

    Raises Refused with all that is wrong. A check is left out where a setting that it needs cannot be read, or where
    the data directory that it looks into has been refused: the error is told already.
    """
    found, problems = config.read(environ)
    if port is not None:
        found = replace(found, port=port)
        problems = [problem for problem in problems if problem.where != "DISPATCHER_PORT"]
    wrong = {problem.where for problem in problems}
    errors: list[DispatcherError] = [ConfigurationError(problems)] if problems else []
    for check in CHECKS:
        if wrong.isdisjoint(config.PREFIX + name.upper() for name in check.needs) and (check.files or not files_only):
            try:
                check.ask(found)
            except DispatcherError as error:
                errors.append(error)
                if check.ask is data_dir:
                    wrong.add("DISPATCHER_DATA_DIR")
    if errors:
        raise Refused(errors)
    return found


def schedules(settings: Settings) -> None:
    """Every schedule file can be read."""
    wiring.catalog(settings)


def profiles(settings: Settings) -> None:
    """Every profile file can be read, and the default one exists. A broken schedule's name is known all the same."""
    wiring.profiles(settings, schedules=wiring.schedule_names(settings))


def validator(_: Settings) -> None:
    """What checks payloads by their schemas is installed."""
    wiring.check_validator()


def data_dir(settings: Settings) -> None:
    """The data directory is ours alone, can be written, and no other system runs on it."""
    folder = _data_dir(settings)
    check_data_dir(folder)
    DataDirLock(folder).check()


def keyring(settings: Settings) -> None:
    """There is a keyring for a database of the operator's."""
    if settings.database_url is not None:
        wiring.keyring(settings)


def kept_keyring(settings: Settings) -> None:
    """The keyring that the data directory keeps, with an embedded database, can be read."""
    if settings.database_url is None and settings.secret_keys is None:
        path = _data_dir(settings) / "secret_keys"
        if kept := read_secret(path):
            Keyring.parse(kept, where=str(path))


def kept_key(settings: Settings) -> None:
    """The operator's key that the data directory keeps is one that the API accepts."""
    if settings.bootstrap_key is None:
        path = _data_dir(settings) / "api_key"
        if kept := read_secret(path):
            _, problems = config.read({"DISPATCHER_BOOTSTRAP_KEY": kept})
            if problems:
                raise ConfigurationError(replace(problem, where=str(path)) for problem in problems)


def account(settings: Settings) -> None:
    """There is an account for the embedded servers."""
    if settings.database_url is None or settings.broker_url is None:
        server_account()


def postgres(settings: Settings) -> None:
    """The embedded PostgreSQL runs on this machine."""
    if settings.database_url is None:
        binaries.check_postgres()


def cluster(settings: Settings) -> None:
    """The cluster that the data directory keeps is one that the embedded PostgreSQL can open."""
    if settings.database_url is None:
        folder = _data_dir(settings)
        kept = servers_dir(folder) / "postgres"
        if (kept / "PG_VERSION").exists():
            binaries.installation_for(kept)
            check_cluster(folder, kept, server_account())


def redis(settings: Settings) -> None:
    """The embedded Redis can run here."""
    if settings.broker_url is None:
        binaries.check_redis()


def port(settings: Settings) -> None:
    """The API's port is free, or may be held by processes of this data directory: `up` stops those that were left over,
    and a whole system has been refused for its lock.
    """
    if settings.port and not _has_processes(_data_dir(settings)):
        ports.check_port(settings.host, settings.port)


def _has_processes(folder: Path) -> bool:
    try:
        return bool(leftovers(folder / "processes")) or find_running(folder) is not None
    except (DispatcherError, OSError):
        return False  # the data directory is refused by its own check


def database(settings: Settings) -> None:
    """The database that is named answers, and workers reach it without a pooler."""
    if settings.database_url is not None:
        wiring.check_answers(settings, direct=True)


def _data_dir(settings: Settings) -> Path:
    return settings.data_dir or default_data_dir()


CHECKS: Final = (
    Check(schedules, ("schedules_dir",), files=True),
    Check(profiles, ("schedules_dir", "profiles_dir", "default_profile"), files=True),
    Check(validator, files=True),
    Check(data_dir, ("data_dir",)),
    Check(keyring, ("database_url", "secret_keys")),
    Check(kept_keyring, ("database_url", "secret_keys", "data_dir")),
    Check(kept_key, ("bootstrap_key", "data_dir")),
    Check(account, ("database_url", "broker_url")),
    Check(postgres, ("database_url",)),
    Check(cluster, ("database_url", "data_dir")),
    Check(redis, ("broker_url",)),
    Check(port, ("host", "port")),
    Check(database, ("database_url", "direct_database_url")),
)
