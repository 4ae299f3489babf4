"""The receivers of examples/receivers do what docs/receivers.md says: each runs as it stands, in its own process."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import BodyForm, StoredEvent, get_url
from dispatcher.model.event import body as body_of
from dispatcher.signing import SCHEMES, Secret, public_keys
from tests.support.delivery_vectors import DELIVERIES, SECRET, private_key, public_key
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
SOURCES = {path.parent.name: path for path in sorted((ROOT / "examples/receivers").glob("*/[Rr]eceiver.*"))}
COMMANDS = {"node": "node", "php": "php", "java": "javac", "go": "go"}
HANGS = {
    "go": ('fmt.Println("processed", id)', "select {}"),
    "java": ('System.out.println("processed " + id);', "Thread.sleep(Long.MAX_VALUE);"),
    "node": ('console.log("processed", id);', "await new Promise(() => {});"),
    "python": ('print("processed", event_id, flush=True)', "threading.Event().wait()"),
}
"""By language: the line of `work` that says so, and one that never ends."""

HOOK = "https://shop.example.com/hook?shop=7"
V1 = "standard_webhooks_v1"
ALL_S = str(10**10)
"""A tolerance within which the vectors are recent."""

WITHOUT_ED25519 = ("python",)  # its standard library does not have it

each_language = pytest.mark.parametrize("language", SOURCES)
each_scheme = pytest.mark.parametrize(
    ("language", "scheme"),
    [
        (language, scheme)
        for language in SOURCES
        for scheme in SCHEMES
        if not (scheme == "standard_webhooks_v1a" and language in WITHOUT_ED25519)
    ],
)


def program(language: str) -> str:
    if language == "python":
        return sys.executable
    found = shutil.which(COMMANDS[language])
    if found is None:
        pytest.skip(f"no {COMMANDS[language]} on this machine")
    return found


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[str]]:
    """The command that runs a receiver of this text; what must be compiled is compiled once."""

    @cache
    def build(language: str, text: str) -> list[str]:
        command = program(language)
        folder = tmp_path_factory.mktemp(language)
        file = folder / SOURCES[language].name
        file.write_text(text)
        match language:
            case "java":
                compiled(command, "-d", folder, file)
                # A short life: no time for the second compiler, and one thread that collects garbage.
                return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(folder), "Receiver"]
            case "go":
                compiled(
                    command, "build", "-o", folder / "receiver", file, GO111MODULE="off", GOPROXY="off", GOFLAGS=""
                )
                return [str(folder / "receiver")]
            case "php":
                return [command, "-S", "127.0.0.1:0", str(file)]
        return [command, str(file)]

    return build


def compiled(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(slots=True)
class Running:
    """A receiver. `said` has the lines that its processes print."""

    scheme: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    port: int = 0
    said: queue.Queue[str] = field(default_factory=queue.Queue)
    pumps: list[threading.Thread] = field(default_factory=list)

    def run(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        with (folder / "errors.txt").open("a") as errors:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "PORT": "0", **environment},
                stdout=subprocess.PIPE,
                # PHP's own server tells its port there.
                stderr=subprocess.STDOUT if "-S" in command else errors,
                text=True,
            )
        pump = threading.Thread(target=self._pump, args=(process,), daemon=True)
        pump.start()
        self.processes.append(process)
        self.pumps.append(pump)

    def _pump(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.said.put(line.rstrip())

    def listens(self) -> None:
        """Waits until it says its port. Work that an earlier run left may be done before that."""
        before = []
        while not self.port:
            line = self.said.get(timeout=PATIENCE_S)
            before.append(line)
            if found := re.search(r"listening on port (\d+)|http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1] or found[2])
        for line in before:
            self.said.put(line)

    def processes_once(self, *ids: str, maybe: Collection[str] = ()) -> None:
        """Waits until these were processed: each once, and no other but what `maybe` has."""
        left = set(ids)
        while left:
            first, _, processed = self.said.get(timeout=PATIENCE_S).partition(" ")
            if first == "processed" and processed not in maybe:
                assert processed in left, (processed, ids)
                left.remove(processed)

    def send(self, method: str, target: str, headers: Mapping[str, str | bytes], body: bytes | None = None) -> int:
        """The status of the answer; the target goes out byte by byte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, target)
            if method == "POST":
                connection.putheader("content-type", "application/json")
                connection.putheader("content-length", str(len(body or b"")))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body if method == "POST" else None)
            return connection.getresponse().status
        finally:
            connection.close()

    def post(self, body: bytes, headers: Mapping[str, str | bytes]) -> int:
        return self.send("POST", "/hook", headers, body)

    def deliver(self, event: StoredEvent, method: str = "POST", **signed: Any) -> int:
        content = content_of(event, method)
        headers = self.signed(event, content, **signed)
        if method == "GET":
            return self.send("GET", content.decode(), headers)
        return self.post(content, headers)

    def signed(
        self, event: StoredEvent, content: bytes, *, keys: Collection[bytes] = (), seconds_ago: int = 0
    ) -> dict[str, str]:
        raw = SCHEMES[self.scheme].sign(
            message_id=name(event),
            timestamp=int(SYSTEM.now().timestamp()) - seconds_ago,
            body=content,
            keys=list(keys) or [private_key(self.scheme)],
        )
        return {name.decode(): value.decode() for name, value in raw}

    def remembers(self, event: StoredEvent, method: str = "POST") -> str:
        """The id by which it knows the delivery."""
        if "webhook-id" in SCHEMES[self.scheme].header_names:
            return name(event)
        return hashlib.sha256(content_of(event, method)).hexdigest()

    def stop(self) -> None:
        for process, pump in zip(self.processes, self.pumps, strict=True):
            process.kill()
            process.wait()
            pump.join()


def content_of(event: StoredEvent, method: str) -> bytes:
    if method == "GET":
        return get_url(HOOK, event).removeprefix("https://shop.example.com").encode()
    return body_of(event, BodyForm.ENVELOPE)


def event(kind: str = "payment.completed", *, mode: str = "live", checkout: str = "chk_1") -> StoredEvent:
    payload = json.dumps({"amount": "12.30 €", "metadata": {"checkoutId": checkout}}, ensure_ascii=False)
    return StoredEvent(uuid7(), kind, mode, payload.encode(), SYSTEM.now(), "order 1/2")


def name(one: StoredEvent) -> str:
    return format_id("evt", one.id)


Start = Callable[..., Running]


@pytest.fixture
def launch(tmp_path: Path, build: Callable[[str, str], list[str]]) -> Iterator[Start]:
    """Runs a receiver in the test's directory, again in the same; one that `hangs` never ends its work."""
    running: list[Running] = []

    def launch(language: str, scheme: str = V1, *, hangs: bool = False, **environment: str) -> Running:
        receiver = Running(scheme)
        running.append(receiver)
        text = SOURCES[language].read_text()
        if hangs and language in HANGS:
            before, after = HANGS[language]
            assert text.count(before) == 1
            text = text.replace(before, after)
        published = [public_key("standard_webhooks_v1a"), public_key("rsa_sha1")]  # each for one kind of scheme
        (tmp_path / "platform.pem").write_text("".join(public_keys.pem(key) for key in published))
        (tmp_path / "jwks.json").write_text(json.dumps(public_keys.jwks(published)))
        environment = {
            "WEBHOOK_SCHEME": scheme,
            "WEBHOOK_SECRET": SECRET,
            "WEBHOOK_PUBLIC_KEYS": "jwks.json" if language == "python" else "platform.pem",
        } | environment
        command = build(language, text)
        receiver.run(command, tmp_path, environment)
        if language == "php" and not hangs:  # it works in another process
            receiver.run([command[0], command[-1]], tmp_path, environment)
        return receiver

    yield launch
    for receiver in running:
        receiver.stop()


@pytest.fixture
def start(launch: Start) -> Start:
    """Runs a receiver, which then listens."""

    def start(*given: Any, **more: Any) -> Running:
        receiver = launch(*given, **more)
        receiver.listens()
        return receiver

    return start


def test_there_is_a_receiver_for_each_language_and_the_document_names_it() -> None:
    assert list(SOURCES) == ["go", "java", "node", "php", "python"]
    text = (ROOT / "docs/receivers.md").read_text()
    for path in SOURCES.values():
        assert f"](../{path.relative_to(ROOT)})" in text


@each_scheme
def test_a_receiver_tells_apart_what_is_genuine_and_what_is_not(language: str, scheme: str, start: Start) -> None:
    receiver = start(language, scheme, WEBHOOK_TOLERANCE_S=ALL_S)
    vectors = [vector for vector in DELIVERIES if vector.scheme == scheme]
    answers = {
        vector.name: receiver.send(vector.method, vector.target, vector.headers, vector.body.encode())
        for vector in vectors
    }
    assert answers == {vector.name: 200 if vector.genuine else 400 for vector in vectors}
    genuine = [vector for vector in vectors if vector.genuine]
    receiver.processes_once(
        *{vector.headers.get("webhook-id") or hashlib.sha256(vector.content.encode()).hexdigest() for vector in genuine}
    )
    posted, got = event(), event("refund.completed")
    for seconds_ago in (3, 0):  # as another attempt would
        assert receiver.deliver(posted, seconds_ago=seconds_ago) == 200
        assert receiver.deliver(got, "GET", seconds_ago=seconds_ago) == 200
    receiver.processes_once(receiver.remembers(posted), receiver.remembers(got, "GET"))


@each_language
def test_a_receiver_refuses_what_is_not_recent_or_not_a_delivery(language: str, start: Start) -> None:
    new, old, other = (SCHEMES[V1].generate_keys()[0] for _ in range(3))
    receiver = start(language, WEBHOOK_SECRET=f"{Secret(new).reveal_whsec()} {Secret(old).reveal_whsec()}")
    for method in ("POST", "GET"):
        for seconds_ago in (400, -400):
            assert receiver.deliver(event(), method, keys=[new], seconds_ago=seconds_ago) == 400
        assert receiver.deliver(event(), method, keys=[other]) == 400
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "soon", "webhook-signature": "v1,x v1 é".encode()}
    for body in (b"", b"{", b"[]", b"null", b'"endpoint.ping"', b"\xff", b'{"type": 1}', b"/?type=endpoint.ping"):
        assert (body, receiver.post(body, {})) == (body, 400)
        assert (body, receiver.post(body, headers)) == (body, 400)
    assert receiver.send("GET", "/hook", {}) == 400
    assert receiver.send("PUT", "/hook", {}) >= 400
    assert receiver.post(b"x" * 1_000_001, {}) == 413
    by_new, by_old, by_both = event(), event(), event()
    assert receiver.deliver(by_new, keys=[new]) == 200
    assert receiver.deliver(by_old, "GET", keys=[old]) == 200
    assert receiver.deliver(by_both, keys=[other, old]) == 200
    receiver.processes_once(*map(name, (by_new, by_old, by_both)))


@each_language
def test_a_receiver_answers_a_ping_that_nobody_could_sign(language: str, start: Start) -> None:
    receiver = start(language)
    at = StoredEvent(uuid7(), "endpoint.ping", "test", b"{}", SYSTEM.now())
    headers = {"webhook-id": name(at), "webhook-timestamp": "1767225600"}
    assert receiver.post(content_of(at, "POST"), headers) == 200
    assert receiver.send("GET", content_of(at, "GET").decode(), headers) == 200
    last = event()
    assert receiver.deliver(last) == 200
    receiver.processes_once(name(last))


@each_language
def test_a_receiver_asks_for_the_login_and_leaves_out_what_is_not_for_it(language: str, start: Start) -> None:
    receiver = start(language, CHECKOUT_ID="chk_1", WEBHOOK_LOGIN="shop:s3cr:et")

    def deliver(one: StoredEvent, login: str | None = "shop:s3cr:et") -> int:
        body = content_of(one, "POST")
        headers = receiver.signed(one, body)
        if login is not None:
            headers["authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        return receiver.post(body, headers)

    last = event()
    assert [deliver(last, login) for login in (None, "shop:other")] == [401, 401]
    if language != "java":  # its standard library reads no JSON: what the event says is left to `work`
        no_object = StoredEvent(uuid7(), "payment.completed", "live", b"[1]", SYSTEM.now())
        for other in (event("payout.sent"), event(mode="test"), event(checkout="chk_2"), no_object):
            assert deliver(other) == 200
    assert deliver(last) == 200
    receiver.processes_once(name(last))


@each_language
def test_a_receiver_does_not_start_without_a_valid_secret(language: str, launch: Start, tmp_path: Path) -> None:
    receiver = launch(language, WEBHOOK_SECRET="whsec_")
    assert receiver.processes[-1].wait(PATIENCE_S) != 0
    assert "WEBHOOK_SECRET" in (tmp_path / "errors.txt").read_text()
    if language == "php":  # its server starts without the receiver
        receiver.listens()
        assert receiver.deliver(event()) == 500


@each_language
def test_a_receiver_answers_before_it_works_and_a_crash_loses_nothing(language: str, start: Start) -> None:
    # If the answer waited for the work, it would not come.
    receiver = start(language, hangs=True)
    first, second, third, last = (event() for _ in range(4))
    assert [receiver.deliver(one) for one in (first, second)] == [200, 200]
    receiver.stop()
    again = start(language)
    assert again.deliver(first) == 200, "it was remembered"
    again.processes_once(name(first), name(second))
    assert again.deliver(third) == 200
    again.processes_once(name(third))
    again.stop()
    once_more = start(language)
    assert [once_more.deliver(one) for one in (first, last)] == [200, 200]
    # The kill may have come between the work and its note.
    once_more.processes_once(name(last), maybe=[name(third)])
