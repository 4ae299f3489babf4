"""Figures in the documents: the commands find their places there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import documents
from tests.crash.matrix import Results, grouped, pairs
from tests.crash.outages import OUTAGES
from tests.crash.recovery import flows_again
from tests.crash.steps import STEPS

PLACES = (
    ("operations.md", "recovery"),
    ("reliability.md", "campaign"),
    ("reliability.md", "seeded"),
    ("reliability.md", "matrix"),
)


@pytest.mark.parametrize(("document", "marker"), PLACES)
def test_figures_replace_those_of_the_last_run(
    document: str, marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (documents.DOCS / document).read_text()
    (tmp_path / document).write_text(before)
    monkeypatch.setattr(documents, "DOCS", tmp_path)
    documents.replace(document, marker, ["one", "two"])
    once = (tmp_path / document).read_text()
    assert "-->\none\ntwo\n<!-- " in once
    documents.replace(document, marker, ["three"])
    twice = (tmp_path / document).read_text()
    assert twice == once.replace("one\ntwo", "three")
    assert twice.partition("<!-- ")[0] == before.partition("<!-- ")[0]


def test_deliveries_flow_again_after_the_longest_silence() -> None:
    assert flows_again(10.0, [10.3, 10.1, 10.4]) == 0.0
    assert flows_again(10.0, [10.1, 14.5, 14.6]) == 4.5
    assert flows_again(10.0, []) == 0.0


def test_the_bound_of_no_failure_in_n_is_about_three_in_n() -> None:
    assert documents.upper_bound(100_000) == "3.0e-05"
    assert documents.upper_bound(0) == "unknown"


def test_what_the_matrix_has_hit_is_kept_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "hits.json"
    first = Results.read(path)
    step, outage = first.missing()[0]
    first.hits[step.name, outage.name] += 2
    first.write()
    second = Results.read(path)
    assert second.hits == first.hits
    assert (step, outage) not in second.missing()
    assert len(second.missing()) == len(pairs()) - 1
    assert second.summary().startswith(f"1 of {len(pairs())} pairs hit")
    assert len([line for line in second.table() if line.startswith(step.name)]) >= 1


def test_pairs_of_one_fault_share_it_where_their_processes_differ() -> None:
    assert len(STEPS) >= 20
    roles = {step.role: step for step in STEPS}
    kill, freeze = OUTAGES[:2]
    chosen = [(roles["worker"], kill), (roles["api"], kill), (roles["worker"], freeze), (roles["worker"], kill)]
    assert [len(group) for group in grouped(chosen)] == [2, 1, 1]
