"""A scheme is one file and one line: the one of examples/additions is held to the whole conformance suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import additions

ROOT = Path(__file__).resolve().parents[2]
(SCHEME,) = (addition for addition in additions.ADDITIONS if addition.name == "scheme")


def conformance(copy: Path) -> subprocess.CompletedProcess[str]:
    """Of the new scheme, in the copy. Not in this process: the suite is parametrised when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/signing/test_conformance.py", "-k", "hmac_sha512 or has_a_foreign",
         "-q", "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider", "--no-header"],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources with their bytecode, the suite, and the new scheme without a judge."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    shutil.copytree(ROOT / "dispatcher", tmp_path / "dispatcher")
    shutil.copytree(ROOT / "tests/signing", tmp_path / "tests/signing")
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/signatures.md", tmp_path / "docs")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    additions.apply(SCHEME.product, tmp_path)
    return tmp_path


def test_a_scheme_in_one_file_and_one_line_is_held_to_the_suite(copy: Path) -> None:
    without_judge = conformance(copy)
    assert "FAILED tests/signing/test_conformance.py::test_every_scheme_has_a_foreign_judge" in without_judge.stdout

    additions.apply(SCHEME.rest, copy)
    judged = conformance(copy)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert " passed" in judged.stdout


def test_the_suite_refuses_a_scheme_that_signs_half_of_the_body(copy: Path) -> None:
    scheme = copy / "dispatcher/signing/hmac_sha512.py"
    text = scheme.read_text()
    assert text.count("hmac.digest(key, body, ") == 2
    scheme.write_text(text.replace("hmac.digest(key, body, ", "hmac.digest(key, body[: len(body) // 2], "))
    additions.apply(SCHEME.rest, copy)
    judged = conformance(copy)
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert "hmac_sha512-sha512_by_hand" in judged.stdout
