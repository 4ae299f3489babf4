"""`python -m tests.crash.process api|worker|scheduler|up`: a process of the product, with what a test has put into it.

CRASH_BUG names a seeded bug (`tests.crash.bugs`), CRASH_STEPS the directory by which the harness stops the process at a
step (`tests.crash.steps`). `up` starts such processes in its turn. The product knows nothing of any of it: its
functions are wrapped here, before it starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dispatcher.cli import main
from dispatcher.local import stack
from dispatcher.local.child import Program


def wrap(programs: Sequence[Program]) -> list[Program]:
    """The same, each started by this module."""
    wrapped = [sys.executable, "-m", "tests.crash.process"]
    return [replace(program, argv=[*wrapped, program.argv[-1]]) for program in programs]


def _wrap_children() -> None:
    standard = stack.standard_programs

    def programs(*args: Any, **values: Any) -> list[Program]:
        return wrap(standard(*args, **values))

    stack.standard_programs = programs


if __name__ == "__main__":
    if name := os.environ.get("CRASH_BUG"):
        from tests.crash.bugs import BUGS

        BUGS[name].plant()
    if sys.argv[1] == "up":
        _wrap_children()
    elif directory := os.environ.get("CRASH_STEPS"):
        from tests.crash.steps import watch

        watch(Path(directory), sys.argv[1])
    main()
