"""Makes each addition that CONTRIBUTING describes on a copy of the checkout, and counts the files that it changes.

    python scripts/additions.py                  # all of them
    python scripts/additions.py scheme outcome   # these

An addition is two patches in examples/additions: NAME.patch changes the product, NAME.tests.patch the tests and
documents. The tests that should notice the addition must fail with the first patch alone, and pass with both. Counted
are the files in dispatcher/ and workers/; each addition has a bar, which it must not exceed. Where a patch no longer
applies, the code has moved: make the addition by hand on a copy, and write its patch anew with `git diff -U1`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

COUNTED: Final = ("dispatcher/", "workers/")
"""Folders whose files are counted, migrations included. Data files, tests and documents are not."""

MIGRATIONS: Final = Path("dispatcher/store/migrations/versions")
_NEXT: Final = "NNNN"
_LAST: Final = "LAST"


@dataclass(frozen=True, slots=True)
class Addition:
    """A kind of addition: `name` is that of its patches, `bar` the most files it may change; `tests` notice it."""

    name: str
    what: str
    bar: int
    tests: tuple[str, ...]

    @property
    def product(self) -> Path:
        """The patch of the product."""
        return ROOT / f"examples/additions/{self.name}.patch"

    @property
    def rest(self) -> Path:
        """The patch of the tests and documents."""
        return ROOT / f"examples/additions/{self.name}.tests.patch"


ADDITIONS: Final = (
    Addition(
        "scheme",
        "a signature scheme",
        2,
        (
            "tests/signing/test_conformance.py",
            "tests/signing/test_signatures_document.py",
            "tests/flow/test_evidence.py",
            "tests/cli/test_signatures.py",
        ),
    ),
    Addition("outcome", "an outcome class", 5, ("tests/test_docs.py", "tests/model", "tests/retry/test_decision.py")),
    Addition(
        "endpoint_field",
        "a field of endpoints",
        6,
        ("tests/api/test_endpoint_profiles.py", "tests/cli/test_endpoints.py", "tests/profiles/test_shipped.py"),
    ),
    Addition(
        "api_resource",
        "a resource of the API, with client and commands",
        11,
        (
            "tests/api/test_isolation.py",
            "tests/client/test_operations.py",
            "tests/cli/test_systems.py",
            "tests/cli/test_startup.py",
            "tests/test_ids.py",
        ),
    ),
)


def changed(patch: Path) -> list[str]:
    """The files that a patch changes, adds or deletes."""
    return re.findall(r"^diff --git a/(\S+) b/", patch.read_text(), re.MULTILINE)


def counted(patch: Path) -> list[str]:
    """Those of them that count."""
    return [path for path in changed(patch) if path.startswith(COUNTED)]


def applies(patch: Path, root: Path = ROOT) -> str:
    """Why a patch does not apply; nothing if it does."""
    return _git_apply(patch, root, "--check").stderr


def apply(patch: Path, root: Path) -> None:
    """Applies a patch to the copy `root`, and numbers its migration. Raises SystemExit if it does not apply."""
    ran = _git_apply(patch, root)
    if ran.returncode:
        raise SystemExit(f"{patch.relative_to(ROOT)} does not apply; make it anew:\n{ran.stderr}")
    numbers = sorted(path.name[:4] for path in (root / MIGRATIONS).glob("[0-9]*.py"))
    for path in (root / MIGRATIONS).glob(f"{_NEXT}_*.py"):
        number = f"{int(numbers[-1]) + 1:04}"
        path.write_text(path.read_text().replace(_NEXT, number).replace(_LAST, numbers[-1]))
        path.rename(path.with_name(path.name.replace(_NEXT, number)))


def _git_apply(patch: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "apply", "--whitespace=nowarn", *options, str(patch)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def copy_of(folder: Path) -> Path:
    """A copy of the checkout's files in `folder`, links included; without environments, caches and results."""
    root = folder / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "results")
    return shutil.copytree(ROOT, root, symlinks=True, ignore=ignored)


def run_tests(root: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs tests of the copy against the copy's own code, in the order in which they are written."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--tb=line", *tests],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def make(addition: Addition, folder: Path) -> bool:
    """Makes an addition on a copy and prints what it took. False if it is above its bar, or the tests disagree."""
    files, others = counted(addition.product), len(changed(addition.product)) - len(counted(addition.product))
    beside = f", and {others} of data" if others else ""
    print(f"{addition.what}: {len(files)} files of at most {addition.bar}{beside}")  # noqa: T201
    for path in files:
        print(f"  {path}")  # noqa: T201
    root = copy_of(folder)
    apply(addition.product, root)
    alone = run_tests(root, addition.tests)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", alone.stdout, re.MULTILINE)
    print(f"  noticed by {len(failed)} tests: {', '.join(failed[:3])}{' …' if len(failed) > 3 else ''}")  # noqa: T201
    apply(addition.rest, root)
    whole = run_tests(root, addition.tests)
    print(f"  with its tests and documents: {whole.stdout.strip().splitlines()[-1]}", flush=True)  # noqa: T201
    if whole.returncode:
        print(whole.stdout + whole.stderr)  # noqa: T201
    return len(files) <= addition.bar and alone.returncode == 1 and bool(failed) and whole.returncode == 0


def main(names: list[str]) -> int:
    """Makes the additions with these names, or all. 1 if one of them is not as it should be."""
    if unknown := set(names) - {addition.name for addition in ADDITIONS}:
        known = ", ".join(addition.name for addition in ADDITIONS)
        raise SystemExit(f"found {', '.join(sorted(unknown))}; allowed: {known}")
    is_well = True
    for addition in ADDITIONS:
        if not names or addition.name in names:
            with tempfile.TemporaryDirectory() as folder:
                is_well &= make(addition, Path(folder))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
