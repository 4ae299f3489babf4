"""A signal to every process of `up` at once, as systemd sends it: nothing in flight is sent twice."""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from dispatcher.flow.enqueue import enqueue
from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import Event
from tests.crash.load import Target
from tests.support.patience import until
from tests.support.system import UpSystem

pytestmark = pytest.mark.crash

IN_FLIGHT = 40
PROFILE = """
description = "An attempt may take a minute."
source = "this test"
deadline_s = 60
"""


class HoldingReceiver:
    """Answers no POST before `release` is called, then all of them with 200."""

    def __init__(self) -> None:
        self.posts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._lock:
                    receiver.posts[self.headers["webhook-id"]] += 1
                receiver._released.wait()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 2 * IN_FLIGHT

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def know(self, secrets: object) -> None:
        """Signatures are checked elsewhere."""

    def release(self) -> None:
        self._released.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()


def own_control_group() -> Path | None:
    """A new control group of ours, version 2 or 1; None where none can be made."""
    for parent in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/pids")):
        if not (parent / "cgroup.procs").exists():
            continue
        group = parent / f"dispatcher-test-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:
            continue
        if os.access(group / "cgroup.procs", os.W_OK):
            return group
        group.rmdir()
    return None


class GroupedUp(UpSystem):
    """`up` in a control group of its own where the machine has one to give."""

    group: Path | None = None

    def command(self) -> list[str]:
        argv = super().command()
        if self.group is None:
            return argv
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs"), *argv]

    def members(self) -> list[int]:
        """Every process of `up`: servers, their backends and the guard too."""
        if self.group is not None:
            return [int(line) for line in (self.group / "cgroup.procs").read_text().split()]
        up = psutil.Process(self._process.pid)
        return [up.pid, *(child.pid for child in up.children(recursive=True))]

    @property
    def postmaster(self) -> psutil.Process:
        children = psutil.Process(self._process.pid).children()
        return next(child for child in children if child.name() == "postgres")

    def signal_all(self, number: signal.Signals, *, spare: set[int]) -> None:
        for pid in self.members():
            if pid in spare:
                continue
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it left meanwhile


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroupedUp]:
    profiles = tmp_path_factory.mktemp("profiles")
    (profiles / "patient.toml").write_text(PROFILE)
    settings = {"DISPATCHER_PROFILES_DIR": str(profiles), "DISPATCHER_DEFAULT_PROFILE": "patient"}
    notified = str(profiles / "notified")
    settings["NOTIFY_SOCKET"] = notified
    found = GroupedUp(workers=1, term_s=120, grace_s=120, env=settings)
    found.group = own_control_group()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(notified)
            with found:
                assert systemd.recv(64) == b"READY=1"
                yield found
    finally:
        if found.group is not None:
            until(lambda: not found.members(), "the control group is empty")
            found.group.rmdir()


@pytest.mark.parametrize("backends", [True, False], ids=["every_process", "all_but_backends"])
def test_a_signal_to_all_processes_at_once_sends_nothing_in_flight_twice(system: GroupedUp, backends: bool) -> None:
    """PostgreSQL's backends end on SIGTERM, its postmaster waits for those that were spared and admits no others."""
    with HoldingReceiver() as receiver:
        types = [f"stop.{uuid.uuid4().hex}" for _ in range(IN_FLIGHT)]
        system.register(receiver, [Target(f"/{n}", (type_,)) for n, type_ in enumerate(types)])
        events = [Event(type=type_, payload={}, id=uuid7()) for type_ in types]
        with system.engine.begin() as connection:
            enqueue(connection, events)
        until(lambda: receiver.posts.total() == IN_FLIGHT, "all are in flight")
        system.engine.dispose()
        postmaster = system.postmaster
        spare = set() if backends else {child.pid for child in postmaster.children()}

        system.signal_all(signal.SIGTERM, spare=spare)
        until(lambda: not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE, "PostgreSQL left")
        receiver.release()
        assert system.wait() == 0
        lines = "\n".join(system.lines)

        system.start()
        until(lambda: system.rows("SELECT count(*) FROM dispatcher.deliveries") == [(0,)], "everything has ended")
        ids = [event.id for event in events]
        attempts = system.rows(
            """SELECT d.state, a.outcome, a.outcome_known, count(*) FROM dispatcher.ended_deliveries d
               JOIN dispatcher.attempts a ON a.delivery_id = d.id WHERE d.event_id = ANY(:ids) GROUP BY 1, 2, 3""",
            ids=ids,
        )
        assert attempts == [("delivered", "ok", True, IN_FLIGHT)], lines
        assert receiver.posts == Counter(format_id("evt", id_) for id_ in ids if id_ is not None), lines
