"""The application: its resources, its errors, its life."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from dispatcher import __version__, wiring
from dispatcher.api import deliveries, endpoints, events, health, openapi, problems, public_keys
from dispatcher.api.context import Context
from dispatcher.api.gate import Gate
from dispatcher.flow import signing_keys
from dispatcher.ids import uuid7
from dispatcher.store import tenants
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dispatcher.config import Settings

RESOURCES = (
    events,
    endpoints,
    deliveries,
    public_keys,
    health,
)
"""One module each, with a `router`. A new resource is a file and an entry here."""


def make_app(settings: Settings) -> FastAPI:
    """The application on these settings. Raises ConfigurationError where some are missing or wrong."""
    register = wiring.register(settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        transport = wiring.transport(settings)
        app.state.context = context = Context(
            settings=settings,
            engine=wiring.api_engine(settings),
            keyring=register.keyring,
            clock=register.clock,
            profiles=register.profiles,
            register=register,
            transport=transport,
            wakeup=Wakeup(settings.broker_url),
        )
        await context.transaction(lambda connection: signing_keys.ensure(connection, register.keyring, by="api"))
        if (key := settings.bootstrap_key) is not None:
            await context.transaction(
                lambda connection: tenants.add_key(connection, uuid7(), key, name="bootstrap", tenant_id=None)
            )
        yield
        await transport.aclose()
        await context.engine.dispose()

    app = FastAPI(title="Dispatcher", version=__version__, lifespan=life, redoc_url=None)
    app.add_middleware(Gate)
    problems.install(app)
    for resource in RESOURCES:
        app.include_router(resource.router)
    openapi.install(app)
    return app
