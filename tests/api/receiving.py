"""An application whose transport is a test's own: real, to loopback, or played."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx

from dispatcher.api.app import make_app
from dispatcher.clock import SYSTEM, Clock
from dispatcher.config import Settings
from dispatcher.egress import AddressPolicy, PinnedTransport
from tests.api.callers import bearer, make_tenant
from tests.api.conftest import OPERATOR
from tests.support import walk
from tests.support.receivers import Names
from tests.support.tls import Authority

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@asynccontextmanager
async def serving(
    url: str,
    transport: httpx.AsyncBaseTransport,
    *,
    private: bool = False,
    profile: str = "default",
    clock: Clock = SYSTEM,
    **changes: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """An operator's client of an application that sends over `transport`; of one profile, `changes` are made.

    `private` has the operator allow loopback.
    """
    settings = Settings(
        database_url=url,
        secret_keys=walk.KEYS.reveal(),
        bootstrap_key=OPERATOR,
        allow_networks=LOOPBACK if private else (),
    )
    app = make_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=bearer()) as client,
    ):
        context = app.state.context
        profiles = {**context.profiles, profile: replace(context.profiles[profile], **changes)}
        app.state.context = replace(
            context,
            transport=transport,
            clock=clock,
            profiles=profiles,
            register=replace(context.register, profiles=profiles),
        )
        yield client


@asynccontextmanager
async def dialling(authority: Authority | None = None, *, allowed: bool = True) -> AsyncIterator[PinnedTransport]:
    """A transport for which every name is loopback; loopback may be dialled if `allowed`."""
    context = None if authority is None else authority.client_context()
    policy = AddressPolicy(LOOPBACK) if allowed else AddressPolicy()
    transport = PinnedTransport(addresses=policy, resolver=Names(), ssl_context=context)
    yield transport
    await transport.aclose()


def answering(
    status: int | Callable[[httpx.Request], httpx.Response] = 200, seen: list[httpx.Request] | None = None
) -> httpx.MockTransport:
    """A receiver that is played: it notes what it was asked, and answers."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return httpx.Response(status) if isinstance(status, int) else status(request)

    return httpx.MockTransport(answer)


async def of_profile(client: httpx.AsyncClient, profile: str, name: str = "shop") -> str:
    """The id of a new tenant under the profile."""
    return str((await make_tenant(client, name, profile=profile))["id"])
