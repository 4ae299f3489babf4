"""`python -m bench.flames FOLDER`: flame graphs of a worker on the walk, and of the API under single calls.

Needs py-spy on the PATH (`pip install py-spy`), and the right to trace processes of one's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.callers import Callers
from bench.site import Bench, Options, healthy, site
from bench.system import KEY, System

SECONDS = 8
EVENTS = 80_000
CALLS = 40_000


def record(pid: int, to: Path) -> subprocess.Popen[bytes]:
    """Begins to sample a process for `SECONDS`: the thread that runs, not those that wait."""
    argv = [
        "py-spy",
        "record",
        "--pid",
        str(pid),
        "--duration",
        str(SECONDS),
        "--rate",
        "400",
        "--gil",
        "--output",
        str(to),
    ]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def name(graph: Path, title: str) -> None:
    """Titles the graph, where py-spy wrote its own command."""
    graph.write_text(re.sub(">py-spy record [^<]*<", f">{title}<", graph.read_text()))


def worker(folder: Path) -> None:
    bench = Bench(Options())
    with site(bench, healthy(bench.options.endpoints)) as made:
        made.begin()
        made.generator.start_bulk(EVENTS)
        made.await_posts(EVENTS // 20)
        record(made.system.pids()["worker"][0], folder / "worker.svg").wait()
        name(folder / "worker.svg", "a worker on the walk")
        made.await_posts(EVENTS)
        made.generator.emitted()


def api(folder: Path) -> None:
    options = Options()
    with System(workers=0, api=True) as system:
        tenants, _ = system.add_endpoints([f"http://127.0.0.1:9/{n}" for n in range(options.endpoints)])
        with Callers(system.stack.port, KEY, tenants, payload_bytes=options.payload_bytes) as callers:
            callers.prepare_singles(0, CALLS, keyed=False)
            sampling = record(system.pids()["api"][0], folder / "api.svg")
            callers.post(connections=64)
            sampling.wait()
            name(folder / "api.svg", "the API under single calls")


def main() -> int:
    if shutil.which("py-spy") is None or len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    worker(folder)
    api(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
