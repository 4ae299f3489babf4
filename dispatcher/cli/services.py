"""`dispatcher api | worker | scheduler`: one process each. Each imports what it consists of, and nothing else."""

from __future__ import annotations

import sys

import click


@click.command()
def api() -> None:
    """Run the HTTP API."""
    # FastAPI asks of each type whether it is one of pydantic 1, and imports that only to ask: a tenth of a second, and
    # 20 modules. With this entry the import fails, which FastAPI takes for a pydantic without it.
    sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]
    from dispatcher.api import serve

    serve.main()


@click.command()
def worker() -> None:
    """Run a worker process.

    It is a process of Celery, which attempts deliveries. Several may run, on one machine or many.
    """
    from dispatcher.workers import process

    process.main()


@click.command()
def scheduler() -> None:
    """Run a scheduler process.

    It rescues, replays and prunes. Several may run; one of them works at a time.
    """
    from dispatcher.workers import scheduler as workers_scheduler

    workers_scheduler.main()
