"""Holds deliveries, and lets them go on: of everything, a tenant, an endpoint, a type of event or a mode.

What is held waits. Nothing that is in flight is called back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, Forbidden, InvalidInput, NotFound
from dispatcher.flow import register, registration
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.model.endpoint import validate_event_types
from dispatcher.store import pauses as store
from dispatcher.store import tenants, trail

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.pauses import Pause, Scope


def create(
    connection: Connection,
    scope: Scope,
    *,
    reason: str,
    by: str,
    own: UUID | None = None,
    clock: Clock = SYSTEM,
) -> Pause:
    """Holds what is in the scope; `own` is the tenant that asks, None for an operator.

    Raises NotFound for an endpoint that is not there or not `own`'s, InvalidInput for a tenant or a type that cannot
    be, Forbidden where a tenant asks for more than its own, and Conflict where this scope is paused.
    """
    if own is not None and scope.tenant_id != own:
        raise Forbidden("found a pause beyond the key's tenant; allowed: of its tenant, or of something within it")
    registration.line("reason", reason)
    check_type(scope.event_type)
    if scope.tenant_id is not None and not tenants.exists(connection, scope.tenant_id):
        raise InvalidInput("/tenant_id", format_id("ten", scope.tenant_id), "a tenant that exists")
    if scope.endpoint_id is not None:
        endpoint = register.find(connection, scope.endpoint_id, tenant_id=own)
        if scope.tenant_id not in (None, endpoint.tenant_id):
            raise InvalidInput("/endpoint_id", "an endpoint of another tenant", "one of the tenant that is named")
    pause_id = uuid7(clock.now())
    if not store.add(connection, pause_id, scope, reason=reason, by=by):
        raise Conflict("this scope is already paused", code="PAUSED_ALREADY")
    pause = store.find(connection, pause_id)
    assert pause is not None
    _note(connection, "created", pause, None, _facts(pause), by=by)
    return pause


def end(connection: Connection, pause_id: UUID, *, by: str, own: UUID | None = None) -> None:
    """Lets what was held go on.

    Raises NotFound where there is no such pause, or not within `own`, if given, and Forbidden where a tenant would end
    what an operator has paused.
    """
    _end(connection, store.find(connection, pause_id), by=by, own=own)


def end_scope(connection: Connection, scope: Scope, *, by: str, own: UUID | None = None) -> None:
    """Ends the pause of exactly this scope. Raises InvalidInput for a type that cannot be, and what `end` raises."""
    check_type(scope.event_type)
    _end(connection, store.find_scope(connection, scope), by=by, own=own)


def _end(connection: Connection, pause: Pause | None, *, by: str, own: UUID | None) -> None:
    if pause is None or own not in (None, pause.scope.tenant_id):
        raise NotFound("there is no such pause")
    if own is not None and not _is_tenants(connection, pause):
        raise Forbidden("an operator has paused this; allowed: an operator's key")
    if not store.end(connection, pause.id):
        raise NotFound("there is no such pause")
    _note(connection, "ended", pause, _facts(pause), None, by=by)


def check_type(event_type: str | None) -> None:
    """Raises InvalidInput for what is neither a type nor a family of them."""
    if event_type is None:
        return
    try:
        validate_event_types([event_type])
    except InvalidInput as error:
        raise InvalidInput("/event_type", error.found, "an event type, or payment.*") from error
    if event_type == "*":
        raise InvalidInput("/event_type", "'*'", "an event type, or payment.*; left out it is all of them")


def _is_tenants(connection: Connection, pause: Pause) -> bool:
    """Whether a tenant's key has made it: what an operator holds, the held one cannot let go."""
    try:
        key = tenants.find_key_by_id(connection, parse_id("key", pause.created_by))
    except InvalidInput:
        return False
    return key is not None and key.tenant_id is not None


def _facts(pause: Pause) -> dict[str, Any]:
    scope = pause.scope
    return {
        "tenant_id": None if scope.tenant_id is None else format_id("ten", scope.tenant_id),
        "endpoint_id": None if scope.endpoint_id is None else format_id("ep", scope.endpoint_id),
        "event_type": scope.event_type,
        "mode": None if scope.mode is None else scope.mode.value,
        "reason": pause.reason,
    }


def _note(
    connection: Connection,
    verb: str,
    pause: Pause,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    *,
    by: str,
) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"pause.{verb}",
        object=format_id("pau", pause.id),
        tenant_id=pause.scope.tenant_id,
        before=before,
        after=after,
    )
