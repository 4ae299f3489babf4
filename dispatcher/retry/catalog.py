"""The schedules of this installation: those shipped, and the operator's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher import datafile
from dispatcher.datafile import DataFile, LintReport, collect, good_files, lint_paths, read_bytes, shipped_dir
from dispatcher.errors import ConfigurationError
from dispatcher.retry.schedule import RetrySchedule
from dispatcher.retry.schedule_file import Reading, all_problems, read_into

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFile(DataFile):
    """A schedule and where it came from."""

    schedule: RetrySchedule


class Catalog(datafile.Catalog[RetrySchedule, ScheduleFile]):
    """Schedules by name, in the order of their names. `files` says where each stands."""

    def __getitem__(self, name: str) -> RetrySchedule:
        return self.files[name].schedule


def shipped_schedules_dir() -> Path:
    """The directory of the schedules that come with this project."""
    return shipped_dir("schedules")


def load_catalog(*directories: Path) -> Catalog:
    """Read every `*.toml` of `directories`, which do not include the shipped one unless it is passed.

    See `dispatcher.datafile.directory.collect` for which are read and which replace others. Raises
    ConfigurationError with every problem of every file.
    """
    found = good_files(collect(directories, _read_file, shipped=shipped_schedules_dir()))
    return Catalog({name: _schedule_file(reading, file) for name, (reading, file) in found.items()})


def load_schedule(path: Path) -> ScheduleFile:
    """Read one file. Raises ConfigurationError with every problem in it."""
    reading = _read_file(path)
    if reading.problems:
        raise ConfigurationError(all_problems([reading]))
    return _schedule_file(reading, DataFile(path=path, warnings=tuple(reading.warnings)))


def lint(*paths: Path) -> LintReport:
    """Look at files, and at all schedules of directories, as `load_catalog` would. Raises nothing."""
    return lint_paths(paths, _read_file, shipped=shipped_schedules_dir())


def _read_file(path: Path) -> Reading:
    reading = Reading(str(path))
    content = read_bytes(path, reading)
    if content is not None:
        read_into(reading, path.stem, content)
    return reading


def _schedule_file(reading: Reading, file: DataFile) -> ScheduleFile:
    assert reading.schedule is not None
    return ScheduleFile(
        schedule=reading.schedule,
        path=file.path,
        shipped=file.shipped,
        replaces=file.replaces,
        warnings=file.warnings,
    )
