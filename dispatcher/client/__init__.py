"""A client of the HTTP API: `Client` for code that waits, `AsyncClient` for code on an event loop.

    with Client("https://dispatcher.example.com", api_key=…) as client:
        client.events.create(type="payment.completed", payload={"amount": 1000})

See `docs/client.md`. It needs httpx and orjson, and nothing of the system that it calls.
"""

from dispatcher.client.auth import BearerAuth, HmacAuth
from dispatcher.client.client import AsyncClient, Client, Options
from dispatcher.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    ForeignAnswer,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    Unprocessable,
    Unreachable,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "BearerAuth",
    "Client",
    "Conflict",
    "Forbidden",
    "ForeignAnswer",
    "HmacAuth",
    "NotFound",
    "Options",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "Unreachable",
]
