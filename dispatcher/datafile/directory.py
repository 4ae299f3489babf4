"""The data files of an installation: those shipped, and the operator's own."""

from __future__ import annotations

import stat
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from dispatcher.datafile.reading import MAX_FILE_BYTES, LintWarning, Reading, all_problems, nearest_name
from dispatcher.errors import ConfigurationError, NotFound, Problem

_PACKAGE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """Where a declaration came from. `replaces` is the shipped file that this one stands in for."""

    path: Path
    shipped: bool = False
    replaces: Path | None = None
    warnings: tuple[LintWarning, ...] = ()


V = TypeVar("V")
F = TypeVar("F", bound=DataFile)
R = TypeVar("R", bound=Reading)


class Catalog(Mapping[str, V], Generic[V, F]):
    """Declarations by name, in the order of their names. `files` says where each stands."""

    def __init__(self, files: Mapping[str, F]) -> None:
        self.files: Mapping[str, F] = MappingProxyType(dict(sorted(files.items())))

    @abstractmethod
    def __getitem__(self, name: str) -> V: ...

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def warnings(self) -> tuple[LintWarning, ...]:
        """What is doubtful in any file."""
        return tuple(warning for file in self.files.values() for warning in file.warnings)


def unknown(noun: str, name: str, known: Collection[str]) -> NotFound:
    """The error for a name that is not known, which tells the nearest one.

    >>> str(unknown("schedule", "standrad", ["exponential", "standard"]))
    "no schedule 'standrad'; did you mean standard?"
    """
    near = nearest_name(name, known)
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(known) or 'none'}"
    return NotFound(f"no {noun} {name[:80]!r}; {hint}")


@dataclass(frozen=True, slots=True)
class LintReport:
    """What a look at `files` files found."""

    files: int
    problems: tuple[Problem, ...]
    warnings: tuple[LintWarning, ...]


@dataclass(frozen=True, slots=True)
class Collected(Generic[R]):
    """What came of reading everything: the good files by name, and every reading, those of directories too."""

    files: dict[str, tuple[R, DataFile]] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)


def shipped_dir(kind: str) -> Path:
    """The directory of the `kind` that comes with this project, in a checkout through a link."""
    return _PACKAGE / "data" / kind


def collect(directories: Iterable[Path], read: Callable[[Path], R], *, shipped: Path) -> Collected[R]:
    """Read every `*.toml` of `directories` by `read`; `shipped` is which of them, if any, is the project's own.

    A file of the operator's replaces a shipped one of the same name; the same name in two other directories is
    refused, since nobody would know which counts. Names that start with a dot are left out (editors and mounted
    volumes keep things there). Raises nothing.
    """
    collected: Collected[R] = Collected()
    shipped = shipped.resolve()
    distinct = {_resolved(directory): directory for directory in directories}
    # The shipped ones first, wherever they were passed, so that the others find what they replace.
    for resolved, directory in sorted(distinct.items(), key=lambda item: item[0] != shipped):
        for path in _paths(directory, collected.readings):
            reading = read(path)
            collected.readings.append(reading)
            if reading.problems:
                continue
            _, before = collected.files.get(path.stem, (None, None))
            if before is not None and not before.shipped:
                reading.refuse("", f"the name {path.stem!r} again", f"names not in {before.path} already")
                continue
            file = DataFile(
                path=path,
                shipped=resolved == shipped,
                replaces=before.path if before else None,
                warnings=tuple(reading.warnings),
            )
            collected.files[path.stem] = (reading, file)
    return collected


def good_files(collected: Collected[R]) -> dict[str, tuple[R, DataFile]]:
    """What was collected, if all of it is good. Raises ConfigurationError with every problem of every file."""
    if problems := tuple(all_problems(collected.readings)):
        raise ConfigurationError(problems)
    return collected.files


def lint_paths(paths: Iterable[Path], read: Callable[[Path], R], *, shipped: Path) -> LintReport:
    """Look at files, and at everything in directories, as loading would. Raises nothing."""
    paths = list(paths)
    files = [path for path in paths if path.suffix.lower() == ".toml" or not _is_dir(path)]
    readings = collect((path for path in paths if path not in files), read, shipped=shipped).readings
    readings += [read(path) for path in files]
    warnings = tuple(warning for reading in readings for warning in reading.warnings)
    return LintReport(len(readings), tuple(all_problems(readings)), warnings)


def read_bytes(path: Path, reading: Reading) -> bytes | None:
    """The file's bytes, one more than allowed at most; None after refusing it on `reading`."""
    try:
        # Checked before opening: to open a pipe waits for its writer, for ever.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            reading.refuse("", "a directory" if stat.S_ISDIR(mode) else "no regular file", "a file")
            return None
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reading.refuse("", error.strerror or str(error), "a file that can be read")
        return None
    if path.suffix != ".toml":
        reading.refuse("", f"the suffix {path.suffix!a}", ".toml")
        return None
    return content


def _paths(directory: Path, readings: list[Reading]) -> list[Path]:
    """The directory's data files, sorted; a directory that cannot be listed becomes a problem."""
    try:
        return sorted(
            path
            for path in directory.iterdir()
            # Whatever the case: a README.TOML left out silently would be a file missed.
            if path.suffix.lower() == ".toml" and not path.name.startswith(".")
        )
    except OSError as error:
        reading = Reading(str(directory))
        reading.refuse("", error.strerror or str(error), "a directory that can be read")
        readings.append(reading)
        return []


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
