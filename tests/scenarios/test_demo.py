"""The demo: the whole system for real, and a verdict that can say no."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispatcher.local.paths import key_of
from examples import make_payments
from examples.demo import bar, one_line
from examples.verdict import MEANING, Verdict, judge
from tests.support.patience import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "examples" / "payments.jsonl"


def heed_signals() -> None:
    """Undoes what a shell's `&` and `nohup` do to the processes that they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Run:
    """A demo in a process of its own; `temporary` is its folder for temporary files."""

    def __init__(self, temporary: Path, *command: str) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "examples.demo", "--events", "150", "--limit", "600"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # What is set outside must not matter.
            env=os.environ | {"TMPDIR": str(temporary), "DISPATCHER_PORT": "1", "DISPATCHER_WORKERS": "none"},
            # A test run in the background may have been started with these ignored, and would pass that on.
            preexec_fn=heed_signals,  # noqa: PLW1509 - nothing here holds a lock that it needs
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def made(self, file: str) -> Path:
        """The demo's folder, once this file of its data directory is there."""

        def started() -> list[Path]:
            assert self.process.poll() is None, self.end()
            return list(self.temporary.glob(f"dispatcher-demo-*/data/{file}"))

        until(started, f"the demo has made {file}")
        return started()[0].parents[1]

    def processes(self) -> list[psutil.Process]:
        """Every process that has to do with the demo's folder, the demo excepted."""
        found = []
        for one in psutil.process_iter():
            try:
                words = " ".join([*one.cmdline(), *one.environ().values()])
            except psutil.Error:
                continue
            if str(self.temporary) in words and one.pid != self.process.pid:
                found.append(one)
        return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short path that the servers' account can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_demo_delivers_everything_and_leaves_nothing_behind(temporary: Path) -> None:
    run = Run(temporary)
    code, out, err = run.end()
    assert (code, err) == (0, ""), out
    word, _, result = out.rstrip().splitlines()[-1].partition(" ")
    assert word == "RESULT"
    found = json.loads(result)
    assert set(found) == set(MEANING)
    assert found["accepted"] == 150
    assert found["lost"] == found["duplicates"] == found["disagreements"] == 0
    assert found["exhausted"] == found["replayed"] > 0
    assert found["retried"] > found["exhausted"]
    assert found["delivered"] == 300  # every event goes to the healthy merchant, and to one of the others
    assert found["signatures_verified"] == found["posts"] > found["delivered"]
    assert found["seconds"] > 0
    assert not list(temporary.iterdir())
    assert not run.processes()


@pytest.mark.parametrize(
    ("number", "file"),
    [
        pytest.param(signal.SIGINT, "running", id="SIGINT once its API and workers have been started"),
        pytest.param(signal.SIGHUP, "postgres.log", id="SIGHUP while PostgreSQL is starting"),
    ],
)
def test_an_interrupted_demo_leaves_nothing_behind(temporary: Path, number: signal.Signals, file: str) -> None:
    run = Run(temporary)
    key = key_of(run.made(file) / "data")
    assert run.processes()
    run.process.send_signal(number)
    code, out, err = run.end()
    assert (code, err) == (130, "demo: interrupted; everything was stopped and removed\n")
    assert "RESULT" not in out
    assert not list(temporary.iterdir())
    assert not run.processes()
    assert not [one for place in ("/run", "/tmp", "/var/tmp") for one in Path(place).glob(f"dispatcher-*-{key}")]


def test_a_system_that_does_not_start_is_one_sentence_and_a_log(temporary: Path) -> None:
    broken = """
from dispatcher.errors import Unavailable
from examples import demo

def start(self):
    self._env["said"] = self.supervisor._output("postgres", "no space left")
    raise Unavailable("PostgreSQL does not start: the disk is full.")

demo.Stack.start = start
demo.main([])
"""
    run = Run(temporary, "-c", broken)
    code, out, err = run.end()
    (log,) = temporary.iterdir()
    assert code == 1
    assert err == f"demo: PostgreSQL does not start: the disk is full. What every process said is in {log}\n"
    assert "RESULT" not in out
    assert "postgres | no space left" in log.read_text(encoding="utf-8")
    assert not run.processes()


def test_the_events_are_those_that_the_generator_writes(capsys: pytest.CaptureFixture[str]) -> None:
    make_payments.main()
    written = EVENTS.read_text(encoding="utf-8")
    assert capsys.readouterr().out == written
    events = [json.loads(line) for line in written.splitlines()]
    assert len(events) >= 300
    assert len({event["type"] for event in events}) >= 8
    families = Counter(event["type"].partition(".")[0] for event in events)
    assert set(families) == {"payment", "refund", "payout", "chargeback"}


def post(merchant: str, event_id: str, status: int = 200, *, verified: bool = True) -> dict[str, Any]:
    return {"merchant": merchant, "event_id": event_id, "status": status, "verified": verified}


def logged(merchant: str, event_id: str, status: str = "delivered", *, sent: int = 1, **more: Any) -> dict[str, Any]:
    values = {"merchant": merchant, "event_id": event_id, "status": status, "replay_of": None, "attempts": sent}
    return values | {"sent": sent} | more


EXPECTED = {("healthy", "evt_1"), ("healthy", "evt_2"), ("down", "evt_2")}
LEDGER = [
    post("healthy", "evt_1"),
    post("healthy", "evt_2", 503),
    post("healthy", "evt_2"),
    post("down", "evt_2"),
]
LOG = [
    logged("healthy", "evt_1"),
    logged("healthy", "evt_2", sent=2),
    logged("down", "evt_2", "exhausted", sent=0, attempts=4),
    logged("down", "evt_2", replay_of="dlv_1"),
]


def verdict(ledger: list[dict[str, Any]] = LEDGER, log: list[dict[str, Any]] = LOG, *, accepted: int = 2) -> Verdict:
    return judge(EXPECTED, ledger, log, accepted=accepted, seconds=1.0)


def test_a_ledger_and_a_log_that_agree_are_good() -> None:
    found = verdict()
    assert (found.exit_code, found.findings) == (0, ())
    assert (found.delivered, found.exhausted, found.replayed, found.retried) == (3, 1, 1, 2)
    assert (found.posts, found.signatures_verified, found.lost, found.duplicates) == (4, 4, 0, 0)
    assert set(found.numbers) == set(MEANING)


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_what_the_merchant_did_not_get_is_lost(missing: int) -> None:
    found = verdict(ledger=LEDGER[:missing] + LEDGER[missing + 1 :])
    assert (found.lost, found.exit_code) == (1, 1)
    assert found.disagreements > 0  # the log says delivered
    assert f"never accepted {LEDGER[missing]['event_id']}" in found.findings[0]


@pytest.mark.parametrize("doubled", [0, 2, 3])
def test_what_the_merchant_accepted_twice_is_a_duplicate(doubled: int) -> None:
    found = verdict(ledger=[*LEDGER, LEDGER[doubled]])
    assert (found.duplicates, found.exit_code) == (1, 1)


def test_a_duplicate_that_the_log_admits_is_one_all_the_same() -> None:
    found = verdict(ledger=[*LEDGER, LEDGER[0]], log=[logged("healthy", "evt_1", sent=2), *LOG[1:]])
    assert (found.duplicates, found.disagreements, found.exit_code) == (1, 0, 1)


def test_a_post_that_the_log_does_not_know_is_a_disagreement() -> None:
    found = verdict(ledger=[*LEDGER, post("healthy", "evt_2", 503)])
    assert (found.lost, found.duplicates, found.disagreements, found.exit_code) == (0, 0, 1, 1)


def test_an_attempt_that_the_merchant_does_not_know_is_a_disagreement() -> None:
    found = verdict(log=[logged("healthy", "evt_1", sent=2), *LOG[1:]])
    assert (found.disagreements, found.exit_code) == (1, 1)


def test_an_event_that_the_log_does_not_know_is_lost() -> None:
    found = verdict(ledger=LEDGER[1:], log=LOG[1:])
    assert (found.lost, found.exit_code) == (1, 1)


def test_a_delivery_that_has_not_ended_is_a_disagreement() -> None:
    found = verdict(log=[*LOG, logged("down", "evt_2", "waiting", sent=0)])
    assert (found.disagreements, found.exit_code) == (1, 1)


def test_an_event_for_the_wrong_merchant_is_a_disagreement() -> None:
    found = verdict(ledger=[*LEDGER, post("down", "evt_1")], log=[*LOG, logged("down", "evt_1")])
    assert (found.disagreements, found.exit_code) == (1, 1)


def test_a_signature_that_does_not_verify_is_not_good() -> None:
    found = verdict(ledger=[post("healthy", "evt_1", verified=False), *LEDGER[1:]])
    assert (found.lost, found.signatures_verified, found.exit_code) == (0, 3, 1)


def test_nothing_at_all_is_not_good() -> None:
    assert judge(set(), [], [], accepted=0, seconds=1.0).exit_code == 1


@pytest.mark.parametrize("counts", [{}, {"waiting": 335, "in_flight": 1}, {"delivered": 1, "exhausted": 1000}])
def test_a_bar_is_as_wide_as_it_should_be_and_shows_every_state(counts: dict[str, int]) -> None:
    drawn = bar(Counter(counts), 20).plain
    assert len(drawn) == (20 if counts else 0)
    assert len(set(drawn)) == len(counts)


def test_a_log_file_gets_a_line_that_can_be_read() -> None:
    counts = {"healthy": Counter(delivered=5), "down": Counter(delivered=1, exhausted=2, waiting=1)}
    assert one_line(counts, 12.4) == "  12 s  delivered: healthy 5/5, down 1/4 (2 exhausted)"
