"""The system that a command of the API works on, and how it gets there. `dispatcher.cli.machine` has the others.

`dispatcher.cli.commands` says which commands go where.
"""

from __future__ import annotations

import getpass
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click
import httpx

from dispatcher import config
from dispatcher.cli.verbs import CLIENT, DIRECT, VERB, WrongSystem
from dispatcher.client import Client, Unauthorized, Unreachable
from dispatcher.errors import ConfigurationError, DispatcherError
from dispatcher.local.paths import default_data_dir
from dispatcher.local.running import find_running
from dispatcher.model.access import ACTOR_HEADER, API_KEY, API_URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.cli import machine
    from dispatcher.local.running import Running

DATABASE_URL: Final = f"{config.PREFIX}DATABASE_URL"

_MAX_NAME: Final = 96


class KeyRefused(DispatcherError):
    """The API does not know the key that the command has."""

    code = "UNAUTHORIZED"


# Through the API


@contextmanager
def client() -> Iterator[Client]:
    """A client of the system that the command works on.

    The API that DISPATCHER_API_URL names; without it the API of the `up` that runs on the data directory; with
    --direct one that runs in this process, on the database. Raises WrongSystem where there is none, ConfigurationError
    for settings that cannot be.
    """
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    if CLIENT in meta:
        yield meta[CLIENT]
        return
    if meta.get(DIRECT):
        from dispatcher.cli import machine  # --direct alone needs the database, and our API on it

        with machine.client(str(meta.get(VERB))) as local:
            yield local
        return
    if problems := config.unknown():  # DISPATCHER_API_ULR would have the command work on this machine's system
        raise ConfigurationError(problems)
    with _remote() if os.environ.get(API_URL) else _beside() as found:
        try:
            yield found
        except Unauthorized as error:
            named = "is refused" if os.environ.get(API_KEY) else "is not set"
            where = os.environ.get(API_URL) or "the `dispatcher up` of this machine"
            raise KeyRefused(f"{error}: {API_KEY} {named}; set it to a key of {where}") from error
        except Unreachable as error:
            if DIRECT in meta and not os.environ.get(API_URL):
                raise Unreachable(f"{error}; --direct goes past the API to the database") from error
            raise


def _remote() -> Client:
    """A client of the API that DISPATCHER_API_URL names."""
    url = os.environ[API_URL]
    # Reading the certificates of all authorities takes 20 ms, and plain HTTP has no use for them.
    return Client.from_environment(verify=not url.startswith("http://"))


def _beside() -> Client:
    """A client of the API of the `up` that runs on the data directory, with its key unless another one is named."""
    running = _running_beside()
    key = os.environ.get(API_KEY) or running.command_line_key or None
    return Client(running.url, api_key=key, transport=_Named(actor()))


class _Named(httpx.HTTPTransport):
    """Sends requests in the name of a person, which the API believes of the command line's own key only.

    As it is given to the client, no proxy of the environment is used: the key stays on this machine.
    """

    def __init__(self, name: str) -> None:
        super().__init__(verify=False)  # plain HTTP, to this machine
        kind, _, person = name.partition(":")
        self._actor = f"{kind}:{quote(person, safe='')}"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Adds the header."""
        request.headers[ACTOR_HEADER] = self._actor
        return super().handle_request(request)


def _running_beside() -> Running:
    """The `up` that runs on the data directory.

    Raises WrongSystem where none does, or where DISPATCHER_DATABASE_URL names another database than it has.
    """
    data_dir = default_data_dir()
    named = os.environ.get(DATABASE_URL)
    running = find_running(data_dir)
    if running is None:
        raise WrongSystem(
            f"no `dispatcher up` runs on {data_dir}, and {API_URL} is not set: start `dispatcher up`, or name an API "
            f"by {API_URL}; commands that take --direct go past the API to the database of {DATABASE_URL}"
        )
    if named and named != running.database_url and (place := _other_place(named, running)) is not None:
        raise WrongSystem(
            f"{DATABASE_URL} names {place}, and the `dispatcher up` that runs on {data_dir} has another database: name "
            f"the API by {API_URL}, unset {DATABASE_URL}, or go past the API to the database by --direct"
        )
    return running


def _other_place(named: str, running: Running) -> machine.Place | None:
    """The database that the URL names, unless it is the one of the running system, spelt in another way."""
    from dispatcher.cli import machine  # to compare two spellings takes SQLAlchemy and the driver

    place = machine.Place.of(machine.checked(named))
    return None if place == machine.Place.of(running.database_url) else place


def actor() -> str:
    """Who types the command, as the audit log has it.

    >>> actor().partition(":")[0]
    'cli'
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in a container
        name = str(os.getuid())
    return "cli:" + "".join(one if one.isprintable() else "?" for one in name[:_MAX_NAME])
