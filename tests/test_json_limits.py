"""How deep JSON may nest, and what its numbers may be: the same at every entrance and on every interpreter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from dispatcher import Event, emit, emit_many
from dispatcher.client import body
from dispatcher.config import PREFIX, Settings
from dispatcher.errors import InvalidInput
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model import json_text
from dispatcher.model.json_text import MAX_DEPTH, MAX_PARSED_DEPTH, MAX_REQUEST_DEPTH, is_deeper
from tests.support import walk
from tests.support.api_server import KEY, ApiServer, note_running
from tests.support.command import Command
from tests.support.servers import drop_database, fresh_database

SAID = f"JSON nested more than {MAX_DEPTH} levels deep; allowed: at most {MAX_DEPTH} levels"
REQUEST_SAID = f"JSON nested more than {MAX_REQUEST_DEPTH} levels deep; allowed: at most {MAX_REQUEST_DEPTH} levels"

ALLOWED = [1, 127, MAX_DEPTH]
TOO_DEEP = [MAX_DEPTH + 1, MAX_REQUEST_DEPTH, MAX_REQUEST_DEPTH + 1, 200, MAX_PARSED_DEPTH - 3]
FAR_TOO_DEEP = [MAX_PARSED_DEPTH + 1, 300, 900, 1000, 1100, 30_000]


@dataclass(frozen=True)
class System:
    client: httpx.Client
    engine: Engine
    run: Command


@pytest.fixture(scope="module")
def served(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[httpx.Client, Engine]]:
    url = fresh_database(postgres, migrated_template)
    engine = create_engine(url)
    settings = Settings(database_url=url, secret_keys=walk.KEYS.reveal())
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        ApiServer() as server,
        server.on(lambda: settings) as at,
        httpx.Client(base_url=at, headers=headers, trust_env=False) as client,
    ):
        yield client, engine
    engine.dispose()
    drop_database(postgres, url)


@pytest.fixture
def system(
    served: tuple[httpx.Client, Engine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> System:
    client, engine = served
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(tmp_path))
    note_running(tmp_path, str(client.base_url), database_url=engine.url.render_as_string(hide_password=False))
    return System(client, engine, Command(monkeypatch, capsys))


def nested(depth: int, kind: str) -> bytes:
    if kind == "arrays":
        return b"[" * depth + b"]" * depth
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def value(depth: int, kind: str) -> Any:
    found: Any = [] if kind == "arrays" else {}
    for _ in range(depth - 1):
        found = [found] if kind == "arrays" else {"a": found}
    return found


# Each hands in a payload, and returns what was said against it, nothing if it was accepted.


def single(system: System, payload: bytes) -> str:
    answer = system.client.request("POST", "/v1/events", content=b'{"type": "a", "payload": %b}' % payload)
    assert answer.status_code in (202, 422), answer.text
    return "" if answer.status_code == 202 else str(answer.json()["detail"])


def batch(system: System, payload: bytes) -> str:
    content = b'{"events": [{"type": "a", "payload": 1}, {"type": "a", "payload": %b}]}' % payload
    answer = system.client.request("POST", "/v1/events/batch", content=content)
    assert answer.status_code in (202, 422), answer.text
    if answer.status_code == 422:
        return str(answer.json()["detail"])
    first, second = answer.json()["data"]
    assert first["status"] == "accepted", "what is wrong with one does not stop the other"
    return "" if second["status"] == "accepted" else str(second["error"]["detail"])


def emitted(system: System, payload: Any) -> str:
    try:
        with Session(system.engine) as session:
            emit(session, Event(type="a", payload=payload))
    except InvalidInput as error:
        return str(error)
    return ""


def emitted_with_others(system: System, payload: bytes) -> str:
    try:
        with Session(system.engine) as session:
            emit_many(session, [Event(type="a", payload=1), Event(type="a", payload=payload)])
    except InvalidInput as error:
        return str(error)
    return ""


def command(*words: str) -> Callable[[System, bytes], str]:
    def run(system: System, payload: bytes) -> str:
        line = b'{"type": "a", "payload": %b}' % payload
        ran = system.run(*words, stdin=payload if len(words) > 2 else line)
        assert "Traceback" not in ran.err
        return ran.err if ran.code else ""

    return run


def client(_: System, payload: bytes) -> str:
    try:
        body.write_event({"type": "a", "payload": payload})
    except InvalidInput as error:
        return str(error)
    return ""


ENTRANCES: dict[str, Callable[[System, bytes], str]] = {
    "POST /v1/events": single,
    "POST /v1/events/batch": batch,
    "emit": emitted,
    "emit_many": emitted_with_others,
    "events send": command("events", "send"),
    "events send --event-type": command("events", "send", "--event-type", "a"),
    "trigger": command("trigger", "a", "--payload", "-", "--no-wait"),
    "the client": client,
}
entrances = pytest.mark.parametrize("entrance", ENTRANCES)
kinds = pytest.mark.parametrize("kind", ["arrays", "objects"])


@entrances
@kinds
def test_a_payload_may_nest_as_deep_as_the_limit_at_every_entrance(entrance: str, kind: str, system: System) -> None:
    for depth in ALLOWED:
        assert ENTRANCES[entrance](system, nested(depth, kind)) == "", depth


@entrances
@kinds
def test_a_payload_that_nests_deeper_is_refused_at_every_entrance(entrance: str, kind: str, system: System) -> None:
    for depth in TOO_DEEP:
        assert SAID in ENTRANCES[entrance](system, nested(depth, kind)), depth
    for depth in FAR_TOO_DEEP:
        said = ENTRANCES[entrance](system, nested(depth, kind))
        assert SAID in said or REQUEST_SAID in said, (depth, said)


@kinds
def test_a_value_that_is_emitted_nests_no_deeper_than_text(kind: str, system: System) -> None:
    for depth in ALLOWED:
        assert emitted(system, value(depth, kind)) == ""
    for depth in [*TOO_DEEP, *FAR_TOO_DEEP[:-1]]:
        assert SAID in emitted(system, value(depth, kind)), depth
    endless: list[Any] = []
    endless.append(endless)
    assert SAID in emitted(system, endless)


@kinds
def test_metadata_nests_no_deeper_than_a_payload(kind: str, system: System) -> None:
    def create(depth: int) -> str:
        content = b'{"url": "https://shop.example.com/", "metadata": {"a": %b}}' % nested(depth - 1, kind)
        answer = system.client.request("POST", "/v1/endpoints", content=content)
        assert answer.status_code in (201, 422), answer.text
        return "" if answer.status_code == 201 else str(answer.json()["detail"])

    assert create(MAX_DEPTH) == ""
    assert create(MAX_DEPTH + 1) == f"/metadata: found {SAID}"
    for depth in [MAX_REQUEST_DEPTH + 1, *FAR_TOO_DEEP[:-1]]:
        assert create(depth) == f"/: found {REQUEST_SAID}"


def test_a_command_that_reads_json_refuses_what_nests_too_deeply(system: System, tmp_path: Path) -> None:
    for depth in (MAX_REQUEST_DEPTH + 1, 1000, 30_000):
        deep = tmp_path / "deep.json"
        deep.write_bytes(nested(depth, "arrays"))
        for words in (
            ("verify", "--scheme", "rsa_sha256", "--jwks", str(deep), "--header", "a: b"),
            ("verify", "--secret", "whsec_" + "A" * 32, "--headers-file", str(deep)),
            ("endpoints", "create", "https://shop.example.com/", "--metadata", '{"a": %s}' % ("[" * 200 + "]" * 200)),
        ):
            ran = system.run(*words)
            assert ran.code == 2, ran.err
            assert "Traceback" not in ran.err
        # A body that is verified may be anything: it is signed, not read.
        headers = (
            "--header",
            "webhook-id: a",
            "--header",
            "webhook-timestamp: 1",
            "--header",
            "webhook-signature: v1,a",
        )
        ran = system.run("verify", str(deep), "--secret", "whsec_" + "A" * 32, *headers)
        assert ran.code == 1, ran.err


NUMBERS = [b"-0", b"1.10", b"1e2", b"9" * 30, b"-%b" % (b"9" * 300), b"0.%b1" % (b"0" * 400), b'{"a": 1, "a": 2}']


@entrances
def test_the_digits_of_numbers_are_kept_however_many_they_are(entrance: str, system: System) -> None:
    for number in NUMBERS:
        assert ENTRANCES[entrance](system, number) == ""


@entrances
@pytest.mark.parametrize("text", [b"1e999", b"9" * 400, b"9" * 5000, b"NaN", b"Infinity", b'"\\ud800"', b'"\xff"'])
def test_what_no_double_or_text_can_hold_is_refused_at_every_entrance(
    entrance: str, text: bytes, system: System
) -> None:
    assert "allowed: " in ENTRANCES[entrance](system, text)


def test_a_number_of_thousands_of_digits_is_refused_in_any_body(system: System) -> None:
    for digits in (400, 700, 5000):
        content = b'{"url": "https://shop.example.com/", "metadata": {"a": %b}}' % (b"9" * digits)
        answer = system.client.request("POST", "/v1/endpoints", content=content)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/"


def depth_of(found: Any) -> int:
    match found:
        case dict():
            return 1 + max(map(depth_of, found.values()), default=0)
        case list():
            return 1 + max(map(depth_of, found), default=0)
    return 0


TEXT = st.text(st.sampled_from('[]{}"\\é,:'), max_size=6)
JSON = st.recursive(
    st.none() | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


@given(JSON, st.sampled_from([None, 1]), st.booleans(), st.integers(0, 12), st.sampled_from([0, 5000]))
def test_depth_is_that_of_the_value_whatever_stands_in_strings(
    found: Any, indent: int | None, ascii_only: bool, around: int, padding: int
) -> None:
    found = ["x" * padding, found]  # where escapes are few and far between, they are looked for in another way
    for _ in range(around):
        found = [found]
    text = json.dumps(found, indent=indent, ensure_ascii=ascii_only).encode()
    depth = depth_of(found)
    assert not is_deeper(text, depth)
    assert depth == 0 or is_deeper(text, depth - 1)


@given(st.text(st.sampled_from('[]{}"\\1, '), max_size=40))
def test_what_is_not_json_is_looked_at_without_an_error(text: str) -> None:
    assert is_deeper(text.encode(), 3) in (True, False)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["[", [', b'{"\\"": '])
def test_what_never_closes_is_too_deep(opening: bytes) -> None:
    with pytest.raises(InvalidInput, match="nested more than 128 levels"):
        json_text.read(opening * 300, "/payload")
