"""When a delivery is attempted again: schedules, and the decision after each outcome. Pure.

The numbers live in data files (`schedules/`, one schedule a file); `load_catalog` reads them and refuses a broken
one with file, line, field, what was found and what is allowed; `decide` turns an outcome into RetryAt or Stop.
"""

from __future__ import annotations

from dispatcher.datafile import LintReport, LintWarning
from dispatcher.model.delivery import RetryAt, Stop
from dispatcher.model.duration import format_duration, parse_duration
from dispatcher.retry.catalog import (
    Catalog,
    ScheduleFile,
    lint,
    load_catalog,
    load_schedule,
    shipped_schedules_dir,
)
from dispatcher.retry.decision import DEFAULT, DecisionRules, decide
from dispatcher.retry.preview import DatedAttempt, PlannedAttempt, ahead, preview
from dispatcher.retry.schedule import RelativeTo, RetrySchedule
from dispatcher.retry.simulate import SimulatedAttempt, Simulation, simulate

__all__ = [
    "DEFAULT",
    "Catalog",
    "DatedAttempt",
    "DecisionRules",
    "LintReport",
    "LintWarning",
    "PlannedAttempt",
    "RelativeTo",
    "RetryAt",
    "RetrySchedule",
    "ScheduleFile",
    "SimulatedAttempt",
    "Simulation",
    "Stop",
    "ahead",
    "decide",
    "format_duration",
    "lint",
    "load_catalog",
    "load_schedule",
    "parse_duration",
    "preview",
    "shipped_schedules_dir",
    "simulate",
]
