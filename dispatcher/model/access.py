"""Who may do what: the scopes of a key."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What a key may do."""

    EVENTS_WRITE = "events:write"  # accept events, read them back
    ENDPOINTS_WRITE = "endpoints:write"  # register and change endpoints; pause
    DELIVERIES_READ = "deliveries:read"  # read events, endpoints, deliveries, attempts, replays
    DELIVERIES_REPLAY = "deliveries:replay"  # retry, cancel, replay, recover
    ADMIN = "admin"  # everything, keys and tenants too, as far as the key's tenant reaches


NAME: Final = r"^[^\x00-\x1f\x7f-\x9f]+$"
"""What the names of tenants and keys match: they are shown to people, so they hold no control characters."""

ALL: Final = frozenset({Scope.ADMIN})
"""What an operator's key has that names no scopes."""


EXAMPLE_KEY: Final = "dsk_VGhpcyBpcyBubyBrZXksIGJ1dCBhbiBleGFtcGxlIDo"
"""The API key that examples show. It is public, so it is never accepted as a key."""

API_URL: Final = "DISPATCHER_API_URL"
"""The variable that names the API for the client and the command line."""

API_KEY: Final = "DISPATCHER_API_KEY"
"""The variable that holds their key."""

ACTOR_HEADER: Final = "x-dispatcher-actor"
"""Which person calls, of requests of this machine's command line: `cli:` and the account's name, percent-encoded where
it is more than letters, digits and `-._~`."""
