"""The floors of coverage: which module fell below, and that none is ever lowered."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from scripts import coverage_floors

FLOORS = """[floors]
"dispatcher" = 80
"dispatcher.model" = 100
"""


def module(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, dict[str, int]]:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"summary": dict(zip(names, (*lines, *branches), strict=True))}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    floors = tmp_path / "coverage_floors.toml"
    floors.write_text(FLOORS)
    monkeypatch.setattr(coverage_floors, "FLOORS", floors)
    return tmp_path / "coverage.json"


def measured(report: Path, **files: dict[str, dict[str, int]]) -> Path:
    report.write_text(
        json.dumps({"files": {f"dispatcher/{name.replace('__', '/')}.py": one for name, one in files.items()}})
    )
    return report


def test_what_is_at_its_floor_passes(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(report, ids=module((8, 10), (0, 0)), model__event=module((5, 5), (2, 2)))
    assert coverage_floors.main(report) == 0
    assert "BELOW" not in capsys.readouterr().out


def test_a_branch_that_is_not_taken_counts_and_its_module_is_named(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(
        report, ids=module((10, 10), (0, 0)), model__event=module((5, 5), (1, 2)), model__profile=module((9, 9), (0, 0))
    )
    assert coverage_floors.main(report) == 1
    said = capsys.readouterr().out
    assert "dispatcher.model          93.75 %, floor 100 %, BELOW" in said
    assert "dispatcher.model.event 85.71 %" in said
    assert "dispatcher.model.profile" not in said


def test_a_part_that_was_not_measured_is_no_success(report: Path) -> None:
    measured(report, ids=module((10, 10), (0, 0)))
    assert coverage_floors.main(report) == 1


def test_the_folder_workers_counts_as_the_package_that_it_is(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coverage_floors.FLOORS.write_text('[floors]\n"dispatcher.workers" = 90\n')
    report.write_text(json.dumps({"files": {"workers/loop.py": module((8, 10), (0, 0))}}))
    assert coverage_floors.main(report) == 1
    assert "dispatcher.workers.loop 80.00 %" in capsys.readouterr().out


def test_floors_rise_and_never_fall(report: Path) -> None:
    measured(report, ids=module((95, 100), (0, 0)), model__event=module((1, 2), (0, 0)))
    coverage_floors.main(report, rise=True)
    assert tomllib.loads(coverage_floors.FLOORS.read_text())["floors"] == {"dispatcher": 94, "dispatcher.model": 100}


def test_every_package_has_a_floor_and_the_pure_ones_are_whole() -> None:
    root = Path(__file__).parents[1]
    floors = tomllib.loads((root / "scripts/coverage_floors.toml").read_text())["floors"]
    packages = {f"dispatcher.{path.parent.name}" for path in (root / "dispatcher").glob("*/__init__.py")}
    assert {"dispatcher"} | packages == set(floors)
    assert {floors[f"dispatcher.{name}"] for name in ("model", "retry", "signing")} == {100}
