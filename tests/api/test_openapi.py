"""The OpenAPI document: what the application answers is what it says, and it says everything."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.python import asgi

from dispatcher.api.app import RESOURCES, TAGS, make_app
from dispatcher.config import Settings
from dispatcher.model.endpoint import REGISTRATION_FIELDS
from dispatcher.model.parse import MAX_BATCH
from tests.api.conftest import OPERATOR
from tests.api.operations import DOCUMENT, OPERATIONS, Operation, closed
from tests.support import walk

PROMISED: Final = """
POST   /v1/tenants                          201
GET    /v1/tenants                          200
POST   /v1/keys                             201
GET    /v1/keys                             200
DELETE /v1/keys/{}                          204
POST   /v1/events                           202
GET    /v1/events                           200
GET    /v1/events/{}                        200
POST   /v1/events/batch                     202
GET    /v1/events/{}/explain                200
POST   /v1/endpoints                        201
GET    /v1/endpoints                        200
GET    /v1/endpoints/{}                     200
PATCH  /v1/endpoints/{}                     200
DELETE /v1/endpoints/{}                     2xx
POST   /v1/endpoints/import                 2xx
POST   /v1/endpoints/{}/enable              200
POST   /v1/endpoints/{}/disable             200
POST   /v1/endpoints/{}/ping                200
POST   /v1/endpoints/{}/rotate_secret       200
POST   /v1/endpoints/{}/recover             202
GET    /v1/endpoints/{}/stats               200
POST   /v1/pauses                           201
POST   /v1/erasures                         202
GET    /v1/erasures                         200
GET    /v1/erasures/{}                      200
DELETE /v1/pauses/{}                        204
GET    /v1/deliveries                       200
GET    /v1/deliveries/{}                    200
GET    /v1/deliveries/{}/attempts           200
GET    /v1/deliveries/{}/story              200
POST   /v1/deliveries/{}/retry              202
POST   /v1/deliveries/{}/cancel             202
POST   /v1/cancellations/preview            200
POST   /v1/cancellations                    202
GET    /v1/find                             200
GET    /v1/ids/{}                           200
GET    /v1/statistics                       200
POST   /v1/replays/preview                  200
POST   /v1/replays                          202
GET    /v1/replays/{}                       200
GET    /v1/replays/{}/endpoints             200
POST   /v1/replays/{}/pause                 2xx
POST   /v1/replays/{}/resume                2xx
POST   /v1/replays/{}/cancel                2xx
GET    /v1/schedules                        200
GET    /v1/schedules/{}                     200
GET    /v1/schedules/{}/preview             200
POST   /v1/schedules/simulate               200
GET    /v1/profiles                         200
GET    /v1/event_types                      200
GET    /v1/event_types/{}                   200
GET    /v1/public_keys                      200
GET    /.well-known/jwks.json               200
GET    /v1/sender_addresses                 200
GET    /healthz                             200
GET    /readyz                              200
GET    /metrics                             200
"""
"""The public contract: these routes stay."""

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


# What it says


def test_every_route_that_was_promised_is_there_with_its_status() -> None:
    there = {(one.method, re.sub(r"{\w+}", "{}", one.path)): one for one in OPERATIONS}
    for line in PROMISED.strip().splitlines():
        method, path, status = line.split()
        operation = there.get((method, path))
        assert operation is not None, line
        successes = {str(one) for one in operation.statuses if one < 300}
        assert len(successes) == 1, line
        assert status in successes | {"2xx"}, line


def test_the_document_introduces_itself() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"].keys() >= {"title", "version", "summary", "description", "license"}
    assert DOCUMENT["servers"]
    assert {tag["name"] for tag in DOCUMENT["tags"]} <= set(TAGS)


@every_operation
def test_an_operation_is_described(operation: Operation) -> None:
    described = operation.described
    assert described["summary"]
    assert described["description"]
    assert len(described["tags"]) == 1
    assert described["tags"][0] in TAGS
    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", described["operationId"])
    for parameter in described.get("parameters", []):
        assert parameter.get("description") or parameter["in"] == "path", parameter["name"]


def test_operation_ids_are_unique() -> None:
    counted = Counter(one.described["operationId"] for one in OPERATIONS)
    assert set(counted.values()) == {1}, counted.most_common(3)


@every_operation
def test_an_operation_has_its_problems(operation: Operation) -> None:
    assert operation.statuses >= {408, 431}
    if not operation.described["security"]:
        assert not operation.path.startswith("/v1/") or operation.path == "/v1/public_keys"
        return
    assert operation.statuses >= {401, 403, 404, 422, 429, 503}
    if operation.method in {"POST", "PATCH"}:
        assert operation.statuses >= {409, 413, 415}
    for status, response in operation.described["responses"].items():
        assert response["description"]
        assert response["headers"]["x-request-id"]["required"]
        if status >= "400":
            assert response["content"].keys() == {"application/problem+json"}
        if status in {"429", "503"}:
            assert "retry-after" in response["headers"]


@every_operation
def test_a_post_may_be_repeated_under_a_key(operation: Operation) -> None:
    if operation.method == "POST":
        assert "idempotency-key" in {one["name"] for one in operation.parameters("header")}


def schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of the document that has members, and where it stands."""
    ahead: list[tuple[str, Any]] = [("#", document)]
    while ahead:
        where, value = ahead.pop()
        if isinstance(value, list):
            ahead += [(f"{where}/{n}", one) for n, one in enumerate(value)]
        elif isinstance(value, dict):
            if isinstance(value.get("properties"), dict):
                yield where, value
            ahead += [(f"{where}/{name}", one) for name, one in value.items() if name not in {"examples", "default"}]


def test_every_member_has_an_example() -> None:
    missing = []
    for where, schema in schemas(DOCUMENT):
        for name, member in schema["properties"].items():
            if not has_example(member):
                missing.append(f"{where}/{name}")
    assert not missing, "\n".join(missing)


def has_example(schema: dict[str, Any]) -> bool:
    """Whether it shows a value, or is made of what does."""
    if schema.keys() & {"examples", "example", "default", "enum", "const", "$ref", "properties"}:
        return True
    if "items" in schema:
        return has_example(schema["items"])
    variants = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or []
    return any(has_example(one) for one in variants)


@every_operation
def test_every_body_and_parameter_has_a_schema(operation: Operation) -> None:
    for parameter in operation.described.get("parameters", []):
        assert parameter["schema"].keys() & {"type", "anyOf", "enum", "$ref"}, parameter["name"]
    for status, response in operation.described["responses"].items():
        if status.startswith("2") and status != "204":
            for media_type, content in response["content"].items():
                assert content["schema"] or media_type.startswith("text/"), status


def test_every_resource_serves_something() -> None:
    paths = {operation.path for operation in OPERATIONS}
    for resource in RESOURCES:
        alone = FastAPI()
        alone.include_router(resource.router)
        served = set(alone.openapi()["paths"])
        assert served, resource.__name__
        assert served <= paths


# What it does

CONFIG: Final = {
    "seed": 3,
    "continue-on-failure": True,
    "headers": {"Authorization": f"Bearer {OPERATOR}"},
    "cache": {"enabled": False},
    "request-timeout": 600,  # s: the machine may be busy
    "generation": {
        "deterministic": True,
        "database": "none",
        "max-examples": 3,
        "no-shrink": True,
        "allow-x00": False,
    },
    "phases": {
        "coverage": {"unexpected-methods": ["put", "options"]},  # all of them: test_bad_input
        "stateful": {
            "generation": {"max-examples": 4},
            "checks": {"positive_data_acceptance": {"enabled": False}},  # what it takes from answers may be null there
        },
    },
}
"""Every check and phase of schemathesis; in each run the same requests, but for the ids that it takes from answers."""

CHECKS: Final = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
}

REPEATED: Final = b"order-8127-paid"
"""The example of an idempotency key."""

REFUSED: Final[dict[str, dict[str, str]]] = {
    "POST .*": {
        "idempotency-key": "one that was not used with another request, and that is printable",
    },
    "POST /v1/(keys|endpoints)": {
        "/?tenant_id": "it must be there",
    },
    "POST /v1/tenants": {
        "/parent_id": "it must be there",
        "/profile": "one of the installation's files",
    },
    "(POST|DELETE) /v1/pauses": {
        "/?all": "true alone, or something narrower",
    },
    "POST /v1/erasures": {
        "/all_tenants": "not beside a tenant",
    },
    "POST /v1/pauses": {
        "/endpoint_id": "it must be there, and of the tenant that is named",
    },
    "POST /v1/endpoints/{endpoint_id}/recover": {
        "/until": "after since",
    },
    "(POST|PATCH) /v1/endpoints.*": {
        "/url": "the profile says which",
        "/(profile|schedule)": "one of the installation's files",
        "/signature/[0-9]+": "the profile says which",
        f"/({'|'.join(REGISTRATION_FIELDS)})(/[0-9]+)?": "the profile says which fields there are, and which types",
    },
    "PUT /v1/notification_url": {
        "/url": "the profile says which",
        "/?tenant_id": "it must be there",
    },
    "POST /v1/schedules/simulate": {
        "/name": "it or waits, and one of the installation's",
        "/profile": "one of the installation's files",
        "/waits/[0-9]+": "a duration, such as 1h30m",
    },
    "POST /v1/replays(/preview)?": {
        "/(status|undelivered|outcome|delivery_ids)": "none where to is matching: it speaks of events",
    },
    "POST /v1/(replays|cancellations)": {
        "/": "not everything at once",
        "/preview_token": "one that a preview gave",
    },
    "PUT /v1/event_types/{name}": {
        "/schema.*": "a JSON Schema",
    },
    "POST /v1/events": {
        "/id": "of a day ago at most",
        "/|/idempotency_key": "one that was not used with another event, printable, and not beside an id",
        "/object_id": "printable",
        "/?tenant_id": "it must be there",
        "/target": "the profile says whether",
        "/target/url": "the profile says which",
    },
}
"""Operation and pointers (regular expressions): what no schema can say, so what it allows there may be refused."""

NOT_INTEGER: Final = "; allowed: a valid integer"
"""Of 1.0, which JSON Schema takes for an integer and Python does not."""

MANY: Final = {"POST /v1/events/batch", "POST /v1/endpoints/import"}
"""Which answer for each item of theirs: the request is accepted, and a bad item is named as failed."""


def test_the_application_does_what_the_document_says(migrated_database_url: str) -> None:
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    try:
        schema = schemathesis.openapi.from_dict(document(), config=SchemathesisConfig.from_dict(CONFIG))
        schema.app = unrepeated(app)
        found: list[str] = []
        tried: Counter[str] = Counter()
        ran: set[str] = set()
        with closed():
            for event in from_schema(schema).execute():
                match event:
                    case events.ScenarioFinished():
                        tried.update(case.value.operation.label for case in event.recorder.cases.values())
                        ran |= {check.name for checks in event.recorder.checks.values() for check in checks}
                        found += failures(event.recorder)
                    case events.NonFatalError():
                        found.append(f"{event.label}: {event.value!r}")
                    case events.EngineFinished():
                        found += [str(failure) for failure in event.failures]
    finally:
        asgi.shutdown_lifespans()
    assert not found, f"{len(found)} findings\n\n" + "\n\n".join(found[:40])
    assert set(tried) >= {str(one) for one in OPERATIONS}
    assert min(tried.values()) >= 3
    assert ran >= CHECKS


def document() -> dict[str, Any]:
    """The document without the bounds of long lists: a thousand events would go to each of hundreds of endpoints."""
    found = copy.deepcopy(DOCUMENT)
    for _, schema in schemas(found):
        for member in schema["properties"].values():
            if member.get("maxItems", 0) >= MAX_BATCH:
                del member["maxItems"]
    return found


def failures(recorder: ScenarioRecorder) -> Iterator[str]:
    """What the checks have found, less what is excused."""
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            interaction = recorder.interactions.get(case_id)
            body = b"" if interaction is None or interaction.response is None else interaction.response.content
            if not is_excused(failure.operation or recorder.label, check.name, body):
                yield (
                    f"{failure.operation} {check.name}: {failure.title}\n{failure.message}\n"
                    f"{check.failure_info.code_sample}\n{body[:700]!r}"
                )


def is_excused(operation: str, check: str, body: bytes) -> bool:
    match check:
        case "positive_data_acceptance":
            allowed = {at for name, places in REFUSED.items() if re.fullmatch(name, operation) for at in places}
            problem = orjson.loads(body)
            return problem["status"] == 422 and all(
                fault["detail"].endswith(NOT_INTEGER) or any(re.fullmatch(one, fault["pointer"]) for one in allowed)
                for fault in problem["errors"] or [{"pointer": "", "detail": ""}]
            )
        case "negative_data_rejection" if operation in MANY:
            return orjson.loads(body)["failed"] > 0
        case "unsupported_method" | "allow_header_conformance":
            path = operation.partition(" ")[2]
            return any(one.path != path and one.is_at(path) for one in OPERATIONS)  # whose methods are answered
    return False


def unrepeated(app: Callable[..., Any]) -> Callable[..., Any]:
    """The application behind something that gives each request that has an idempotency key one of its own.

    Otherwise all but the first with a key would be refused for it, whatever else is wrong or right with them.
    """
    numbers = itertools.count()

    def is_key(name: bytes, value: bytes) -> bool:
        return value == REPEATED or (name == b"idempotency-key" and len(value) <= 255 and value.isalnum())

    async def call(scope: Any, receive: Any, send: Any) -> None:
        own = f"order-{next(numbers):09}".encode()

        async def received() -> Any:
            message = await receive()
            return message | {"body": message.get("body", b"").replace(REPEATED, own)}

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = [(name, own if is_key(name, value) else value) for name, value in scope["headers"]]
        await app(scope | {"headers": headers}, received, send)

    assert len(REPEATED) == len(f"order-{0:09}")  # the body's length stands in a header
    return call
