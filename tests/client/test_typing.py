"""mypy knows what both clients take and answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".mypy_cache" / "typed"  # beside those of other settings


def test_mypy_knows_the_results_of_both_clients_and_finds_mistakes(tmp_path: Path) -> None:
    """The file's own `type: ignore` comments name each mistake; one that mypy does not see is an error."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\npython_version = 3.11\n")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", CACHE, HERE / "typed.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
