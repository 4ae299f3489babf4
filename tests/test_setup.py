"""`scripts/setup.sh` and the Makefile: which interpreter is taken, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FAKE = """#!/bin/sh
echo "$0" >>"{log}"
case "$2" in *version_info*) sleep {wait}; exit {code};; esac
"""
"""Takes any question about itself for answered, and everything else for done."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the script, and `bin` with the only interpreters that are found."""
    for folder in ("scripts", "tests", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts/setup.sh", tmp_path / "scripts")
    for name in ("requirements.lock", "tests/requirements-sqlalchemy20.txt", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    # Every interpreter that this machine has is hidden behind one that does not fit.
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3"):
        interpreter(tmp_path, name, fits=False)
    return tmp_path


def interpreter(checkout: Path, name: str, *, fits: bool = True, wait: float = 0) -> Path:
    path = checkout / "bin" / name
    path.write_text(FAKE.format(log=checkout / "log", code=0 if fits else 1, wait=wait))
    path.chmod(0o755)
    return path


def setup(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Where SIGPIPE is ignored, as in a child of Python or of a service manager."""
    (checkout / "log").write_text("")
    return subprocess.run(
        ["sh", "scripts/setup.sh", *arguments],
        cwd=checkout,
        env={"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        restore_signals=False,
    )


def used(checkout: Path) -> str:
    """The interpreter that the work was given to: the last one that was run."""
    return Path((checkout / "log").read_text().splitlines()[-1]).name


def test_the_newest_is_taken_and_nothing_is_said_where_sigpipe_is_ignored(checkout: Path) -> None:
    for name in ("python3.14", "python3.13", "python3.12"):
        interpreter(checkout, name, wait=0.1)  # so that whoever reads the first line only is gone by the next
    done = setup(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert used(checkout) == "python3.14"


def test_the_one_that_is_named_is_taken(checkout: Path) -> None:
    for name in ("python3.14", "python3.12"):
        interpreter(checkout, name)
    assert setup(checkout, "python3.12").returncode == 0
    assert used(checkout) == "python3.12"
    own = interpreter(checkout, "mine")
    assert setup(checkout, str(own)).returncode == 0
    assert used(checkout) == "mine"


def test_one_that_does_not_fit_is_refused_by_its_name(checkout: Path) -> None:
    interpreter(checkout, "python3.14")
    for name in ("python3.11", "python3.99"):
        done = setup(checkout, name)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{name} is not a Python that runs here; allowed: 3.11, 3.12, 3.13 or 3.14")


def test_without_any_it_says_what_to_install(checkout: Path) -> None:
    done = setup(checkout)
    assert done.returncode == 1
    assert done.stderr.startswith("Install Python 3.11, 3.12, 3.13 or 3.14")


@pytest.mark.parametrize(
    ("python", "environment"),
    [("", ".venv"), ("python3.13", ".venv-python3.13"), ("/opt/python/bin/python3.12", ".venv-python3.12")],
)
def test_make_sets_up_and_uses_an_environment_for_each_interpreter(python: str, environment: str) -> None:
    # Of the make that runs the tests, nothing is passed on: it would have this one say which directory it enters.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "-n", "test", f"PYTHON={python}", "ARGS="]
    shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0].rstrip() == f"sh scripts/setup.sh {python}".rstrip()
    assert shown[-1].startswith(f"{environment}/bin/python -m pytest")
