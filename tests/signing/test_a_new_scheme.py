"""A scheme is one file and one line: a toy, added to a copy of the sources, is held to the whole conformance suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = """
import hmac
import os

from dispatcher.signing import message
from dispatcher.signing.scheme import TOLERANCE_S, VerificationError


class Toy:
    name = "toy"
    header_names = ("x-toy",)
    key_owner = "endpoint"
    key_kind = None
    signs_with_every_key = True

    def generate_keys(self):
        key = os.urandom(32)
        return key, key

    def sign(self, *, message_id, timestamp, body, keys):
        if not keys:
            raise ValueError("no key to sign with")
        return [(b"x-toy", b" ".join(hmac.digest(key, SIGNED, "sha512").hex().encode() for key in keys))]

    def verify(self, *, headers, body, keys, now, tolerance_s=TOLERANCE_S):
        given = message.read_headers(headers, self.header_names)["x-toy"].split(" ")
        expected = [hmac.digest(key, body, "sha512").hex().encode() for key in keys]
        if not any(hmac.compare_digest(part.encode(), one) for part in given for one in expected):
            raise VerificationError("no_match", "no")


SCHEME = Toy()
"""

JUDGE = """

def toy_judge(key, headers, body):
    if hmac_of(key, body) not in headers["x-toy"].split(" "):
        raise ValueError("no match")


def hmac_of(key, body):
    judge = hmac.HMAC(key, hashes.SHA512())
    judge.update(body)
    return judge.finalize().hex()


JUDGES = {**JUDGES, "toy": (toy_judge,)}
"""


def conformance(copy: Path) -> subprocess.CompletedProcess[str]:
    """Of the toy, in the copy. Not in this process: the suite is parametrised when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/signing/test_conformance.py", "-k", "toy or has_a_foreign", "-q",
         "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider", "--no-header"],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources with their bytecode and the suite, and one line more where the schemes are listed."""
    shutil.copytree(ROOT / "dispatcher", tmp_path / "dispatcher")
    shutil.copytree(ROOT / "tests/signing", tmp_path / "tests/signing")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    listed = tmp_path / "dispatcher/signing/__init__.py"
    text = listed.read_text()
    assert text.count("            # A new scheme:") == 1
    text = text.replace("            # A new scheme:", "            toy.SCHEME,\n            # A new scheme:")
    listed.write_text(text.replace("from dispatcher.signing import ", "from dispatcher.signing import toy, ", 1))
    return tmp_path


def test_a_scheme_in_one_file_and_one_line_is_held_to_the_suite(copy: Path) -> None:
    (copy / "dispatcher/signing/toy.py").write_text(TOY.replace("SIGNED", "body"))
    without_judge = conformance(copy)
    assert "FAILED tests/signing/test_conformance.py::test_every_scheme_has_a_foreign_judge" in without_judge.stdout

    with (copy / "tests/signing/judges.py").open("a") as judges:
        judges.write(JUDGE)
    judged = conformance(copy)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert " passed" in judged.stdout


def test_the_suite_refuses_a_scheme_that_signs_half_of_the_body(copy: Path) -> None:
    (copy / "dispatcher/signing/toy.py").write_text(TOY.replace("SIGNED", "body[: len(body) // 2]"))
    with (copy / "tests/signing/judges.py").open("a") as judges:
        judges.write(JUDGE)
    judged = conformance(copy)
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert "toy-toy_judge" in judged.stdout
