"""The operations of the OpenAPI document, and clients that send them anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from dispatcher import wiring
from dispatcher.api.app import make_app
from dispatcher.api.openapi import operations
from dispatcher.config import Settings
from dispatcher.egress import AddressPolicy, PinnedTransport
from dispatcher.ids import DEFAULT_TENANT
from tests.api.conftest import OPERATOR
from tests.support import walk
from tests.support.answers import Checked
from tests.support.receivers import Names

DOCUMENT: dict[str, Any] = make_app(
    Settings(database_url="postgresql+psycopg://nobody@nowhere/none", secret_keys=walk.KEYS.reveal())
).openapi()


@dataclass(frozen=True)
class Operation:
    """One operation, as the document describes it."""

    method: str
    path: str
    described: dict[str, Any] = field(repr=False, hash=False, compare=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.described

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.described["responses"]}

    def parameters(self, place: str) -> list[dict[str, Any]]:
        return [one for one in self.described.get("parameters", []) if one["in"] == place]

    def is_at(self, url: str) -> bool:
        return re.fullmatch(re.sub(r"{\w+}", "[^/]+", self.path), url) is not None

    def url(self, **ids: str) -> str:
        """The path with ids that have the form of ids; of nothing that is there, unless given."""
        return re.sub(r"{(\w+)}", lambda name: ids.get(name[1], an_id(name[1])), self.path)


def an_id(name: str) -> str:
    """An id for a parameter of this name."""
    prefix = {
        "endpoint_id": "ep",
        "event_id": "evt",
        "delivery_id": "dlv",
        "replay_id": "rpl",
        "tenant_id": "ten",
        "short_id": "dlv",
    }
    return f"{prefix.get(name, name.removesuffix('_id'))}_{DEFAULT_TENANT}"


OPERATIONS = [Operation(method.upper(), path, described) for path, method, described in operations(DOCUMENT)]


class Client:
    """An operator's, for tests that are not asynchronous themselves. A defect is answered, not raised."""

    def __init__(self, portal: BlockingPortal, client: httpx.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def request(self, method: str, url: str, **request: Any) -> httpx.Response:
        return self._portal.call(partial(self._client.request, method, url, **request))

    def get(self, url: str) -> httpx.Response:
        return self.request("GET", url)


@contextmanager
def closed() -> Iterator[None]:
    """Applications that start meanwhile reach nobody: to them every name is loopback, which may not be dialled."""
    with patch.object(wiring, "transport", lambda _: PinnedTransport(addresses=AddressPolicy(), resolver=Names())):
        yield


@contextmanager
def serving(url: str) -> Iterator[Client]:
    """A client of an application on a loop of its own, which reaches nobody."""
    app = make_app(Settings(database_url=url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    client = httpx.AsyncClient(
        transport=Checked(httpx.ASGITransport(app, raise_app_exceptions=False)),
        base_url="http://test",
        headers={"authorization": f"Bearer {OPERATOR}"},
    )
    with (
        closed(),
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        portal.wrap_async_context_manager(client),
    ):
        yield Client(portal, client)
