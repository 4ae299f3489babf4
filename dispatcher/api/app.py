"""The application: its resources, its errors, its life."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy.exc import DBAPIError

from dispatcher import __version__, telemetry, wiring
from dispatcher.api import (
    audit_log,
    cancellations,
    deliveries,
    delivery_story,
    endpoint_import,
    endpoint_log,
    endpoints,
    erasures,
    event_types,
    events,
    find,
    health,
    ids,
    ingest,
    keys,
    metrics,
    notification_url,
    openapi,
    pauses,
    problems,
    profiles,
    public_keys,
    reference,
    replays,
    schedules,
    sender_addresses,
    statistics,
    tenants,
)
from dispatcher.api.command_line import CommandLine
from dispatcher.api.connections import Limits, Lobby
from dispatcher.api.context import Context
from dispatcher.api.gate import Gate
from dispatcher.api.problems import is_read_only
from dispatcher.api.strict import strict
from dispatcher.flow import signing_keys
from dispatcher.flow import tenants as tenants_flow
from dispatcher.ids import uuid7
from dispatcher.store import tenants as tenants_store
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from starlette.routing import BaseRoute

    from dispatcher.config import Settings

_log = logging.getLogger(__name__)

CONNECTIONS: Final = 12
"""To the database, for everything but events and keys. Twenty, as many as before there were others, were no faster."""

LOOKUP_CONNECTIONS: Final = 4
"""For keys and their signatures; bearer keys share one statement."""

RESOURCES = (
    events,
    endpoints,
    notification_url,
    endpoint_import,
    endpoint_log,
    pauses,
    deliveries,
    delivery_story,
    replays,
    cancellations,
    erasures,
    find,
    ids,
    statistics,
    public_keys,
    tenants,
    keys,
    audit_log,
    schedules,
    profiles,
    event_types,
    sender_addresses,
    metrics,
    health,
)
"""One module each, with a `router`. A new resource is a file, an entry here and a tag below."""

TAGS: Final = {
    "events": "Events, which become deliveries. An accepted event is committed.",
    "event types": "The catalogue of event types.",
    "endpoints": "The URLs that events are delivered to.",
    "pauses": "Pauses of deliveries: of everything, a tenant, an endpoint or an event type.",
    "deliveries": "Deliveries of one event to one endpoint, and their attempts.",
    "replays": "Replays of deliveries that are chosen by conditions.",
    "cancellations": "Cancellations of waiting deliveries that are chosen by conditions.",
    "erasures": "Erasures of the payloads of an object's events.",
    "find": "A search for anything by an id, an object, a URL or a host.",
    "ids": "Ids that begin with the same characters.",
    "statistics": "Success rates, latencies and backlogs of deliveries.",
    "schedules": "Retry schedules.",
    "profiles": "Provider profiles: the rules of one payment system each.",
    "tenants": "Tenants, which own endpoints and events.",
    "keys": "Keys, which authenticate requests.",
    "public keys": "Public keys with which receivers verify signatures.",
    "audit log": "The log of all changes.",
    "webhooks": "The requests that receivers get.",
    "health": "Health checks and metrics.",
}
"""What the document says of each group of operations, in the order in which people read them."""


def make_app(settings: Settings, *, command_line_key: str | None = None, prepare: bool = True) -> FastAPI:
    """The application on these settings. Raises ConfigurationError where some are missing or wrong.

    `command_line_key` is the key by which the commands of this machine are known. `prepare` False leaves the database
    as it is at the start: no platform key, secret or operator's key is made.
    """
    register = wiring.register(settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        transport = wiring.transport(settings)
        app.state.context = context = Context(
            settings=settings,
            engine=wiring.api_engine(settings, connections=CONNECTIONS),
            ingest_engine=wiring.api_engine(settings, connections=ingest.MOST, pinned=True),
            lookups=wiring.api_engine(settings, connections=LOOKUP_CONNECTIONS, pinned=True),
            keyring=register.keyring,
            clock=register.clock,
            profiles=register.profiles,
            register=register,
            transport=transport,
            wakeup=Wakeup(settings.broker_url),
            command_line=None if command_line_key is None else CommandLine(command_line_key),
        )
        try:
            if prepare:
                await _begin(context)
            yield
        finally:
            await app.state.context.keys.aclose()
            await transport.aclose()
            for engine in (context.engine, context.ingest_engine, context.lookups):
                await engine.dispose()

    app = FastAPI(
        title="Dispatcher",
        version=__version__,
        lifespan=life,
        docs_url=None,  # `reference` has the page
        redoc_url=None,
        redirect_slashes=False,  # a redirected POST loses its body with some clients
        routes=list(_routes()),
    )
    app.state.lobby = Lobby(Limits.of(settings), time.monotonic)
    app.add_middleware(Gate)
    problems.install(app)
    openapi.install(app, TAGS)
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """The routes of every application in this process: to form one, FastAPI takes some ten milliseconds."""
    root = APIRouter(
        strict_content_type=False,  # the gate has looked
        generate_unique_id_function=openapi.operation_id,
        dependencies=[Depends(strict)],
    )
    for resource in RESOURCES:
        root.include_router(resource.router)
    root.include_router(reference.router)
    return tuple(root.routes)


async def _begin(context: Context) -> None:
    """Makes what must be there before the first request: the platform's keys, a secret, the operator's first key.

    On a database that is read-only, what was made before has to do: reads are served.
    """

    def make(connection: Connection) -> None:
        signing_keys.ensure(connection, context.keyring, by="api")
        tenants_flow.ensure_secret(connection, context.keyring, by="api")
        if (key := context.settings.bootstrap_key) is not None:
            tenants_store.add_key(connection, uuid7(), key, name="bootstrap", tenant_id=None)

    try:
        await context.transaction(make)
    except DBAPIError as error:
        if not is_read_only(error):
            raise
        telemetry.log(_log, logging.WARNING, "api.started_read_only", error=error)
