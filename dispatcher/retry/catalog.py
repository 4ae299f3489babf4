"""The schedules of this installation: those shipped, and the operator's own."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Final

from dispatcher.errors import ConfigurationError, NotFound, Problem
from dispatcher.retry.schedule import RetrySchedule
from dispatcher.retry.schedule_file import MAX_FILE_BYTES, LintWarning, Reading, all_problems, read_schedule

_PACKAGE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class ScheduleFile:
    """A schedule and where it came from. `replaces` is the shipped file that this one stands in for."""

    schedule: RetrySchedule
    path: Path
    shipped: bool = False
    replaces: Path | None = None
    warnings: tuple[LintWarning, ...] = ()


class Catalog(Mapping[str, RetrySchedule]):
    """Schedules by name, in the order of their names. `files` says where each stands."""

    def __init__(self, files: Mapping[str, ScheduleFile]) -> None:
        self.files: Mapping[str, ScheduleFile] = MappingProxyType(dict(sorted(files.items())))

    def __getitem__(self, name: str) -> RetrySchedule:
        return self.files[name].schedule

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def named(self, name: str) -> ScheduleFile:
        """The file of schedule `name`. Raises NotFound, which tells the nearest name."""
        if name in self.files:
            return self.files[name]
        near = get_close_matches(name, self.files, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self.files) or 'none'}"
        raise NotFound(f"no schedule {name[:80]!r}; {hint}")

    @property
    def warnings(self) -> tuple[LintWarning, ...]:
        """What is doubtful in any file."""
        return tuple(warning for file in self.files.values() for warning in file.warnings)


def shipped_schedules_dir() -> Path:
    """The directory of the schedules that come with this project: in a wheel inside the package, else at the top."""
    inside = _PACKAGE / "data" / "schedules"
    return inside if inside.is_dir() else _PACKAGE.parent / "schedules"


def load_catalog(*directories: Path) -> Catalog:
    """Read every `*.toml` of `directories`, which do not include the shipped one unless it is passed.

    A file of the operator's replaces a shipped one of the same name; the same name in two other directories is
    refused, since nobody would know which counts. Names that start with a dot are left out (editors and mounted
    volumes keep things there). Raises ConfigurationError with every problem of every file.
    """
    files, readings = _collect(directories)
    if problems := tuple(all_problems(readings)):
        raise ConfigurationError(problems)
    return Catalog(files)


def load_schedule(path: Path) -> ScheduleFile:
    """Read one file. Raises ConfigurationError with every problem in it."""
    reading = _read_file(path)
    if reading.schedule is None:
        raise ConfigurationError(all_problems([reading]))
    return ScheduleFile(reading.schedule, path, warnings=tuple(reading.warnings))


@dataclass(frozen=True, slots=True)
class LintReport:
    """What `lint` found in `files` files."""

    files: int
    problems: tuple[Problem, ...]
    warnings: tuple[LintWarning, ...]


def lint(*paths: Path) -> LintReport:
    """Look at files, and at all schedules of directories, as `load_catalog` would. Raises nothing."""
    files = [path for path in paths if path.suffix.lower() == ".toml" or not _is_dir(path)]
    _, readings = _collect(path for path in paths if path not in files)
    readings += [_read_file(path) for path in files]
    warnings = tuple(warning for reading in readings for warning in reading.warnings)
    return LintReport(len(readings), tuple(all_problems(readings)), warnings)


def _collect(directories: Iterable[Path]) -> tuple[dict[str, ScheduleFile], list[Reading]]:
    """The good files by name, and what came of reading each."""
    readings: list[Reading] = []
    files: dict[str, ScheduleFile] = {}
    shipped_dir = shipped_schedules_dir().resolve()
    distinct = {_resolved(directory): directory for directory in directories}
    # The shipped ones first, wherever they were passed, so that the others find what they replace.
    for resolved, directory in sorted(distinct.items(), key=lambda item: item[0] != shipped_dir):
        for path in _schedule_paths(directory, readings):
            reading = _read_file(path)
            readings.append(reading)
            if (schedule := reading.schedule) is None:
                continue
            before = files.get(schedule.name)
            if before is not None and not before.shipped:
                reading.refuse("", f"the name {schedule.name!r} again", f"names not in {before.path} already")
                continue
            files[schedule.name] = ScheduleFile(
                schedule,
                path,
                shipped=resolved == shipped_dir,
                replaces=before.path if before else None,
                warnings=tuple(reading.warnings),
            )
    return files, readings


def _schedule_paths(directory: Path, readings: list[Reading]) -> list[Path]:
    """The directory's schedule files, sorted; a directory that cannot be listed becomes a problem."""
    try:
        return sorted(
            path
            for path in directory.iterdir()
            # Whatever the case: a README.TOML left out silently would be a schedule missed.
            if path.suffix.lower() == ".toml" and not path.name.startswith(".")
        )
    except OSError as error:
        readings.append(_unreadable(directory, error, "a directory that can be read"))
        return []


def _read_file(path: Path) -> Reading:
    try:
        # Checked before opening: to open a pipe waits for its writer, for ever.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return _refused(path, "a directory" if stat.S_ISDIR(mode) else "no regular file", "a file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return _unreadable(path, error, "a file that can be read")
    if path.suffix != ".toml":
        return _refused(path, f"the suffix {path.suffix!a}", ".toml")
    return read_schedule(path.stem, content, where=str(path))


def _refused(path: Path, found: str, allowed: str) -> Reading:
    return Reading(str(path), problems=[Problem(str(path), "", found, allowed)])


def _unreadable(path: Path, error: OSError, allowed: str) -> Reading:
    return _refused(path, error.strerror or str(error), allowed)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above that may not be searched; reading the path says so
        return False


def _resolved(directory: Path) -> Path:
    try:
        return directory.resolve()
    except (OSError, RuntimeError):  # a loop of symbolic links; listing it says so
        return directory
