"""A wake-up is a hint: it costs the producer nothing, whatever the broker does, and usually arrives."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import wakeup as module
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.wakeup import CHANNEL, Wakeup, redis_url
from tests.support.patience import PATIENCE_S, until
from tests.support.producers import hears

ROOT = Path(__file__).parents[1]


def script(source: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *argv],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The URL of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        (None, None),
        ("", None),
        ("amqp://guest@rabbit//", None),
        ("sqs://", None),
        ("sentinel://one:26379", None),
        ("redis:", None),
        ("redis://:p%40ss@cache:6379/3", "redis://:p%40ss@cache:6379/3"),
        ("redis://one:1/0;redis://two:2/0", "redis://one:1/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis+socket://:secret@/run/redis.sock?virtual_host=2", "unix://:secret@/run/redis.sock?db=2"),
        ("rediss://cache:6380/0?ssl_cert_reqs=CERT_NONE", "rediss://cache:6380/0?ssl_cert_reqs=none"),
        ("rediss://cache:6380/0?ssl_ca_certs=/a%20b.pem", "rediss://cache:6380/0?ssl_ca_certs=%2Fa+b.pem"),
    ],
)
def test_celerys_notation_of_a_broker_becomes_redis_pys(broker: str | None, expected: str | None) -> None:
    assert redis_url(broker) == expected
    if expected is not None:
        pool = redis.Redis.from_url(expected).connection_pool
        assert issubclass(pool.connection_class, redis.SSLConnection) == expected.startswith("rediss")


@pytest.mark.parametrize("url", [None, "amqp://guest@rabbit//", "sqs://"])
def test_a_broker_that_is_no_redis_gets_no_thread(url: str | None) -> None:
    before = threading.active_count()
    wakeup = Wakeup(url)
    wakeup.ring()
    assert threading.active_count() == before
    assert wakeup.flush(0)


def test_without_redis_py_one_line_names_the_extra_and_there_is_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    others = {thread.ident for thread in threading.enumerate() if thread is not threading.current_thread()}
    before = threading.active_count()
    with caplog.at_level(logging.WARNING, "dispatcher.wakeup"):
        wakeup = Wakeup("redis://127.0.0.1:1/0")
        wakeup.ring()
    assert threading.active_count() == before
    assert wakeup.flush(0)
    (said,) = [record.getMessage() for record in caplog.records if record.thread not in others]
    assert said == (
        'wakeup.unavailable error="the scheduler polls, since wake-ups need redis-py: '
        "pip install 'dispatcher-webhooks[wakeup]'\""
    )


def test_it_arrives(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscription:
        subscription.subscribe(CHANNEL)
        wakeup = Wakeup(redis_server.url)
        for _ in range(2):
            wakeup.ring()
            assert hears(subscription)
            assert wakeup.flush(5)


def test_rings_at_once_are_one_and_the_last_one_is_never_forgotten() -> None:
    published: list[int] = []
    rung = [0]
    wakeup = Wakeup(None, publish=lambda: published.append(rung[0]))
    for n in range(1, 20_001):
        rung[0] = n
        wakeup.ring()
    assert wakeup.flush(PATIENCE_S)
    assert published[-1] == 20_000
    assert len(published) < 2_000


def test_a_ring_waits_for_nobody() -> None:
    hanging, rung = threading.Event(), threading.Event()

    def publish() -> None:
        rung.set()
        hanging.wait(PATIENCE_S)

    wakeup = Wakeup(None, publish=publish)
    wakeup.ring()
    assert rung.wait(PATIENCE_S)
    for _ in range(1000):
        wakeup.ring()
    assert not wakeup.flush(0.01)
    hanging.set()
    assert wakeup.flush(PATIENCE_S)


def test_a_broker_that_says_nothing_holds_up_no_producer(black_hole: str) -> None:
    wakeup = Wakeup(black_hole)
    for _ in range(1000):
        wakeup.ring()
    assert not wakeup.flush(0)  # the thousand rings were over before the first one failed


def test_an_outage_is_logged_once_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    answers: list[Exception | None] = [redis.ConnectionError("a\nb"), ValueError("secret"), OSError(), None] * 2
    tried: list[object] = []

    def publish() -> None:
        answer = answers[len(tried)]
        tried.append(answer)
        if answer is not None:
            raise answer

    others = {thread.ident for thread in threading.enumerate()}  # another test's wake-up may be failing still
    wakeup = Wakeup(None, publish=publish)
    with caplog.at_level(logging.WARNING, "dispatcher.wakeup"):
        for n in range(len(answers)):
            wakeup.ring()
            until(lambda n=n: len(tried) > n and not wakeup._publishing)  # type: ignore[misc]
            assert wakeup.flush(PATIENCE_S) == (answers[n] is None)
    said = [record.getMessage() for record in caplog.records if record.thread not in others]
    assert said == ['wakeup.failed error="a b"'] * 2


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://host:port/0", "unix:///nowhere.sock?nonsense=1"])
def test_a_broker_that_cannot_be_reached_is_no_error(url: str, caplog: pytest.LogCaptureFixture) -> None:
    others = {thread.ident for thread in threading.enumerate()}  # another test's wake-up may be failing still
    wakeup = Wakeup(url)
    with caplog.at_level(logging.WARNING, "dispatcher.wakeup"):
        wakeup.ring()
        until(lambda: wakeup._failing)
        wakeup.ring()
    assert wakeup._failing
    assert len([record for record in caplog.records if record.thread not in others]) == 1


def test_a_thread_that_cannot_start_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    published = threading.Event()
    wakeup = Wakeup(None, publish=published.set)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        wakeup.ring()
    assert wakeup.flush(0)
    wakeup.ring()
    assert published.wait(PATIENCE_S)


FORK = """
import os, sys, threading
from dispatcher.wakeup import Wakeup
wakeup = Wakeup(None, publish=lambda: os.write(1, b"%d " % os.getpid()))
wakeup.ring()
assert wakeup.flush(60)
with wakeup._starting:  # as if another thread were starting it
    child = os.fork()
    if child == 0:
        wakeup.ring()
        os._exit(0 if wakeup.flush(60) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
wakeup.ring()
assert wakeup.flush(60)
os.write(1, b"%d %d" % (os.getpid(), child))
"""


def test_a_forked_child_rings_by_a_thread_of_its_own() -> None:
    ended = script(FORK)
    assert ended.returncode == 0, ended.stderr
    first, second, third, parent, child = ended.stdout.split()
    assert (first, second, third) == (parent, child, parent)


EXIT = """
import sys
from dispatcher.wakeup import Wakeup
Wakeup(sys.argv[1]).ring()
"""


def test_the_last_wakeup_before_the_exit_is_sent(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscription:
        subscription.subscribe(CHANNEL)
        ended = script(EXIT, redis_server.url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert hears(subscription)


def test_a_broker_that_says_nothing_does_not_hold_up_the_exit(black_hole: str) -> None:
    ended = script(
        "import atexit, time\nbegan_s = 0.0\natexit.register(lambda: print(time.monotonic() - began_s))\n"
        + EXIT
        + "began_s = time.monotonic()",
        black_hole,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert module.EXIT_S <= float(ended.stdout) < module.TIMEOUT_S  # callbacks run in the opposite order
