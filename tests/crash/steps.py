"""The named steps of the walk, and how a process is stopped at one.

A step is a place before or after a statement, a commit, a request or a publish. `watch` wraps the product's functions
in the harness's own processes. At a step that the harness has armed, the first process that comes by says so and waits
until it is released, with everything in it standing still: its event loop, its transaction and its locks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

POLL_S = 0.003


@dataclass(frozen=True)
class Statement:
    """A statement of the product by its name: `role` runs it. With `commits`, the commit after it is a step too."""

    name: str
    role: str
    module: str
    attribute: str
    commits: bool = False
    places: tuple[str, ...] = ("before",)


@dataclass(frozen=True)
class Function:
    """A function of the product, or a method, by its name; `role` calls it."""

    name: str
    role: str
    module: str
    path: str
    places: tuple[str, ...] = ("before", "after")


STORE = "dispatcher.store"

STATEMENTS = (
    Statement("claim lock", "worker", f"{STORE}.deliveries", "_LOCK_LANES"),
    Statement("claim", "worker", f"{STORE}.deliveries", "_CLAIM", commits=True),
    Statement("record", "worker", f"{STORE}.deliveries", "_RECORD", places=("before", "after")),
    Statement("heartbeat", "worker", f"{STORE}.workers", "_HEARTBEAT", commits=True),
    Statement("give up", "worker", f"{STORE}.deliveries", "_GIVE_UP", commits=True),
    Statement("demand", "scheduler", f"{STORE}.deliveries", "_DEMAND", places=("before", "after")),
    Statement("lead", "scheduler", f"{STORE}.workers", "_LEAD", commits=True),
    Statement("rescue look", "scheduler", f"{STORE}.deliveries", "_LOST"),
    Statement("rescue", "scheduler", f"{STORE}.deliveries", "_RECORD", commits=True),
    Statement("replay turn", "scheduler", f"{STORE}.replay_endpoints", "_ADVANCE", commits=True),
    Statement("fold take", "scheduler", f"{STORE}.counts", "_TAKE"),
    Statement("fold add", "scheduler", f"{STORE}.counts", "_ADD", commits=True),
    Statement("erase look", "scheduler", f"{STORE}.erasures", "_TAKE"),
    Statement("prune", "scheduler", f"{STORE}.events", "_FORGET"),
    Statement("enqueue", "api", f"{STORE}.events", "_ACCEPT", commits=True),
)
FUNCTIONS = (
    Function("post", "worker", "dispatcher.flow.deliver", "send"),
    Function("bell", "scheduler", "dispatcher.workers.app", "Bell.__call__"),
    Function("partitions", "scheduler", "dispatcher.flow.prune", "make_partition"),
    Function("retention", "scheduler", "dispatcher.flow.retention", "step", places=("before",)),
    Function("wake-up publish", "api", "dispatcher.wakeup", "Wakeup._connect"),
    Function("answer", "api", "dispatcher.api.ingest", "Ingest.accept", places=("after",)),
)
RETURNS_WHAT_IS_CALLED = ("wake-up publish",)
"""Of these it is what they return that does it."""

COMMIT_PLACES = ("before commit", "after commit")


@dataclass(frozen=True)
class Step:
    """A place at which a process can be stopped."""

    name: str
    role: str

    @property
    def file(self) -> str:
        return self.name.replace(" ", "_").replace(":", "")


def _steps() -> list[Step]:
    found = []
    for one in STATEMENTS:
        places = one.places + (COMMIT_PLACES if one.commits else ())
        found += [Step(f"{one.name}: {place}", one.role) for place in places]
    found += [Step(f"{one.name}: {place}", one.role) for one in FUNCTIONS for place in one.places]
    return sorted(found, key=lambda step: (["worker", "scheduler", "api"].index(step.role), step.name))


STEPS: list[Step] = _steps()


# --- in the process


def watch(directory: Path, role: str) -> None:
    """Wraps what this role runs, and hastens the duties that are due once a minute."""

    def reach(name: str) -> None:
        file = Step(name, role).file
        hit = directory / f"{file}.hit"
        try:
            (directory / f"{file}.armed").rename(directory / f"{file}.taken")
        except FileNotFoundError:
            return
        hit.write_text(str(os.getpid()))
        while hit.exists():
            time.sleep(POLL_S)

    statements = {
        id(getattr(importlib.import_module(one.module), one.attribute)): one for one in STATEMENTS if one.role == role
    }
    _watch_statements(statements, reach)
    for function in FUNCTIONS:
        if function.role == role:
            _watch_function(function, reach)
    if role == "scheduler":
        scheduler = importlib.import_module("dispatcher.workers.scheduler")
        scheduler.PRUNE_EVERY_S, scheduler.FOLD_EVERY_S = 2.0, 1.0  # type: ignore[attr-defined]


def _watch_statements(statements: dict[int, Statement], reach: Callable[[str], None]) -> None:
    last: dict[int, Statement] = {}
    """The last named statement of a driver's connection, which its commit belongs to."""

    @event.listens_for(Engine, "before_execute")
    def before(connection: Any, clause: Any, *_: Any) -> None:
        one = statements.get(id(clause))
        if one is not None:
            if one.commits:
                last[id(connection.connection.dbapi_connection)] = one
            if "before" in one.places:
                reach(f"{one.name}: before")

    @event.listens_for(Engine, "after_execute")
    def after(connection: Any, clause: Any, *_: Any) -> None:
        one = statements.get(id(clause))
        if one is not None and "after" in one.places:
            reach(f"{one.name}: after")

    do_commit: Callable[[DefaultDialect, Any], None] = DefaultDialect.do_commit

    def commit(self: DefaultDialect, connection: Any) -> None:
        one = last.pop(id(getattr(connection, "dbapi_connection", connection)), None)
        if one is None:
            do_commit(self, connection)
            return
        reach(f"{one.name}: before commit")
        do_commit(self, connection)
        reach(f"{one.name}: after commit")

    DefaultDialect.do_commit = commit  # type: ignore[method-assign]


def _watch_function(function: Function, reach: Callable[[str], None]) -> None:
    *owners, name = function.path.split(".")
    owner: Any = importlib.import_module(function.module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, wrapped(getattr(owner, name), function, reach))


def wrapped(original: Any, function: Function, reach: Callable[[str], None]) -> Any:
    """The function, which reaches its steps before and after it is run."""

    def come(place: str) -> None:
        if place in function.places:
            reach(f"{function.name}: {place}")

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def awaited(*args: Any, **values: Any) -> Any:
            come("before")
            found = await original(*args, **values)
            come("after")
            return found

        return awaited

    @functools.wraps(original)
    def called(*args: Any, **values: Any) -> Any:
        if function.name in RETURNS_WHAT_IS_CALLED:
            inner = Function(function.name + " ", *(function.role, function.module, function.path, function.places))
            return wrapped(original(*args, **values), inner, lambda name: reach(name.replace(" :", ":")))
        come("before")
        found = original(*args, **values)
        come("after")
        return found

    return called


# --- in the harness


class Control:
    """Stops processes at steps, from the harness."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def arm(self, step: Step) -> None:
        (self.directory / f"{step.file}.armed").touch()

    def hit(self, step: Step) -> int | None:
        """The number of the process that waits at the step."""
        try:
            return int((self.directory / f"{step.file}.hit").read_text() or 0) or None
        except FileNotFoundError:
            return None

    def release(self, step: Step) -> None:
        """Lets the process go on, or the step be as if it had not been armed."""
        for ending in ("armed", "taken", "hit"):
            (self.directory / f"{step.file}.{ending}").unlink(missing_ok=True)
