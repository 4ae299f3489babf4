"""How the processes of a benchmark are started: forked from one that has imported their modules already.

An interpreter of their own would take each of them some 0.6 s of CPU to import the same again.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

_PRELOADED: Final = ["bench.bare", "bench.callers", "bench.generator", "bench.receiver"]


def context() -> ForkServerContext:
    """Where pipes and processes come from. The server of the forks has no threads, and ends with this process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found
