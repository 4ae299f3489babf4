"""Fresh environments of chosen distributions, linked from the environment of the tests: no network, no copies."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

OURS = "dispatcher-webhooks"
"""The distribution of this checkout."""

PACKAGE = Path(__file__).resolve().parents[2] / "dispatcher"
"""What it installs."""


def canonical(name: str) -> str:
    """The name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(name: str, extras: Iterable[str] = ()) -> set[str]:
    """A distribution, and everything that it needs here with these extras, by the metadata of what is installed."""
    needed: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = [(canonical(name), frozenset(extras))]
    while pending:
        distribution = pending.pop()
        if distribution in seen:
            continue
        seen.add(distribution)
        name, chosen = distribution
        needed.add(name)
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen or {""}):
                pending.append((canonical(requirement.name), frozenset(requirement.extras)))
    return needed


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment without pip."""

    path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """The folder that distributions are installed into."""
        (found,) = self.path.glob("lib/python*/site-packages")
        return found

    def install(self, *arguments: str | Path) -> None:
        """Installs by pip, from this machine only; what is built is built with this environment's hatchling."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python)]
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
        done = subprocess.run(
            [*pip, "install", *options, *arguments], cwd=self.path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs its interpreter, in its own folder unless told otherwise."""
        # The checkout's path may stand in PYTHONPATH, and would hide what is installed; -E leaves that out.
        return subprocess.run(
            [str(self.python), "-E", *arguments], cwd=cwd or self.path, capture_output=True, text=True, check=False
        )


def make_environment(path: Path, distributions: Iterable[str]) -> Environment:
    """An environment with these distributions and no others."""
    venv.EnvBuilder(symlinks=True).create(path)
    environment = Environment(path)
    for name in distributions:
        if name == OURS:  # whose files are in the checkout
            (environment.site_packages / PACKAGE.name).symlink_to(PACKAGE)
            continue
        files = importlib.metadata.files(name)
        assert files, name
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = environment.site_packages / top
            if not link.exists():
                link.symlink_to(Path(str(files[0].locate())).parents[len(files[0].parts) - 1] / top)
    return environment
