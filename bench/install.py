"""What a producer, the client and the server have installed, and the CPU that their imports take.

Each import runs in an environment that holds only what its extras install, so that no library finds, and imports, what
would not be there. An interpreter that imports nothing is subtracted. No server, no database.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.site import Bench, Figures
from tests.support.environments import OURS, PACKAGE, make_environment, needs

ROUNDS = 7
TINY_ROUNDS = 1


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed with `extras`, and the imports to measure there, by name."""

    name: str
    extras: tuple[str, ...]
    imports: dict[str, str]


INSTALLATIONS = (
    Installation(
        "producer",
        (),
        {"emit": "import dispatcher; dispatcher.emit, dispatcher.Event", "client": "import dispatcher.client"},
    ),
    Installation(
        "server",
        ("server",),
        {
            "api": "import dispatcher.api.app, dispatcher.api.serve",
            "worker": "import dispatcher.workers.process",
            "scheduler": "import dispatcher.workers.scheduler",
        },
    ),
    Installation("embedded", ("embedded",), {}),
)


def install(bench: Bench) -> Figures:
    rounds = ROUNDS if bench.options.durable else TINY_ROUNDS
    figures: Figures = {}
    done, total = 0, rounds * sum(len(installation.imports) for installation in INSTALLATIONS)
    with tempfile.TemporaryDirectory() as folder:
        for installation in INSTALLATIONS:
            distributions = needs(OURS, installation.extras)
            bench.details[installation.name] = {name: size_of(name) for name in sorted(distributions)}
            figures[f"{installation.name}_distributions"] = len(distributions)
            figures[f"{installation.name}_megabytes"] = sum(map(size_of, distributions)) / 1e6
            if not installation.imports:
                continue
            python = make_environment(Path(folder) / installation.name, distributions).python
            cpu_ms: dict[str, list[float]] = {name: [] for name in ("bare", *installation.imports)}
            run_cpu_ms(python, "; ".join(installation.imports.values()))  # writes the bytecode
            for _ in range(rounds):
                for name, code in {"bare": "", **installation.imports}.items():
                    cpu_ms[name].append(run_cpu_ms(python, code))
                done += len(installation.imports)
                bench.progress(done, total)
            # The least: an import does the same each time, and whatever else runs on the machine only adds to it.
            bare = min(cpu_ms.pop("bare"))
            figures |= {f"{name}_import_cpu_ms": min(times) - bare for name, times in cpu_ms.items()}
    return figures


def size_of(name: str) -> int:
    """Bytes of a distribution's files as they are installed, bytecode left out."""
    if name == OURS:
        paths = [Path(folder) / file for folder, _, files in os.walk(PACKAGE, followlinks=True) for file in files]
    else:
        paths = [Path(str(file.locate())) for file in importlib.metadata.files(name) or ()]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def run_cpu_ms(python: Path, code: str) -> float:
    """User and system time of an interpreter that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(python), "-E", "-c", code], cwd=python.parent, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000
