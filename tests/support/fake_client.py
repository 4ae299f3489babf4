"""A client of the API without an API: events and deliveries in lists, the answers in the API's shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import Event, validate
from dispatcher.model.outcome import reason

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
TENANT = "ten_00000000-0000-7000-8000-000000000001"


def attempt(
    number: int,
    outcome: str,
    status_code: int | None,
    decision: str,
    *,
    wait_s: float | None = None,
    error: str | None = None,
) -> Any:
    return {
        "id": format_id("att", uuid7()),
        "number": number,
        "duration_ms": 12.4,
        "outcome": outcome,
        "status_code": status_code,
        "error": error,
        "decision": decision,
        "charged": True,
        "wait_s": wait_s,
        "wait_relative_to": None if wait_s is None else "previous_failure",
    }


def _age(event: Any) -> tuple[datetime, str]:
    return datetime.fromisoformat(event["created_at"]), event["id"]


class FakeClient:
    """`stories` are the attempts of the deliveries that each event gets; `step` makes the next one of each."""

    def __init__(self, stories: dict[str, list[Any]] | None = None) -> None:
        self.stories = stories or {}
        self.stored: list[Any] = []
        self.made: list[Any] = []
        self.deliveries_: list[Any] = []
        self.attempts_: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        self.failing: list[Exception] = []
        self.profile: str | None = None
        self.profiles_asked = 0
        self.tenants = _Tenants(self)
        self.events = _Events(self)
        self.deliveries = _Deliveries(self)

    @contextmanager
    def opened(self) -> Iterator[FakeClient]:
        """What `dispatcher.cli.target.client` gives."""
        yield self

    def profiles(self) -> Any:
        self.profiles_asked += 1
        return {
            "data": [
                {"name": "checkout", "default": False, "document": {"envelope_members": ["metadata"]}},
                {"name": "default", "default": True, "document": {"envelope_members": []}},
            ]
        }

    def accept(self, kind: str = "payment.completed", *, at: datetime = AT, payload: Any = None, **more: Any) -> Any:
        event = {
            "id": format_id("evt", uuid7()),
            "type": kind,
            "tenant_id": TENANT,
            "mode": "live",
            "object_id": "pay_1",
            "payload": {"amount": 1} if payload is None else payload,
            "created_at": at.isoformat().replace("+00:00", "Z"),
        }
        self.stored.append(event | more)
        return self.stored[-1]

    def step(self) -> None:
        for delivery in self.deliveries_:
            waiting = self.stories[delivery["url"]]
            if waiting:
                made = waiting.pop(0)
                self.attempts_[delivery["id"]].append(made)
                delivery["attempt_count"] = made["number"]
                delivery["status"] = "waiting" if made["decision"] == "retry" else made["decision"]
                delivery["next_attempt_at"] = "2026-11-21T12:00:05Z" if delivery["status"] == "waiting" else None
                delivery["last_outcome"], delivery["last_status_code"] = made["outcome"], made["status_code"]
                delivery["status_reason"] = reason(made["outcome"], made["status_code"])


class _Tenants:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def get(self, tenant_id: str) -> Any:
        return {"id": tenant_id, "profile": self._client.profile}


class _Events:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def create(self, **event: Any) -> Any:
        client = self._client
        target = event.get("target")
        # What the API would refuse is refused here.
        validate(Event(type=event["type"], payload=event["payload"], mode=event["mode"], object_id=event["object_id"]))
        client.made.append(event)
        event_id = format_id("evt", uuid7())
        for url in client.stories if target is None else [target["url"]]:
            client.stories.setdefault(url, [])
            delivery_id = format_id("dlv", uuid7())
            client.attempts_[delivery_id] = []
            client.deliveries_.append(
                {
                    "id": delivery_id,
                    "event_id": event_id,
                    "event_type": event["type"],
                    "object_id": event["object_id"],
                    "mode": event["mode"],
                    "endpoint_id": format_id("ep", uuid7()),
                    "url": url,
                    "status": "waiting",
                    "status_reason": None,
                    "attempt_count": 0,
                    "last_outcome": None,
                    "last_status_code": None,
                    "created_at": AT.isoformat().replace("+00:00", "Z"),
                    "next_attempt_at": "2026-11-21T12:00:00Z",
                }
            )
        return {
            "id": event_id,
            "type": event["type"],
            "tenant_id": TENANT,
            "mode": event["mode"],
            "object_id": event["object_id"],
            "duplicate": False,
            "deliveries": len(client.deliveries_),
        }

    def list(self, *, limit: int = 50, cursor: str | None = None, created_after: Any = None, **chosen: Any) -> Any:
        if self._client.failing:
            raise self._client.failing.pop(0)
        found = [
            one
            for one in sorted(self._client.stored, key=_age, reverse=True)
            if (created_after is None or datetime.fromisoformat(one["created_at"]) >= created_after)
            and all(one[name] == value for name, value in chosen.items())
        ]
        start = int(cursor or 0)
        more = len(found) > start + limit
        self._client.calls.append("list")
        page = [{k: v for k, v in one.items() if k != "payload" or one["type"] != "no.payload"} for one in found]
        return {
            "data": page[start : start + limit],
            "has_more": more,
            "next_cursor": str(start + limit) if more else None,
        }

    def get(self, event_id: str) -> Any:
        return next(one for one in self._client.stored if one["id"] == event_id)


class _Deliveries:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def list(self, *, event_id: str, limit: int) -> Any:
        found = [dict(one) for one in self._client.deliveries_ if one["event_id"] == event_id]
        return {"data": found[:limit], "has_more": False, "next_cursor": None}

    def attempts(self, delivery_id: str) -> Any:
        self._client.calls.append("attempts")
        return {"data": list(self._client.attempts_[delivery_id]), "has_more": False, "next_cursor": None}


def after_each(steps: list[Callable[[], object]]) -> Callable[[float], None]:
    """A `sleep` that does the next step each time, and is Ctrl-C after the last."""
    waiting = iter(steps)

    def sleep(_: float) -> None:
        step = next(waiting, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    return sleep


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
