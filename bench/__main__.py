"""`python -m bench [NAME …]`: runs the standard benchmarks, or the named ones, and writes and prints the figures."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import accounting, report
from bench.site import TINY, Bench, Options
from bench.workloads import WORKLOADS, run, selected


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="the same as NAME")
    parser.add_argument("--runs", type=int, help="runs of each workload, of which the median counts (2)")
    parser.add_argument("--workers", type=int, help="worker processes (one a core)")
    parser.add_argument("-n", type=int, help="events of the walk (100,000)")
    parser.add_argument("--tiny", action="store_true", help="a small run that shows that it works; nothing is written")
    parser.add_argument("--markdown", action="store_true", help="print the latest figures as a table, and end")
    found = parser.parse_args()
    found.names += found.only
    for name in found.names:
        if name not in WORKLOADS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(WORKLOADS)}")
    return found


def main() -> int:
    asked = _arguments()
    if asked.markdown:
        print(report.markdown(report.read_latest()))
        return 0
    # What is measured is the system as it is shipped, on servers of its own.
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        del os.environ[name]
    options = TINY if asked.tiny else Options()
    given = {"runs": asked.runs, "workers": asked.workers, "walk": asked.n}
    options = replace(options, **{name: value for name, value in given.items() if value is not None})
    bench = Bench(options)
    console = Console()
    console.width = max(console.width, 150 if not console.is_terminal else 0)
    if not accounting.HAS_PROC:
        console.print("CPU and memory figures need Linux; the others follow.")
    about = report.environment()
    started_s = time.monotonic()
    chosen = selected(asked.names)
    with Progress(
        TextColumn("{task.description:<13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=report.stderr_console(),
        refresh_per_second=2,  # the bar runs on the cores that are measured
    ) as progress:
        for workload in chosen:
            task = progress.add_task(workload.name, total=None)

            def tell(done: int, total: int, task: object = task) -> None:
                progress.update(task, completed=done, total=total)  # type: ignore[arg-type]

            bench.progress = tell
            runs = run(workload, bench, options.runs)
            progress.update(task, completed=1, total=1)
            about |= bench.environment
            if not asked.tiny:
                prefixes = (f"{workload.name}.", f"{workload.name}_")
                own = {key: value for key, value in bench.figures.items() if key.startswith(prefixes)}
                report.write_run(workload.name, runs, own, about, bench.details)
    if not asked.tiny:
        report.merge_latest([workload.name for workload in chosen], bench.figures, about)
    report.show(bench.figures, about, console)
    wrong = [key for key in bench.figures if key.endswith((".lost", ".unrecorded")) and bench.figures[key]]
    console.print(
        f"{time.monotonic() - started_s:.0f} s", *(f"[red]{key}={bench.figures[key]:.0f}[/red]" for key in wrong)
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
