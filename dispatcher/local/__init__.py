"""Embedded servers, and the supervisor that keeps one machine's processes running."""

from __future__ import annotations

from dispatcher.local.child import Program
from dispatcher.local.lock import DataDirLock
from dispatcher.local.paths import default_data_dir, make_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.local.stack import Running, Stack, find_running, standard_programs
from dispatcher.local.supervisor import Supervisor, stop_leftovers

__all__ = [
    "DataDirLock",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "Program",
    "Running",
    "Stack",
    "Supervisor",
    "default_data_dir",
    "find_running",
    "make_data_dir",
    "standard_programs",
    "stop_leftovers",
]
