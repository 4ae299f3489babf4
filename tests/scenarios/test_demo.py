"""The demo: the whole system for real, and a verdict that can say no."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples import make_payments
from examples.demo import Verdict, judge

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(110)
def test_the_demo_delivers_everything_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--events", "150"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    word, _, result = ran.stdout.rstrip().splitlines()[-1].partition(" ")
    assert word == "RESULT"
    found = json.loads(result)
    assert found["accepted"] == 150
    assert found["lost"] == found["duplicates"] == found["disagreements"] == 0
    assert found["exhausted"] == found["replayed"] > 0
    assert found["retried"] > 0
    assert found["delivered"] > 150
    assert found["signatures_verified"] == found["posts"] > found["delivered"]
    assert found["seconds"] < 60
    left = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in left if line and any("dispatcher-demo-" in part for part in line)]


def test_the_events_are_those_that_the_generator_writes() -> None:
    lines = (ROOT / "examples" / "payments.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert events == make_payments.events()
    assert len(events) >= 300
    assert len({event["type"] for event in events}) >= 8
    families = Counter(event["type"].partition(".")[0] for event in events)
    assert set(families) == {"payment", "refund", "payout", "chargeback"}


def entry(merchant: str, event_id: str, status: int = 200, *, verified: bool = True) -> dict[str, Any]:
    return {"path": f"/{merchant}", "event_id": event_id, "status": status, "verified": verified}


def logged(merchant: str, event_id: str, status: str = "delivered", *, sent: int = 1, **more: Any) -> dict[str, Any]:
    values = {"merchant": merchant, "event_id": event_id, "status": status, "replay_of": None, "attempts": sent}
    return values | {"sent": sent} | more


EXPECTED = {("healthy", "evt_1"), ("healthy", "evt_2")}
LEDGER = [entry("healthy", "evt_1"), entry("healthy", "evt_2", 503), entry("healthy", "evt_2")]
LOG = [logged("healthy", "evt_1"), logged("healthy", "evt_2", sent=2)]


def verdict(ledger: list[dict[str, Any]] = LEDGER, log: list[dict[str, Any]] = LOG) -> Verdict:
    return judge(EXPECTED, ledger, log, accepted=2, seconds=1.0)


def test_a_ledger_and_a_log_that_agree_are_good() -> None:
    found = verdict()
    assert found.good
    assert (found.delivered, found.retried, found.posts, found.lost, found.duplicates) == (2, 1, 3, 0, 0)


def test_what_the_merchant_did_not_get_is_lost() -> None:
    found = verdict(ledger=LEDGER[:2])
    assert (found.lost, found.disagreements) == (1, 1)
    assert not found.good


def test_what_the_merchant_accepted_twice_is_a_duplicate() -> None:
    found = verdict(ledger=[*LEDGER, entry("healthy", "evt_1")], log=[logged("healthy", "evt_1", sent=2), LOG[1]])
    assert (found.duplicates, found.disagreements) == (1, 0)
    assert not found.good


def test_a_post_without_an_attempt_is_a_disagreement() -> None:
    assert verdict(ledger=[*LEDGER, entry("healthy", "evt_2", 503)]).disagreements == 1


def test_an_event_that_nobody_logged_is_lost() -> None:
    assert verdict(ledger=LEDGER[:1], log=LOG[:1]).lost == 1


def test_a_signature_that_does_not_verify_is_not_good() -> None:
    found = verdict(ledger=[entry("healthy", "evt_1", verified=False), *LEDGER[1:]])
    assert (found.lost, found.signatures_verified) == (0, 2)
    assert not found.good


def test_nothing_at_all_is_not_good() -> None:
    assert not replace(verdict(), accepted=0).good
