"""The additions that CONTRIBUTING describes apply to this checkout, and change as few files as they may.

`make additions` makes them on copies and runs the tests that should notice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts import additions
from scripts.additions import ADDITIONS, Addition

ROOT = Path(__file__).parents[1]

each_addition = pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.name)


@pytest.fixture(autouse=True)
def git() -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")


@each_addition
def test_its_patches_apply_to_this_checkout(addition: Addition) -> None:
    for patch in (addition.product, addition.rest):
        assert additions.applies(patch) == "", f"{patch.name}: the code has moved; see scripts/additions.py"


@each_addition
def test_it_changes_no_more_files_than_its_bar(addition: Addition) -> None:
    files = additions.counted(addition.product)
    assert 0 < len(files) <= addition.bar, files
    assert additions.counted(addition.rest) == [], "a change of the product belongs into the first patch"


@each_addition
def test_the_tests_that_should_notice_it_are_there(addition: Addition) -> None:
    assert all((ROOT / path).exists() for path in addition.tests)


@each_addition
def test_contributing_has_its_patch_its_count_and_its_bar(addition: Addition) -> None:
    count = len(additions.counted(addition.product))
    link = f"[`{addition.name}`](examples/additions/{addition.name}.patch)"
    row = f"| {link} | {addition.what} | {count} | {addition.bar} |"
    assert row in (ROOT / "CONTRIBUTING.md").read_text().splitlines()


def test_every_patch_is_of_an_addition() -> None:
    patches = {path for addition in ADDITIONS for path in (addition.product, addition.rest)}
    assert set((ROOT / "examples/additions").iterdir()) == patches


def test_a_patch_for_code_that_has_moved_is_told(tmp_path: Path) -> None:
    patch = tmp_path / "moved.patch"
    patch.write_text(
        "diff --git a/README.md b/README.md\n--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-no such line\n+another\n"
    )
    assert "patch failed: README.md" in additions.applies(patch)


def test_a_migration_gets_the_next_number(tmp_path: Path) -> None:
    folder = tmp_path / additions.MIGRATIONS
    folder.mkdir(parents=True)
    (folder / "0041_before.py").write_text("")
    patch = tmp_path / "migration.patch"
    name = additions.MIGRATIONS / "NNNN_it.py"
    patch.write_text(
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,2 @@\n"
        '+revision = "NNNN"\n+down_revision = "LAST"\n'
    )
    additions.apply(patch, tmp_path)
    assert (folder / "0042_it.py").read_text() == 'revision = "0042"\ndown_revision = "0041"\n'
