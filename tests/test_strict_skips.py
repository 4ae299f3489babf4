"""TEST_STRICT_SKIPS: a skip that installing something would have prevented is a failure."""

from __future__ import annotations

import pytest

from tests.conftest import refuse_skip


def skipped(reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        "tests/test_x.py::test_y", ("tests/test_x.py", 1, "test_y"), {}, "skipped", ("x.py", 1, reason), "call"
    )


@pytest.mark.parametrize(
    ("strict", "reason", "outcome"),
    [
        ("1", "Skipped: no node on this machine", "failed"),
        ("1", "Skipped: CPU is read from /proc, which only Linux has", "skipped"),
        ("", "Skipped: no node on this machine", "skipped"),
    ],
)
def test_only_an_allowed_skip_is_one(monkeypatch: pytest.MonkeyPatch, strict: str, reason: str, outcome: str) -> None:
    monkeypatch.setenv("TEST_STRICT_SKIPS", strict)
    report = skipped(reason)
    refuse_skip(report)
    assert report.outcome == outcome
    assert outcome == "skipped" or reason in str(report.longrepr)
