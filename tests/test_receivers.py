"""The receivers of docs/receivers.md do what it says: run as they stand, against requests that our schemes sign."""

from __future__ import annotations

import base64
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import BodyForm, StoredEvent
from dispatcher.model.event import body as body_of
from dispatcher.signing import SCHEMES, Secret, public_keys
from tests.support.patience import PATIENCE_S

DOCUMENT = Path(__file__).parents[1] / "docs/receivers.md"
FILES = re.findall(
    r"^### (.+)\n(?:(?!^###? ).*\n)*?```(?:python|javascript)\n((?:.*\n)*?)```", DOCUMENT.read_text(), re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One `verify` beside the receiver of its language."""

    title: str
    text: str
    scheme: str

    @property
    def language(self) -> str:
        return "node" if self.title.startswith("`verify.mjs`") else "python"

    @property
    def is_dated(self) -> bool:
        return self.scheme != "rsa_sha1"


def scheme_of(title: str) -> str:
    if "Ed25519" in title:
        return "standard_webhooks_v1a"
    return "rsa_sha1" if "RSA-SHA1" in title else "standard_webhooks_v1"


VARIANTS = [Variant(title, text, scheme_of(title)) for title, text in FILES if title.startswith("`verify.")]
RECEIVERS = {title.strip("`"): text for title, text in FILES if title.startswith("`receiver.")}

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.title.replace("`", ""))
each_language = pytest.mark.parametrize(
    "variant",
    [next(one for one in VARIANTS if one.language == language) for language in ("python", "node")],
    ids=["python", "node"],
)


@cache
def keys(scheme: str, number: int = 0) -> tuple[bytes, bytes]:
    """A pair made once: an RSA key takes its time."""
    return SCHEMES[scheme].generate_keys()


@dataclass(slots=True)
class Running:
    """A receiver as a process of its own. `said` has the lines that it prints."""

    variant: Variant
    process: subprocess.Popen[str]
    url: str = ""
    said: queue.Queue[str] = field(default_factory=queue.Queue)
    pump: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.pump = threading.Thread(target=self._pump, daemon=True)

    def _pump(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.said.put(line.rstrip())

    def next_line(self) -> str:
        return self.said.get(timeout=PATIENCE_S)

    def processed(self, until: str) -> list[str]:
        """The ids of what was processed, in order, up to `until`: work is done one after the other."""
        found: list[str] = []
        while not found or found[-1] != until:
            words = self.next_line().split()
            if words[0] == "processed":
                found.append(words[2])
        return found

    def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        return httpx.post(
            self.url, content=body, headers={"content-type": "application/json", **headers}, timeout=PATIENCE_S
        ).status_code

    def deliver(self, event: StoredEvent, *, key: bytes | None = None, seconds_ago: int = 0, cut: bytes = b"") -> int:
        """Signs and posts; `cut` is taken off the body after signing."""
        body = body_of(event, BodyForm.ENVELOPE)
        return self.post(body.removesuffix(cut), self.signed(event, body, key=key, seconds_ago=seconds_ago))

    def signed(
        self, event: StoredEvent, body: bytes, *, key: bytes | None = None, seconds_ago: int = 0
    ) -> dict[str, str]:
        raw = SCHEMES[self.variant.scheme].sign(
            message_id=format_id("evt", event.id),
            timestamp=int(SYSTEM.now().timestamp()) - seconds_ago,
            body=body,
            keys=[key or keys(self.variant.scheme)[0]],
        )
        return {name.decode(): value.decode() for name, value in raw}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pump.join()


Start = Callable[..., Running]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Runs a receiver in the test's directory, again in the same; `work` replaces the body of its `work`."""
    running: list[Running] = []

    def launch(variant: Variant, *, work: str | None = None, **environment: str) -> Running:
        running.append(run(variant, tmp_path, work, environment))
        return running[-1]

    yield launch
    for one in running:
        one.stop()


@pytest.fixture
def start(launch: Start) -> Start:
    """Runs a receiver, which then listens."""

    def start(*given: Any, **more: Any) -> Running:
        found = launch(*given, **more)
        found.url = f"http://127.0.0.1:{found.next_line().removeprefix('listening on port ')}/hook"
        return found

    return start


def run(variant: Variant, folder: Path, work: str | None, environment: Mapping[str, str]) -> Running:
    program = sys.executable if variant.language == "python" else shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    name, verify = ("receiver.py", "verify.py") if variant.language == "python" else ("receiver.mjs", "verify.mjs")
    text = RECEIVERS[name]
    if work is not None:
        text = re.sub(r"^(    |  )(print|console\.log)\(.processed.*\n", f"{work}\n", text, count=1, flags=re.MULTILINE)
        assert work in text
    (folder / name).write_text(text)
    (folder / verify).write_text(variant.text)
    private, public = keys(variant.scheme)
    if variant.scheme == "rsa_sha1":
        (folder / "platform.pem").write_text(public_keys.pem(public))
    if variant.scheme == "standard_webhooks_v1a":  # while a key rotates, beside those of other schemes
        published = public_keys.jwks([keys(variant.scheme, 1)[1], keys("rsa_sha1")[1], public])
        (folder / "jwks.json").write_text(json.dumps(published))
    secret = {"WEBHOOK_SECRET": Secret(private).reveal_whsec()} if variant.scheme == "standard_webhooks_v1" else {}
    with (folder / "errors.txt").open("a") as errors:
        process = subprocess.Popen(
            [program, name],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PORT": "0", **secret, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    found = Running(variant, process)
    found.pump.start()
    return found


def event(kind: str = "payment.completed", *, mode: str = "live", checkout: str = "chk_1") -> StoredEvent:
    payload = json.dumps({"amount": "12.30 €", "metadata": {"checkoutId": checkout}}, ensure_ascii=False)
    return StoredEvent(uuid7(), kind, mode, payload.encode(), SYSTEM.now())


def name(one: StoredEvent) -> str:
    return format_id("evt", one.id)


def test_the_document_has_a_verifier_of_each_kind_in_both_languages() -> None:
    assert sorted(RECEIVERS) == ["receiver.mjs", "receiver.py"]
    assert [(one.language, one.scheme) for one in VARIANTS] == [
        ("python", "standard_webhooks_v1"),
        ("python", "standard_webhooks_v1"),
        ("python", "standard_webhooks_v1a"),
        ("python", "rsa_sha1"),
        ("node", "standard_webhooks_v1"),
        ("node", "standard_webhooks_v1a"),
        ("node", "rsa_sha1"),
    ]


@each_variant
def test_a_receiver_processes_what_is_genuine_once_and_refuses_the_rest(variant: Variant, start: Start) -> None:
    receiver = start(variant)
    first, last = event(), event("refund.completed")
    assert receiver.deliver(first, cut=b"}") == 400, "another body"
    assert receiver.deliver(first, key=keys(variant.scheme, 2)[0]) == 400, "another key"
    assert receiver.post(body_of(first, BodyForm.ENVELOPE), {}) == 400, "no signature"
    if variant.is_dated:
        assert receiver.deliver(first, seconds_ago=400) == 400
        assert receiver.deliver(first, seconds_ago=-400) == 400
        other = receiver.signed(first, body_of(first, BodyForm.ENVELOPE)) | {"webhook-id": name(last)}
        assert receiver.post(body_of(first, BodyForm.ENVELOPE), other) == 400, "another id"
    assert receiver.deliver(first) == 200
    assert receiver.deliver(first, seconds_ago=3) == 200, "the same event again"
    assert receiver.deliver(last) == 200
    assert receiver.processed(until=name(last)) == [name(first), name(last)]


@each_variant
def test_a_receiver_answers_a_ping_that_nobody_could_sign(variant: Variant, start: Start) -> None:
    receiver = start(variant)
    ping = (
        b'{"id":"evt_01a1fc08-8eed-7fd4-808c-8a82ca61f56b","type":"endpoint.ping","timestamp":"2026-01-01T00:00:00.000Z",'
        b'"mode":"test","data":{}}'
    )
    headers = {"webhook-id": "evt_01a1fc08-8eed-7fd4-808c-8a82ca61f56b", "webhook-timestamp": "1767225600"}
    assert receiver.post(ping, headers) == 200
    last = event()
    assert receiver.deliver(last) == 200
    assert receiver.processed(until=name(last)) == [name(last)]


@each_language
def test_a_receiver_confirms_and_leaves_out_what_is_not_for_it(variant: Variant, start: Start) -> None:
    receiver = start(variant, CHECKOUT_ID="chk_1")
    for other in (event("payout.sent"), event(mode="test"), event(checkout="chk_2")):
        assert receiver.deliver(other) == 200
    no_object = StoredEvent(uuid7(), "payment.completed", "live", b"[1]", SYSTEM.now())
    assert receiver.deliver(no_object) == 200
    last = event()
    assert receiver.deliver(last) == 200
    assert receiver.processed(until=name(last)) == [name(last)]


@each_language
def test_a_receiver_accepts_both_secrets_while_one_rotates(variant: Variant, start: Start) -> None:
    new, old = keys(variant.scheme, 3)[0], keys(variant.scheme, 4)[0]
    receiver = start(variant, WEBHOOK_SECRET=f"{Secret(new).reveal_whsec()} {Secret(old).reveal_whsec()}")
    for key in (new, old):
        assert receiver.deliver(event(), key=key) == 200
    assert receiver.deliver(event()) == 400
    both = event()
    body = body_of(both, BodyForm.ENVELOPE)
    headers = receiver.signed(both, body)
    headers["webhook-signature"] += " " + receiver.signed(both, body, key=old)["webhook-signature"]
    assert receiver.post(body, headers) == 200


@each_language
def test_a_receiver_does_not_start_with_what_is_no_secret(variant: Variant, launch: Start, tmp_path: Path) -> None:
    receiver = launch(variant, WEBHOOK_SECRET="whsec_")
    assert receiver.process.wait(PATIENCE_S) != 0
    assert "WEBHOOK_SECRET" in (tmp_path / "errors.txt").read_text()


@each_language
def test_a_receiver_asks_for_the_login_that_it_registered(variant: Variant, start: Start) -> None:
    receiver = start(variant, WEBHOOK_LOGIN="shop:s3cr:et")
    one = event()
    body = body_of(one, BodyForm.ENVELOPE)
    headers = receiver.signed(one, body)

    def basic(text: str) -> dict[str, str]:
        return headers | {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    assert receiver.post(body, headers) == 401
    assert receiver.post(body, basic("shop:other")) == 401
    assert receiver.post(body, basic("shop:s3cr:et")) == 200
    assert receiver.processed(until=name(one)) == [name(one)]


@each_language
def test_a_receiver_answers_before_it_works_and_a_crash_loses_nothing(variant: Variant, start: Start) -> None:
    # Work that never ends: if the answer waited for it, it would not come.
    forever = {"python": "    threading.Event().wait()", "node": "  await new Promise(() => {});"}[variant.language]
    receiver = start(variant, work=forever)
    first, second = event(), event()
    assert [receiver.deliver(one) for one in (first, second)] == [200, 200]
    receiver.stop()
    again = start(variant)
    third = event()
    assert again.deliver(first) == 200, "it was remembered"
    done = {again.next_line().split()[2] for _ in range(2)}
    assert done == {name(first), name(second)}
    assert again.deliver(third) == 200
    assert again.processed(until=name(third)) == [name(third)]
    again.stop()
    last = event()
    once_more = start(variant)
    assert [once_more.deliver(one) for one in (first, last)] == [200, 200]
    # What the kill interrupted between the work and its note may be run again; what was done before is not.
    assert set(once_more.processed(until=name(last))) <= {name(third), name(last)}


@each_language
def test_a_receiver_survives_what_is_no_delivery(variant: Variant, start: Start) -> None:
    receiver = start(variant)
    headers: Any = {"webhook-id": "evt_1", "webhook-timestamp": "soon", "webhook-signature": "v1,x v1 é".encode()}
    for body in (b"", b"{", b"[]", b"null", b'"endpoint.ping"', b"\xff", b'{"type": 1}'):
        assert receiver.post(body, {}) == 400
        assert receiver.post(body, headers) == 400
    assert receiver.post(b"x" * 1_000_001, {}) == 413
    last = event()
    assert receiver.deliver(last) == 200
    assert receiver.processed(until=name(last)) == [name(last)]
