"""Whatever is sent to whatever operation: it is answered as documented, and a refusal says what is wrong where."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from dispatcher.api.gate import BULK_PATHS, MAX_BODY_BYTES, MAX_BULK_BYTES
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.shapes.problems import MAX_FAULTS, Problem
from tests.api.operations import DOCUMENT, OPERATIONS, Client, Operation, an_id, serving
from tests.support.servers import drop_database, fresh_database

PROBLEM = TypeAdapter(Problem)
WITH_BODY = [one for one in OPERATIONS if one.method in {"POST", "PATCH", "PUT"}]
READING = [one for one in WITH_BODY if one.has_body]

every = settings(
    derandomize=True, database=None, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def client(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[Client]:
    url = fresh_database(postgres, migrated_template)
    with serving(url) as client:
        yield client
    drop_database(postgres, url)


def check(operation: Operation, answer: httpx.Response, *, also: tuple[int, ...] = ()) -> None:
    """What holds of every answer."""
    said = f"{operation}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code in operation.statuses | set(also), said
    assert answer.headers["x-request-id"].startswith("req_"), said
    if answer.status_code < 400:
        return
    assert answer.status_code < 500, said
    check_problem(answer)


def check_problem(answer: httpx.Response) -> Any:
    """What holds of every refusal."""
    said = answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json", said
    problem = answer.json()
    assert set(problem) == set(Problem.__annotations__), said
    PROBLEM.validate_python(problem, strict=True)
    assert problem["status"] == answer.status_code, said
    assert problem["request_id"] == answer.headers["x-request-id"], said
    assert problem["type"] == "urn:dispatcher:problem:" + problem["code"].lower().replace("_", "-")
    assert len(answer.content) < 65536
    if answer.status_code == 422:
        assert 1 <= len(problem["errors"]) <= MAX_FAULTS, said
        for fault in problem["errors"]:
            assert fault["pointer"], said
            assert fault["detail"].startswith("found "), said
            assert "; allowed: " in fault["detail"], said
            assert fault["detail"] in problem["detail"], said
    return problem


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**400), 2**31, 2**63, 1e308, 5e-324, 0, -1])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\0", "a\0b", "\ud800", "\U0010ffff", "", " ", "*", "payment.*", "2026-01-01", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def members(operation: Operation) -> list[str]:
    """The names that the operation's body knows."""
    schema = operation.described["requestBody"]["content"]["application/json"]["schema"]
    for one in schema.get("anyOf", [schema]):
        if "$ref" in one:
            one = DOCUMENT["components"]["schemas"][one["$ref"].rpartition("/")[2]]  # noqa: PLW2901
        if "properties" in one:
            return list(one["properties"])
    return []


def bodies(operation: Operation) -> st.SearchStrategy[Any]:
    names = st.sampled_from(members(operation) or ["a"]) | st.text(max_size=5)
    return st.dictionaries(names, JSON, max_size=6) | JSON


def test_any_json_is_answered_as_documented(client: Client) -> None:
    @every
    @given(st.sampled_from(READING).flatmap(lambda one: st.tuples(st.just(one), bodies(one))))
    def holds(asked: tuple[Operation, Any]) -> None:
        operation, body = asked
        check(operation, client.request(operation.method, operation.url(), content=json.dumps(body)))

    holds()


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


BODIES = {
    "nothing": b"",
    "white space": b"  \n ",
    "cut off": b'{"name": "a',
    "two values": b"{} {}",
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b'{"name": "a\\u0000b", "url": "https://shop.example.com/\\u0000", "type": "a\\u0000"}',
    "a name with NUL": b'{"a\\u0000": 1}',
    "a lone surrogate": b'{"name": "\\ud800", "url": "\\udfff", "type": "\\ud800"}',
    "a name that is a lone surrogate": b'{"\\ud800": 1}',
    "a raw NUL": b'{"name": "\x00"}',
    "no JSON numbers": b'{"name": NaN, "max_in_flight": Infinity, "overlap_s": -Infinity}',
    "a number of 5,000 digits": b'{"limit": ' + b"9" * 5000 + b', "max_in_flight": 1' + b"0" * 4999 + b"}",
    "a number beyond a double": b'{"rate_limit": 1e999, "overlap_s": -1e999}',
    "the same name twice": b'{"name": "a", "name": {"b": 1}, "name": 2}',
    "levels that can be answered": nested(100),
    "levels that can be read": nested(300),
    "levels that cannot": nested(50_000),
    "lists that cannot": b"[" * 100_000,
    "a list of 100,000": b"[" + b"1," * 99_999 + b"1]",
    "100,000 nulls in every list": json.dumps(
        dict.fromkeys(["event_types", "scopes", "events"], [None] * 10_000)
    ).encode(),
    "10,000 names": json.dumps({f"name{n}": n for n in range(10_000)}).encode(),
    "names of pointers": b'{"a/b~c": 1, "": 2, "/": 3, "__proto__": {}}',
    "a form": b"name=a&url=b",
    "only null": b"null",
    "only a string": b'"name"',
    "only a number": b"0",
    "only a list": b"[]",
    "an empty object": b"{}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_strange_body_is_answered_as_documented(client: Client, body: bytes) -> None:
    """With a content type for every other operation, and by turns: each body and each operation is tried both ways."""
    turn = list(BODIES.values()).index(body)
    for n, operation in enumerate(WITH_BODY):
        headers = {"content-type": "application/json"} if (n + turn) % 2 else {}
        check(operation, client.request(operation.method, operation.url(), content=body, headers=headers))


@pytest.mark.parametrize("depth", [1, 60, 120, 200, 240, 300, 900])
def test_what_is_accepted_however_deep_can_be_read_again(client: Client, depth: int) -> None:
    inner: Any = 1
    for _ in range(depth):
        inner = {"a": inner}
    for operation in READING:
        for name in members(operation):
            valid = {"url": "https://shop.example.com/", "type": "a", "name": "a", "payload": 1} | {name: inner}
            known = {key: value for key, value in valid.items() if key in members(operation)}
            check(operation, client.request(operation.method, operation.url(), json=known))
    for operation in OPERATIONS:
        if operation.method == "GET":
            check(operation, client.get(operation.url()))


TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=a",
    "application/xml",
    "json",
    "",
    "/",
]


def test_what_says_that_it_is_no_json_is_415(client: Client) -> None:
    for operation in WITH_BODY:
        for kind in TYPES:
            answer = client.request(operation.method, operation.url(), content=b"{}", headers={"content-type": kind})
            assert answer.status_code == 415, (operation, kind)
            assert check_problem(answer)["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.a+json"])
def test_what_says_that_it_is_json_is_read(client: Client, kind: str) -> None:
    for operation in READING:
        answer = client.request(operation.method, operation.url(), content=b"[1]", headers={"content-type": kind})
        check(operation, answer)
        assert answer.status_code == 422, operation


async def chunks(limit: int) -> AsyncIterator[bytes]:
    """A body that does not say how long it is."""
    for _ in range(limit // 65536 + 1):
        yield b" " * 65536


def test_a_body_beyond_the_limit_is_413_however_it_comes(client: Client) -> None:
    for operation in WITH_BODY:
        limit = MAX_BULK_BYTES if operation.path in BULK_PATHS else MAX_BODY_BYTES
        answer = client.request(operation.method, operation.url(), content=b" " * (limit + 1))
        assert answer.status_code == 413, operation
        assert check_problem(answer)["code"] == "CONTENT_TOO_LARGE"
        if operation.has_body:
            answer = client.request(operation.method, operation.url(), content=chunks(limit))
            assert answer.status_code == 413, operation
            check_problem(answer)


VALUES = st.text(max_size=40) | st.sampled_from(
    [
        "\0",
        "-1",
        "0",
        "1001",
        "9" * 400,
        "1e9",
        "NaN",
        "null",
        "true",
        "x" * 8000,
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "ten_",
        "evt_zz",
        "' OR 1=1 --",
        "%00",
        "\U0010ffff",
    ]
)


def test_any_query_is_answered_as_documented(client: Client) -> None:
    with_query = [one for one in OPERATIONS if one.parameters("query")]

    @every
    @given(st.sampled_from(with_query), st.data())
    def holds(operation: Operation, data: st.DataObject) -> None:
        names = [one["name"] for one in operation.parameters("query")]
        pairs = data.draw(st.lists(st.tuples(st.sampled_from(names) | st.text(max_size=5), VALUES), max_size=6))
        query = "&".join(f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in pairs)
        check(operation, client.request(operation.method, f"{operation.url()}?{query}"))

    holds()


QUERIES = [
    "%",
    "%zz",
    "%ff=%ff",
    "%00=%00",
    "&&&=",
    "a" * 60_000,
    "limit=1&limit=2",
    "limit[]=1",
    "tenant_id",
    "=",
    ";",
    "+",
    "cursor=%00",
]


def test_an_odd_query_is_answered_as_documented(client: Client) -> None:
    for operation in OPERATIONS:
        for query in QUERIES:
            check(operation, client.request(operation.method, f"{operation.url()}?{query}"))


V1 = [one for one in OPERATIONS if one.path.startswith("/v1/")]


def faults(client: Client, operation: Operation, query: str, *, method: str | None = None) -> list[tuple[str, str]]:
    """Pointer and detail of what is wrong with a request that has this query."""
    answer = client.request(method or operation.method, f"{operation.url()}?{query}", json=[{}])
    assert answer.status_code == 422, (operation, query, answer.text)
    return [] if method == "HEAD" else [(one["pointer"], one["detail"]) for one in check_problem(answer)["errors"]]


def test_a_parameter_that_the_operation_lacks_is_refused_and_the_nearest_is_named(client: Client) -> None:
    for operation in V1:
        names = [one["name"] for one in operation.parameters("query")]
        for wrong in [
            *(f"{name}x" for name in names),
            *(name.title() for name in names),
            "stauts",
            "%00",
            "\U0001f600",
        ]:
            ((pointer, detail),) = faults(client, operation, f"{quote(wrong, safe='%')}=1")
            assert pointer in {wrong, "\0"}, operation
            begins, _, allowed = detail.partition("; allowed: ")
            assert begins == "found a parameter that does not exist", operation
            if not names:
                assert allowed == "none: this request takes no parameters"
                continue
            first, *others = allowed.split(", ")
            assert sorted([first.removesuffix(" (nearest)"), *others]) == sorted(names), operation
            if wrong.lower().removesuffix("x") in names:
                assert first == f"{wrong.lower().removesuffix('x')} (nearest)", operation


def test_a_misspelt_parameter_is_named_with_what_was_meant(client: Client) -> None:
    operations = {str(one): one for one in V1}
    for name, query, nearest in (
        ("GET /v1/deliveries", "stauts=failed", "status"),
        ("DELETE /v1/pauses", "endpoint=ep_1", "endpoint_id"),
        ("POST /v1/events", "tenant=ten_1", "tenant_id"),
    ):
        ((pointer, detail),) = faults(client, operations[name], query)
        assert pointer == query.partition("=")[0]
        assert detail.startswith(f"found a parameter that does not exist; allowed: {nearest} (nearest)")


def test_a_name_in_a_path_is_no_parameter(client: Client) -> None:
    for operation in V1:
        for parameter in operation.parameters("path"):
            if parameter["name"] in {one["name"] for one in operation.parameters("query")}:
                continue
            assert faults(client, operation, f"{parameter['name']}=1")[0][0] == parameter["name"]


def test_a_parameter_that_is_given_twice_is_refused(client: Client) -> None:
    for operation in V1:
        for parameter in operation.parameters("query"):
            name = parameter["name"]
            assert parameter["schema"].get("type") != "array", "a parameter that may be repeated needs another check"
            found = faults(client, operation, f"{name}=a&{name}=a&{name}=b")
            assert found == [(name, "found a parameter that is given 3 times; allowed: once")], operation


def test_head_refuses_what_get_refuses(client: Client) -> None:
    for operation in V1:
        if operation.method == "GET":
            assert faults(client, operation, "stauts=1", method="HEAD") == []


def test_thousands_of_parameters_are_refused_unread(client: Client) -> None:
    for operation in V1:
        ((pointer, detail),) = faults(client, operation, "&".join(f"a{n}=1" for n in range(5_000)))
        assert (pointer, detail) == ("query", "found more than 100 parameters; allowed: at most 100"), operation
        assert len(faults(client, operation, "&".join(f"a{n}=1" for n in range(100)))) == 10, operation


def test_who_may_not_do_it_is_told_so_before_what_is_wrong_with_a_parameter(client: Client) -> None:
    made = client.request("POST", "/v1/keys", json={"name": "misspelling", "scopes": ["events:write"]})
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    for operation in V1:
        url = f"{operation.url()}?stauts=1"
        if operation.described["security"]:
            assert client.request(operation.method, url, headers={"authorization": "nobody"}).status_code == 401
        allowed = client.request(operation.method, operation.url(), headers=headers).status_code != 403
        answer = client.request(operation.method, url, headers=headers)
        assert answer.status_code == (422 if allowed else 403), (operation, answer.text)


IDS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=60)


def test_any_id_in_a_path_is_answered_as_documented(client: Client) -> None:
    with_ids = [one for one in OPERATIONS if "{" in one.path]

    @every
    @given(
        st.sampled_from(with_ids),
        IDS | st.sampled_from(["\0", "..", ".", "%2F", "ep_", "ep_" + "0" * 32, "null", "é", "x" * 4000]),
    )
    def holds(operation: Operation, found: str) -> None:
        name = operation.parameters("path")[0]["name"]
        url = operation.url(**{name: quote(found, safe="")})
        answer = client.request(operation.method, url)
        if answer.url.path.count("/") == operation.path.count("/"):  # else dots have led to another path
            check(operation, answer, also=(405,))

    holds()


def test_an_id_has_one_spelling(client: Client) -> None:
    for operation in OPERATIONS:
        for parameter in operation.parameters("path"):
            if not parameter["name"].endswith("_id"):
                continue
            right = an_id(parameter["name"])
            prefix, _, uuid = right.partition("_")
            for wrong in (
                right.upper(),
                f"{prefix}_{{{uuid}}}",
                right.replace("-", ""),
                f"{right} ",
                f"x{right}",
                uuid,
            ):
                answer = client.request(operation.method, operation.url(**{parameter["name"]: quote(wrong)}), json={})
                assert answer.status_code == 422, (operation, wrong, answer.text)
                pointer = check_problem(answer)["errors"][0]["pointer"]
                assert operation.has_body or pointer == parameter["name"], (operation, pointer)


def test_any_key_of_idempotency_is_answered_as_documented(client: Client) -> None:
    posts = [one for one in OPERATIONS if one.method == "POST"]

    @every
    @given(
        st.sampled_from(posts),
        st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="replace")),
    )
    def holds(operation: Operation, key: bytes) -> None:
        answer = client.request(operation.method, operation.url(), content=b"{}", headers=[(b"idempotency-key", key)])
        check(operation, answer)

    holds()


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


def test_a_method_that_a_path_does_not_have_is_405_and_says_those_that_it_has(client: Client) -> None:
    paths = {one.url(): {other.method for other in OPERATIONS if other.is_at(one.url())} for one in OPERATIONS}
    paths |= {path: {"GET"} for path in ("/docs", "/docs/docs.js", "/openapi.json")}  # which the document does not have
    for path, allowed in paths.items():
        own = allowed | {"HEAD"} if "GET" in allowed else allowed
        for method in METHODS:
            if method in own:
                continue
            answer = client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == own, (method, path)
            if method != "HEAD":
                assert check_problem(answer)["code"] == "METHOD_NOT_ALLOWED"


def test_what_can_be_got_can_be_asked_for_without_its_content(client: Client) -> None:
    for operation in OPERATIONS:
        if operation.method == "GET":
            got, headed = client.get(operation.url()), client.request("HEAD", operation.url())
            assert headed.status_code == got.status_code, operation
            assert headed.headers["content-type"] == got.headers["content-type"]
            assert headed.content == b""


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/none", "/v1/endpoints/", "/v1//endpoints", "/none", "/v1/%00", "/%ff"]
)
def test_a_path_that_is_not_there_is_a_problem(client: Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = client.request(method, path)
        assert answer.status_code in {404, 405, 422}, answer.text
        check_problem(answer)
