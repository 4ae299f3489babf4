"""POSTs that may be repeated: the same Idempotency-Key gets the first answer again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request, Response

from dispatcher.api.caller import caller
from dispatcher.api.context import Context, context, reply
from dispatcher.errors import IdempotencyConflict, InvalidInput
from dispatcher.store import idempotency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection


NOBODY: Final = UUID(int=0)
"""Whose the idempotency keys of operators are."""

KEY_LIFETIME_S: Final = 24 * 3600.0
"""How long an idempotency key is remembered."""


@dataclass(frozen=True, slots=True)
class Once:
    """A POST that may be repeated: the same Idempotency-Key and the same request get the first answer again.

    What is secret in an answer is told the first time only.
    """

    context: Context
    owner: UUID
    key: str | None
    request_sha256: bytes

    async def recall(self) -> Response | None:
        """The first answer, before anything is done that a transaction cannot take back. Raises IdempotencyConflict."""
        return None if self.key is None else await self.context.transaction(self._recall)

    async def run(
        self, work: Callable[[Connection], Mapping[str, Any]], *, status: int = 200, secret: tuple[str, ...] = ()
    ) -> Response:
        """Does `work` in one transaction with the note of its answer; `secret` names the fields that are told once.

        Raises what `work` raises, which leaves the key free, and IdempotencyConflict.
        """
        return await self.context.transaction(lambda connection: self._run(connection, work, status, secret))

    def _run(
        self,
        connection: Connection,
        work: Callable[[Connection], Mapping[str, Any]],
        status: int,
        secret: tuple[str, ...],
    ) -> Response:
        if self.key is not None:
            idempotency.lock(connection, self.owner, self.key)
            if (before := self._recall(connection)) is not None:
                return before
        body = work(connection)
        if self.key is not None:
            kept = _without(body, secret)
            text = orjson.dumps(kept, option=orjson.OPT_UTC_Z).decode()
            answered = idempotency.Answered(self.request_sha256, status, text)
            idempotency.remember(connection, self.owner, self.key, answered, lifetime_s=KEY_LIFETIME_S)
        return reply(body, status)

    def _recall(self, connection: Connection) -> Response | None:
        assert self.key is not None
        found = idempotency.recall(connection, self.owner, self.key)
        if found is None:
            return None
        if found.request_sha256 != self.request_sha256:
            raise IdempotencyConflict(f"the key {self.key!r} was already used with a different request")
        headers = {"idempotency-replayed": "true"}
        return Response(found.body, found.status, headers=headers, media_type="application/json")


def _without(body: Any, secret: tuple[str, ...]) -> Any:
    """The same answer without the fields that are secret, at any depth."""
    if isinstance(body, dict):
        return {name: _without(value, secret) for name, value in body.items() if name not in secret}
    if isinstance(body, list):
        return [_without(value, secret) for value in body]
    return body


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A repeat with the same key and the same request gets the first answer, for 24 hours; "
        "with another request it is refused.",
        examples=["order-8127-paid"],
    ),
]


async def once(request: Request, idempotency_key: IdempotencyKey = None) -> Once:
    """How a POST is done once. Raises InvalidInput for a key that cannot be kept."""
    if idempotency_key is not None and not idempotency_key.isprintable():
        raise InvalidInput("idempotency-key", repr(idempotency_key)[:80], "1 to 255 printable characters")
    who = await caller(request)
    asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + await request.body()
    return Once(await context(request), who.tenant_id or NOBODY, idempotency_key, sha256(asked).digest())


OnceOf = Annotated[Once, Depends(once)]
