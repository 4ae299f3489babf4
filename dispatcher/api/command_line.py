"""Requests of this machine's command line, known by a key that `dispatcher up` makes for each of its starts.

The key is never stored in the database: it ends with the process that was started with it. It lies in a file of the
data directory that only its owner can read, so whoever holds it is the operator of this machine; only that key may
say in a header which person calls, for the audit log.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from dispatcher.api.authenticate import Identity, bearer, local
from dispatcher.errors import InvalidInput
from dispatcher.model.access import ACTOR_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

UNNAMED: Final = "cli"
"""The actor where the header is left out."""

MIN_KEY: Final = 32
"""Characters of the key: an empty one would make everybody an operator."""

MAX_ACTOR: Final = 100
"""Characters of an actor, as the audit log shows it."""

_ACTOR: Final = re.compile(r"cli:[A-Za-z0-9\-._~%]{1,600}", re.ASCII)


class CommandLine:
    """Tells the command line's requests from all others."""

    def __init__(self, key: str) -> None:
        if len(key) < MIN_KEY:
            raise ValueError(f"a command line's key of {len(key)} characters; allowed: {MIN_KEY} or more")
        self._sha256 = sha256(key.encode()).digest()

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """The operator at the command line; None for a request with any other key, or without one.

        `headers` are lower case. Raises InvalidInput for an actor that cannot be shown; under any other key the
        header means nothing.
        """
        key = bearer(headers.get("authorization", ""))
        if not hmac.compare_digest(sha256(key.encode()).digest(), self._sha256):
            return None
        return local(_actor(headers.get(ACTOR_HEADER)))


def _actor(text: str | None) -> str:
    if text is None:
        return UNNAMED
    try:
        actor = unquote(text, errors="strict") if _ACTOR.fullmatch(text) else ""
    except UnicodeDecodeError:
        actor = ""
    if not actor.isprintable() or not 0 < len(actor) <= MAX_ACTOR:
        allowed = f"cli: and a name, percent-encoded, of at most {MAX_ACTOR} printable characters in all"
        raise InvalidInput(ACTOR_HEADER, repr(text)[:80], allowed)
    return actor
