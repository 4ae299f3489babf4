"""Every operation of the OpenAPI document, asked by those who may not: generated, so that a new one is asked too.

What an operation names (in its path, query or body) is made for two tenants. One asks with its key for the other's, for
what is not there and for what it has deleted: the three answer alike, change nothing and tell nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, text

from dispatcher.api.app import make_app
from dispatcher.cli.in_process import Bridge
from dispatcher.clock import SYSTEM
from dispatcher.config import Settings
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.access import Scope
from tests.api.callers import bearer
from tests.api.conftest import OPERATOR
from tests.api.operations import DOCUMENT as DESCRIBED
from tests.support import walk
from tests.support.servers import drop_database, fresh_database

DOCUMENT = Path(__file__).parents[2] / "docs/authentication.md"
OPERATORS, EVERYBODY = "operators", "no key"


@dataclass(frozen=True)
class Place:
    """Where an operation names an object: in its path, query or body; `name` is a dotted one in the body."""

    kind: str
    name: str

    @property
    def what(self) -> str:
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Operation:
    method: str
    template: str
    described: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def in_path(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.template)

    @property
    def body_schema(self) -> dict[str, Any] | None:
        content = self.described.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return None if schema is None else resolved(schema)

    @property
    def places(self) -> list[Place]:
        """Every place that can name an object of a tenant, or a tenant."""
        query = [one["name"] for one in self.described.get("parameters", []) if one["in"] == "query"]
        body = [] if self.body_schema is None else references(self.body_schema)
        return [
            *(Place("path", name) for name in self.in_path if name in MAKERS),
            *(Place("query", name) for name in query if name in MAKERS),
            *(Place("body", name) for name in body),
        ]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself: of a reference what it refers to, of several the first that is not null."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = DESCRIBED["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        else:
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
    return schema


def example(schema: dict[str, Any]) -> Any:
    """A value of the schema: its example or, of an object, its required fields."""
    if schema.get("examples"):
        return schema["examples"][0]
    schema = resolved(schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: example(schema["properties"][name]) for name in schema.get("required", [])}
        case "array":
            of_objects = resolved(schema["items"]).get("type") == "object"
            return [example(schema["items"])] if schema.get("minItems") or of_objects else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
    return "x"


def references(schema: dict[str, Any], before: str = "") -> list[str]:
    """The dotted names of properties that name objects of a tenant; of a list, those of the first item."""
    found = []
    for name, one in schema.get("properties", {}).items():
        below = resolved(one)
        if name in MAKERS:
            found.append(before + name)
        elif below.get("type") == "object":
            found += references(below, f"{before}{name}.")
        elif below.get("type") == "array":
            found += references(resolved(below["items"]), f"{before}{name}.0.")
    return found


# The two tenants, and what they have


@dataclass
class Side:
    """A tenant, its admin's key, and the ids of what was made for it."""

    world: World
    tenant_id: str
    key: str = ""
    ids: set[str] = field(default_factory=set)
    keys: dict[Scope, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.world.client.request(method, path, headers=bearer(self.key), **options)

    def made(self, method: str, path: str, **options: Any) -> Any:
        answer = self.ask(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def make(self, what: str) -> str:
        """The id of a new object."""
        id_ = MAKERS[what](self)
        self.ids.add(id_)
        return id_

    def key_of(self, scope: Scope) -> str:
        """The same key for each test."""
        if scope not in self.keys:
            self.keys[scope] = str(self.made("POST", "/v1/keys", json={"name": "one", "scopes": [scope]})["key"])
        return self.keys[scope]


@dataclass
class World:
    client: httpx.Client
    engine: Engine
    own: Side = field(init=False)
    other: Side = field(init=False)

    def __post_init__(self) -> None:
        self.own, self.other = self._side("own"), self._side("other")

    def _side(self, name: str) -> Side:
        operator = Side(self, "", OPERATOR)
        tenant_id = operator.made("POST", "/v1/tenants", json={"name": name})["id"]
        key = operator.made("POST", "/v1/keys", json={"name": name, "tenant_id": tenant_id})
        return Side(self, tenant_id, key["key"], {tenant_id, key["id"]})

    def snapshot(self, side: Side) -> list[tuple[str, str]]:
        """What the database has of a tenant, as a hash for each table."""
        tenant_id = parse_id("ten", side.tenant_id)
        with self.engine.connect() as connection:
            tables = walk.rows(
                connection,
                """SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                   WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p')
                     AND NOT c.relispartition AND a.attname = 'tenant_id' ORDER BY 1""",
            )
            # A sum needs no order: sorting thousands of rows twice a test took most of this file's time.
            hashed = """SELECT count(*) || ' ' || coalesce(sum(hashtextextended({}, 0)), 0)
                        FROM dispatcher.{} t WHERE {} = :id"""
            # When a key was last used is noted after its request.
            rows = {"api_keys": "(to_jsonb(t) - 'last_used_at')::text"}
            asked = [("tenants", "id"), *((name, "tenant_id") for (name,) in tables)]
            return [
                (
                    name,
                    connection.execute(
                        text(hashed.format(rows.get(name, "t::text"), name, column)), {"id": tenant_id}
                    ).scalar_one(),
                )
                for name, column in asked
            ]


def _endpoint(side: Side, event_type: str = "test.unused") -> str:
    """Wants one type only: an event that went to all endpoints of a tenant would make hundreds of deliveries."""
    body = {"url": f"https://shop.example.com/{uuid7()}", "event_types": [event_type]}
    return str(side.made("POST", "/v1/endpoints", json=body)["id"])


def _event(side: Side) -> str:
    event_type = f"test.t{uuid7().hex}"
    _endpoint(side, event_type)
    return str(side.made("POST", "/v1/events", json={"type": event_type, "payload": {"n": 1}})["id"])


def _delivery(side: Side) -> str:
    found = side.made("GET", "/v1/deliveries", params={"event_id": side.make("event_id"), "limit": 1})["data"]
    return str(found[0]["id"])


def _replay(side: Side) -> str:
    body = {"endpoint_id": side.make("endpoint_id")}
    token = side.made("POST", "/v1/replays/preview", json=body)["preview_token"]
    return str(side.made("POST", "/v1/replays", json=body | {"preview_token": token})["id"])


def _pause(side: Side) -> str:
    return str(side.made("POST", "/v1/pauses", json={"endpoint_id": side.make("endpoint_id"), "reason": "test"})["id"])


def _key(side: Side) -> str:
    return str(side.made("POST", "/v1/keys", json={"name": "more"})["id"])


def _erasure(side: Side) -> str:
    return str(side.made("POST", "/v1/erasures", json={"object_id": "pay_of_nobody"})["id"])


MAKERS: dict[str, Callable[[Side], str]] = {
    "tenant_id": lambda side: side.tenant_id,
    "parent_id": lambda side: side.tenant_id,
    "endpoint_id": _endpoint,
    "event_id": _event,
    "delivery_id": _delivery,
    "delivery_ids": _delivery,
    "replay_id": _replay,
    "replay_of": _delivery,
    "pause_id": _pause,
    "erasure_id": _erasure,
    "preview_token": lambda side: str(side.made("POST", "/v1/replays/preview", json={})["preview_token"]),
    "key_id": _key,
    "object": _endpoint,
    "q": _endpoint,
    "short_id": _endpoint,
}
"""How an object is made for a tenant, by the name that operations have for its id."""

DELETED = {"endpoint_id": "/v1/endpoints/{}", "pause_id": "/v1/pauses/{}", "short_id": "/v1/endpoints/{}"}
"""What can be deleted, and how. A revoked key stays in the list, and the rest stays for good."""

SHARED = {
    "/v1/schedules": {"name": "standard"},
    "/v1/profiles": {"name": "terminal"},
    "/v1/event_types": {"name": "payment.completed"},
}
"""Names in paths that are of the installation, by the resource: no tenant's."""

NO_OBJECTS = {"object_id"}
"""What ends in _id and is no id of ours: the caller's own word for a payment."""

BODIES: dict[str, Callable[[Side], dict[str, Any]]] = {}
"""Bodies that the examples of the document do not make: a request that has to be made first."""


def _previewed(path: str) -> Callable[[Side], dict[str, Any]]:
    def body(side: Side) -> dict[str, Any]:
        chosen = {"endpoint_id": side.make("endpoint_id")}
        return chosen | {"preview_token": side.made("POST", path, json=chosen)["preview_token"]}

    return body


BODIES["POST /v1/pauses"] = lambda _: {"event_type": "payment.*"}
BODIES["POST /v1/schedules/simulate"] = lambda _: {"name": "standard"}
BODIES["POST /v1/replays"] = _previewed("/v1/replays/preview")
BODIES["POST /v1/cancellations"] = _previewed("/v1/cancellations/preview")


def _held(side: Side) -> dict[str, str]:
    endpoint_id = side.make("endpoint_id")
    side.made("POST", "/v1/pauses", json={"endpoint_id": endpoint_id, "reason": "test"})
    return {"endpoint_id": endpoint_id}


QUERIES: dict[str, Callable[[Side], dict[str, str]]] = {"DELETE /v1/pauses": _held}
"""Queries of operations that name by them what they are for."""

OPERATIONS = [
    Operation(method.upper(), template, described)
    for template, operations in DESCRIBED["paths"].items()
    for method, described in operations.items()
]

each_operation = pytest.mark.parametrize("one", OPERATIONS, ids=str)


def documented() -> dict[str, set[str]]:
    """Which scopes each operation takes, or who, as docs/authentication.md has it."""
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {operation: set(re.findall(r"`([^`]+)`", cell)) or {cell} for operation, cell in rows}


SCOPES = documented()
SCOPES["GET /v1/ids/{short_id}"] = SCOPES["GET /v1/endpoints/{endpoint_id}"]  # MAKERS names an endpoint by it


class Network(Bridge):
    """To the application from outside: nobody is an operator without a key."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._asgi = httpx.ASGITransport(app)
        self._portal = portal


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    url = fresh_database(postgres, migrated_template)
    app = make_app(Settings(database_url=url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    engine = create_engine(url)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        receiver = httpx.MockTransport(lambda _: httpx.Response(200))
        app.state.context = replace(app.state.context, transport=receiver)
        with httpx.Client(transport=Network(app, portal), base_url="http://test") as client:
            yield World(client, engine)
    engine.dispose()
    drop_database(postgres, url)


def request(one: Operation, side: Side, *, at: Place | None = None, id_: str = "") -> dict[str, Any]:
    """The operation on what is the side's own; at one place, if given, on another object."""
    shared = next((names for path, names in SHARED.items() if one.template.startswith(path)), {})
    values = {name: shared.get(name) or side.make(name) for name in one.in_path}
    params: dict[str, str] = {
        parameter["name"]: side.make(parameter["name"])
        for parameter in one.described.get("parameters", [])
        if parameter["in"] == "query" and parameter.get("required")
    }
    if str(one) in QUERIES:
        params |= QUERIES[str(one)](side)
    body: Any = None
    if one.body_schema is not None:
        body = BODIES[str(one)](side) if str(one) in BODIES else example(one.body_schema)
        if isinstance(body, dict) and str(one) not in BODIES:
            for name in set(body) & set(MAKERS):
                body[name] = side.make(name)
    if at is not None:
        match at.kind:
            case "path":
                values[at.name] = id_
            case "query":
                params[at.name] = id_
            case "body":
                into = body
                *above, last = at.name.split(".")
                for name in above:
                    into = into[int(name)] if name.isdigit() else into.setdefault(name, {})
                into[last] = [id_] if last.endswith("_ids") else id_
    found: dict[str, Any] = {"method": one.method, "url": one.template.format(**values), "params": params}
    return found if body is None else found | {"json": body}


def send(side: Side, key: str | None, asked: dict[str, Any]) -> httpx.Response:
    return side.world.client.request(**asked, headers={} if key is None else bearer(key))


def alike(answer: httpx.Response, id_: str) -> tuple[Any, ...]:
    """An answer without what is of this request only."""
    said = re.sub(r'"request_id":"[^"]*"', "", answer.text.replace(id_, "ID"))
    said = re.sub(r"[a-z]{2,3}_[0-9a-f]{8}-[0-9a-f-]{27}", "AN_ID", said)  # of what the answer itself made
    said = re.sub(r'"\d{4}-\d\d-\d\dT[^"]*Z"|"(?:whsec|hmsec|dsk)_[^"]*"', "", said)
    return answer.status_code, answer.headers.get("content-type"), said


def random_like(id_: str) -> str:
    return f"{id_.partition('_')[0]}_{uuid7()}"


def test_every_operation_is_documented_with_its_scopes() -> None:
    lacking = [str(one) for one in OPERATIONS if str(one) not in SCOPES]
    assert lacking == [], f"add {lacking} to the table in {DOCUMENT.name}"
    assert [one for one in SCOPES if one not in {str(one) for one in OPERATIONS}] == [], "there is no such operation"
    known = {*map(str, Scope), OPERATORS, EVERYBODY, "every key"}
    assert [one for one, scopes in SCOPES.items() if not scopes <= known] == []


def test_everything_that_operations_name_can_be_made() -> None:
    """Whoever adds an operation on a new kind of object adds here how one is made."""
    named = {name for one in OPERATIONS for name in one.in_path}
    for one in OPERATIONS:
        named |= {parameter["name"] for parameter in one.described.get("parameters", []) if parameter.get("required")}
        if one.body_schema is not None:
            named |= set(one.body_schema.get("properties", {}))
        named |= {parameter["name"] for parameter in one.described.get("parameters", [])}
    ids = {
        name for name in named if name.endswith(("_id", "_ids")) or name in {n for o in OPERATIONS for n in o.in_path}
    }
    shared = {name for names in SHARED.values() for name in names}
    assert ids <= {*MAKERS, *shared, *NO_OBJECTS}, "add it to MAKERS"


@each_operation
def test_the_owner_is_answered(world: World, one: Operation) -> None:
    answer = send(world.own, world.own.key, request(one, world.own))
    if SCOPES.get(str(one)) == {OPERATORS}:
        assert answer.status_code == 403
        answer = send(world.own, OPERATOR, request(one, world.own))
    missing = {404} if str(one) == "DELETE /v1/event_types/{name}" else set()  # nobody has described it
    assert answer.status_code in {200, 201, 202, 204, 409} | missing, answer.text


@pytest.mark.parametrize("one", [one for one in OPERATIONS if one.method == "GET"], ids=str)
def test_nothing_of_another_tenant_is_told(world: World, one: Operation) -> None:
    for what in ("event_id", "endpoint_id", "key_id"):
        world.other.make(what)
        world.own.make(what)
    told = send(world.own, world.own.key, request(one, world.own)).text
    assert [id_ for id_ in world.other.ids if id_ in told] == []


@each_operation
def test_anothers_object_is_not_there_and_stays_as_it_is(world: World, one: Operation) -> None:
    for place in one.places:
        theirs = world.other.make(place.what)
        before = world.snapshot(world.other)
        nobodys = random_like(theirs)
        asked = send(world.own, world.own.key, request(one, world.own, at=place, id_=theirs))
        expected = send(world.own, world.own.key, request(one, world.own, at=place, id_=nobodys))
        assert alike(asked, theirs) == alike(expected, nobodys), place
        if place.kind == "path":
            assert asked.status_code in {404, 403}, place
        assert asked.status_code < 500
        assert world.snapshot(world.other) == before, place


@each_operation
def test_what_was_deleted_is_not_there(world: World, one: Operation) -> None:
    for place in one.places:
        if place.what not in DELETED:
            continue
        if str(one) == "GET /v1/ids/{short_id}":
            continue  # finds a deleted endpoint for who may read of it in the audit log; tests/api/test_ids.py
        gone = world.own.make(place.what)
        assert world.own.ask("DELETE", DELETED[place.what].format(gone)).is_success
        asked = send(world.own, world.own.key, request(one, world.own, at=place, id_=gone))
        nobodys = random_like(gone)
        expected = send(world.own, world.own.key, request(one, world.own, at=place, id_=nobodys))
        assert alike(asked, gone) == alike(expected, nobodys), place


@pytest.mark.parametrize("one", [one for one in OPERATIONS if EVERYBODY not in SCOPES.get(str(one), ())], ids=str)
def test_only_the_documented_scopes_are_let_in(world: World, one: Operation) -> None:
    allowed = SCOPES.get(str(one), set())
    for scope in set(Scope) - {Scope.ADMIN}:
        key = world.own.key_of(scope)
        asked = request(one, world.own)
        answer = send(world.own, key, asked)
        if scope in allowed or "every key" in allowed:
            assert answer.status_code not in {401, 403}, (scope, answer.text)
            continue
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), (scope, answer.text)
        for place in one.places:  # and is told the same whatever it names
            again = send(world.own, key, request(one, world.own, at=place, id_=world.other.make(place.what)))
            assert (again.status_code, again.json()["detail"]) == (403, answer.json()["detail"]), place


@each_operation
def test_without_a_valid_key_nobody_is_let_in(world: World, one: Operation) -> None:
    asked = request(one, world.own)
    revoked = world.own.made("POST", "/v1/keys", json={"name": "revoked"})
    send(world.own, revoked["key"], {"method": "POST", "url": "/v1/events", "json": {"type": "a.b", "payload": 1}})
    assert world.own.ask("DELETE", f"/v1/keys/{revoked['id']}").status_code == 204
    before = world.snapshot(world.own)
    for key in (None, "", "dsk_nobodys", revoked["key"], revoked["id"]):
        answer = send(world.own, key, asked)
        if EVERYBODY in SCOPES.get(str(one), set()):
            assert answer.status_code == 200, key
        else:
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED"), key
    assert world.snapshot(world.own) == before


def test_an_event_id_of_another_tenant_is_refused_as_any_id_that_cannot_be_used(world: World) -> None:
    event = {"type": "payment.completed", "payload": 1}
    theirs, own = (world.other.make("event_id"), world.own.make("event_id"))
    chosen = format_id("evt", uuid7())
    world.other.made("POST", "/v1/events", json=event | {"id": chosen})
    old = format_id("evt", uuid7(SYSTEM.now() - timedelta(days=2)))
    said = set()
    for id_ in (theirs, chosen, own, old):
        before = world.snapshot(world.other)
        single = world.own.ask("POST", "/v1/events", json=event | {"id": id_})
        batch = world.own.ask("POST", "/v1/events/batch", json={"events": [event | {"id": id_}]})
        assert (single.status_code, single.json()["code"]) == (422, "INVALID_INPUT")
        assert world.snapshot(world.other) == before
        said.add((alike(single, id_), alike(batch, id_)))
    assert len(said) == 1, "whose it is, or that it is too old, is not told"
    mine = event | {"id": format_id("evt", uuid7())}
    assert [world.own.made("POST", "/v1/events", json=mine)["duplicate"] for _ in range(2)] == [False, True]
    again = world.own.ask("POST", "/v1/events", json=mine | {"payload": 2})
    assert again.json()["code"] == "IDEMPOTENCY_CONFLICT", "of the tenant's own events all is told"
