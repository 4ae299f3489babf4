from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher.errors import ConfigurationError, Problem
from dispatcher.retry import lint, load_catalog, load_schedule, shipped_schedules_dir

GOOD = 'description = "d"\nsource = "s"\nwaits = ["0s", "5s"]\n'


def put(directory: Path, **contents: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / f"{name}.toml").write_text(content)
    return directory


def problems_of(*directories: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(*directories)
    return caught.value.problems


def test_a_catalog_is_a_mapping_of_names_in_order(tmp_path: Path) -> None:
    found = load_catalog(put(tmp_path, b=GOOD, a=GOOD))
    assert list(found) == ["a", "b"]
    assert (len(found), found["a"].name, "c" in found) == (2, "a", False)


def test_the_shipped_schedules_are_found() -> None:
    assert {"standard", "exponential"} <= set(load_catalog(shipped_schedules_dir()))


def test_an_operators_file_replaces_a_shipped_one_whatever_the_order(tmp_path: Path) -> None:
    mine = put(tmp_path / "mine", standard=GOOD)
    for directories in ((shipped_schedules_dir(), mine), (mine, shipped_schedules_dir())):
        file = load_catalog(*directories).files["standard"]
        assert (file.schedule.attempts, file.shipped) == (2, False)
        assert file.path == mine / "standard.toml"
        assert file.replaces == shipped_schedules_dir() / "standard.toml"
        assert load_catalog(*directories).files["exponential"].shipped


def test_a_name_in_two_directories_of_the_operators_is_refused(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", standard=GOOD), put(tmp_path / "two", standard=GOOD)
    (problem,) = problems_of(shipped_schedules_dir(), one, two)
    assert problem.where == str(two / "standard.toml")
    assert problem.found == "the name 'standard' again"
    assert str(one) in problem.allowed


def test_the_same_directory_twice_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "one", a=GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert list(load_catalog(tmp_path / "one", tmp_path / "link")) == ["a"]


def test_every_error_of_every_file_of_every_directory_is_told_at_once(tmp_path: Path) -> None:
    one = put(tmp_path / "one", a="waits = []\njitter = 2\n", b="x", good=GOOD)
    two = put(tmp_path / "two", c="", good=GOOD)
    found = [
        (Path(problem.where).stem, problem.line, problem.field) for problem in problems_of(one, two, tmp_path / "no")
    ]
    assert found == [
        ("a", 1, "waits"),
        ("a", 2, "jitter"),
        ("b", 1, ""),
        ("c", None, ""),
        ("good", None, ""),
        ("no", None, ""),
    ]


def test_what_is_no_schedule_file_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, a=GOOD)
    for name in ("README.md", "a.toml~", ".hidden.toml", "a.toml.bak", "toml"):
        (tmp_path / name).write_text("x")
    (tmp_path / "..data").mkdir()
    (tmp_path / ".#a.toml").symlink_to("nobody@nowhere")
    assert list(load_catalog(tmp_path)) == ["a"]


def test_a_mounted_file_behind_a_symbolic_link_is_read(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap so."""
    put(tmp_path / "..data", a=GOOD)
    (tmp_path / "a.toml").symlink_to("..data/a.toml")
    assert list(load_catalog(tmp_path)) == ["a"]


def a_directory(path: Path) -> None:
    path.mkdir()


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (a_directory, "a directory"),
        (a_loop, "Too many levels of symbolic links"),
        (a_dangling_link, "No such file or directory"),
        (a_pipe, "no regular file"),
    ],
)
def test_what_is_no_file_is_refused_without_being_opened(tmp_path: Path, make, found: str) -> None:
    make(tmp_path / "x.toml")
    (problem,) = problems_of(tmp_path)
    assert (problem.where, problem.found) == (str(tmp_path / "x.toml"), found)


@pytest.mark.parametrize(
    ("error", "found"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (OSError("on fire"), "on fire")],
)
def test_a_read_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, found: str) -> None:
    put(tmp_path, x=GOOD)

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", fail)
    assert problems_of(tmp_path)[0].found == found


def test_another_case_of_the_suffix_is_refused_rather_than_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.TOML").write_text(GOOD)
    (problem,) = problems_of(tmp_path)
    assert (problem.found, problem.allowed) == ("the suffix '.TOML'", ".toml")


def test_a_file_is_never_read_beyond_its_limit(tmp_path: Path) -> None:
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(10 * 2**30)  # sparse: reading it whole would take 10 GiB
    assert "more than 65,536 bytes" in problems_of(tmp_path)[0].found


@pytest.mark.parametrize("name", ["gone", "file", "loop"])
def test_a_directory_that_cannot_be_listed_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (problem,) = problems_of(tmp_path / name)
    assert (problem.where, problem.allowed) == (str(tmp_path / name), "a directory that can be read")


def test_one_file_is_read(tmp_path: Path) -> None:
    file = load_schedule(put(tmp_path, a='waits = ["0s"]') / "a.toml")
    assert (file.schedule.name, file.shipped, len(file.warnings)) == ("a", False, 3)


def test_one_broken_file_is_refused_with_all_its_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_schedule(put(tmp_path, a="waits = []\njitter = 2") / "a.toml")
    assert len(caught.value.problems) == 2


def test_a_catalog_knows_its_warnings(tmp_path: Path) -> None:
    (warning,) = load_catalog(put(tmp_path, a=GOOD + "# fine", b='source = "s"\nwaits = ["0s", "5s"]')).warnings
    assert (warning.where, warning.field) == (str(tmp_path / "b.toml"), "description")


def test_lint_takes_files_and_directories_and_raises_nothing(tmp_path: Path) -> None:
    directory = put(tmp_path / "some", a='waits = ["0s", "5s"]', b="waits = []")
    alone = put(tmp_path / "alone", c="waits = []") / "c.toml"
    (tmp_path / "d.toml").mkdir()
    report = lint(directory, alone, tmp_path / "d.toml", tmp_path / "gone.toml")
    assert report.files == 5
    assert [Path(problem.where).stem for problem in report.problems] == ["b", "c", "d", "gone"]
    assert {Path(warning.where).stem for warning in report.warnings} == {"a"}


def test_lint_of_a_path_that_may_not_be_looked_at_tells_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, is_dir = Path.stat, Path.is_dir

    def denied(path: Path, **kwargs: bool) -> os.stat_result:
        if path.name == "x":
            raise PermissionError(13, "Permission denied")
        return stat(path, **kwargs)

    monkeypatch.setattr(Path, "stat", denied)
    # Up to Python 3.13 is_dir raises what stat raised; later it does not.
    monkeypatch.setattr(Path, "is_dir", lambda path: bool(denied(path)) if path.name == "x" else is_dir(path))
    assert [problem.found for problem in lint(tmp_path / "x").problems] == ["Permission denied"]


def test_a_loop_that_resolve_refuses_is_told_by_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = Path.resolve

    def refuse(path: Path, *args: object) -> Path:
        if path.name == "loop":
            raise RuntimeError("Symlink loop")  # as Python 3.11 and 3.12 do
        return resolve(path)

    monkeypatch.setattr(Path, "resolve", refuse)
    assert "No such file" in problems_of(tmp_path / "loop")[0].found
