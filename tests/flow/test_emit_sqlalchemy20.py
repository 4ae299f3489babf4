"""Producers on SQLAlchemy 2.0, which is installed beside the 2.1 of everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASIDE = Path(sys.prefix) / "sqlalchemy20"

PROGRAM = """
import sys, pytest, sqlalchemy
assert sqlalchemy.__version__.startswith("2.0."), sqlalchemy.__version__
FILES = ["tests/flow/test_emit_sessions.py", "tests/flow/test_emit_connections.py"]
sys.exit(pytest.main(["-q", "-p", "no:randomly", "-p", "no:xdist", *FILES]))
"""


@pytest.mark.skipif(not ASIDE.is_dir(), reason=f"no SQLAlchemy 2.0 in {ASIDE}: scripts/setup.sh installs it")
def test_every_way_to_emit_works_on_sqlalchemy_2_0() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ASIDE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout
    assert "skipped" not in ended.stdout
