"""Every operation of both clients makes the request that the contract says, and no route is without one."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import jsonschema
import orjson
import pytest

from dispatcher.api.app import make_app
from dispatcher.client import AsyncClient, Client
from dispatcher.client.client import Api
from dispatcher.client.resource import Resource, operation, paging
from dispatcher.config import Settings
from dispatcher.signing import Keyring
from tests.client.operations import NONE, OPERATIONS, Operation

each_operation = pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.method} {one.template}")


def answering(one: Operation, seen: list[httpx.Request]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if one.answer is None:
            return httpx.Response(204)
        if isinstance(one.answer, str):
            return httpx.Response(200, text=one.answer)
        return httpx.Response(200, json=one.answer)

    return httpx.MockTransport(answer)


def made(one: Operation) -> tuple[Any, httpx.Request]:
    seen: list[httpx.Request] = []
    with Client("https://api.example/base", api_key="k", transport=answering(one, seen)) as client:
        result = one.call(client)
    (request,) = seen
    return result, request


@each_operation
def test_an_operation_makes_the_request_that_the_contract_says(one: Operation) -> None:
    result, request = made(one)
    assert request.method == one.method
    assert request.url.raw_path.partition(b"?")[0].decode() == f"/base{one.asked}"
    assert dict(request.url.params) == one.query
    if one.body is NONE:
        assert request.content == b"" or (one.method == "POST" and orjson.loads(request.content) == {})
    else:
        assert request.headers["content-type"] == "application/json"
        assert orjson.loads(request.content) == one.body
    assert request.headers["authorization"] == "Bearer k"
    assert ("idempotency-key" in request.headers) == (one.method == "POST")
    several = isinstance(one.answer, dict) and one.body is not NONE and "data" in one.answer
    assert result == (one.answer["data"] if several else one.answer)


@each_operation
def test_the_other_client_makes_the_same_request(one: Operation) -> None:
    result, request = made(one)
    seen: list[httpx.Request] = []

    async def run() -> Any:
        async with AsyncClient("https://api.example/base", api_key="k", transport=answering(one, seen)) as client:
            return await one.call(client)

    assert asyncio.run(run()) == result
    (same,) = seen
    assert (same.method, same.url, same.content) == (request.method, request.url, request.content)
    assert {*same.headers} == {*request.headers}


def test_every_operation_of_the_client_is_tried() -> None:
    client = Client("https://api.example")
    resources = {"": Api} | {name: type(one) for name, one in vars(client).items() if isinstance(one, Resource)}
    found = {
        f"{resource}.{name}".strip(".")
        for resource, kind in resources.items()
        for name, one in vars(kind).items()
        if isinstance(one, operation)
    }
    tried = {name for one in OPERATIONS for name in [named(one)]}
    assert found == tried
    assert all(one.__doc__ for kind in resources.values() for one in vars(kind).values() if isinstance(one, paging))


def named(one: Operation) -> str:
    """`events.create`: what `call` asks of its client."""
    asked: list[str] = []

    class Spy:
        def __getattr__(self, name: str) -> Spy:
            asked.append(name)
            return self

        def __call__(self, *_: Any, **__: Any) -> None:
            return

    one.call(Spy())
    return ".".join(asked)


# Against the application's own description


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    settings = Settings(
        database_url="postgresql+psycopg://nobody@nowhere/none", secret_keys=Keyring.generate().reveal()
    )
    return make_app(settings).openapi()


def template(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_no_route_of_the_application_is_without_an_operation(described: dict[str, Any]) -> None:
    routes = {(method.upper(), template(path)) for path, methods in described["paths"].items() for method in methods}
    assert routes <= {(one.method, one.template) for one in OPERATIONS}


@each_operation
def test_a_request_is_what_the_application_describes(one: Operation, described: dict[str, Any]) -> None:
    found = {(m.upper(), template(path)): o for path, methods in described["paths"].items() for m, o in methods.items()}
    route = found[one.method, one.template]
    assert set(one.query) <= {parameter["name"] for parameter in route.get("parameters", [])}
    schema = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is not None and one.body is not NONE:
        jsonschema.validate(one.body, {**schema, "components": described["components"]})
    assert schema is not None or one.body is NONE
