from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.errors import ConfigurationError
from dispatcher.profiles import lint, load_catalog, load_profile, shipped_profiles_dir
from tests.profiles.known import KNOWN

GOOD = 'description = "d"\nsource = "s"\n'


def put(directory: Path, **contents: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / f"{name}.toml").write_text(content)
    return directory


def test_a_catalog_is_a_mapping_of_names_in_order(tmp_path: Path) -> None:
    found = load_catalog(put(tmp_path, b=GOOD, a=GOOD), known=KNOWN)
    assert list(found) == ["a", "b"]
    assert (len(found), found["a"].name, "c" in found) == (2, "a", False)


def test_an_operators_file_replaces_a_shipped_one(tmp_path: Path) -> None:
    file = load_catalog(
        put(tmp_path, default=GOOD + "deadline_s = 20"), shipped_profiles_dir(), known=KNOWN
    ).files["default"]  # fmt: skip
    assert (file.profile.deadline_s, file.shipped) == (20.0, False)
    assert file.replaces == shipped_profiles_dir() / "default.toml"


def test_every_error_of_every_file_of_every_directory_is_told_at_once(tmp_path: Path) -> None:
    one = put(tmp_path / "one", a="methods = []\nschedule = 'x'\n", b="x", good=GOOD)
    two = put(tmp_path / "two", c="", good=GOOD)
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(shipped_profiles_dir(), one, two, tmp_path / "no", known=KNOWN)
    assert [(Path(problem.where).stem, problem.line, problem.field) for problem in caught.value.problems] == [
        ("a", 1, "methods"),
        ("a", 2, "schedule"),
        ("b", 1, ""),
        ("c", None, ""),
        ("good", None, ""),
        ("no", None, ""),
    ]


def test_one_file_is_read(tmp_path: Path) -> None:
    file = load_profile(put(tmp_path, a="# nothing") / "a.toml", known=KNOWN)
    assert (file.profile.name, file.shipped, len(file.warnings)) == ("a", False, 2)


def test_one_broken_file_is_refused_with_all_its_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_profile(put(tmp_path, a="methods = []\nbody = 2") / "a.toml", known=KNOWN)
    assert len(caught.value.problems) == 2


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_profile(tmp_path / "gone.toml", known=KNOWN)


def test_lint_takes_files_and_directories_and_raises_nothing(tmp_path: Path) -> None:
    folder = put(tmp_path / "some", a="# nothing", b="methods = []")
    alone = put(tmp_path / "alone", c="methods = []") / "c.toml"
    report = lint(folder, alone, tmp_path / "gone.toml", known=KNOWN)
    assert report.files == 4
    assert [Path(problem.where).stem for problem in report.problems] == ["b", "c", "gone"]
    assert {Path(warning.where).stem for warning in report.warnings} == {"a"}
