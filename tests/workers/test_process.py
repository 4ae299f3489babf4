"""What a worker process does for itself before it works."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource
from workers.process import OPEN_FILES, allow_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_open_files()
soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(soft == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)))
allow_open_files()
"""


def test_a_low_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"
