"""The profiles of this installation: those shipped, and the operator's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dispatcher import datafile
from dispatcher.datafile import (
    DataFile,
    LintReport,
    all_problems,
    collect,
    good_files,
    lint_paths,
    read_bytes,
    shipped_dir,
)
from dispatcher.errors import ConfigurationError
from dispatcher.model.profile import Profile
from dispatcher.profiles.profile_file import Known, Reading, read_into

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile(DataFile):
    """A profile and where it came from."""

    profile: Profile


class Catalog(datafile.Catalog[Profile, ProfileFile]):
    """Profiles by name, in the order of their names. `files` says where each stands."""

    def __getitem__(self, name: str) -> Profile:
        return self.files[name].profile


def shipped_profiles_dir() -> Path:
    """The directory of the profiles that come with this project."""
    return shipped_dir("profiles")


def load_catalog(*directories: Path, known: Known) -> Catalog:
    """Read every `*.toml` of `directories`, which do not include the shipped one unless it is passed.

    See `dispatcher.datafile.directory.collect` for which are read and which replace others. Raises
    ConfigurationError with every problem of every file, a schedule or signature scheme that is not `known` among
    them.
    """
    found = good_files(collect(directories, partial(_read_file, known=known), shipped=shipped_profiles_dir()))
    return Catalog({name: _profile_file(reading, file) for name, (reading, file) in found.items()})


def load_profile(path: Path, *, known: Known) -> ProfileFile:
    """Read one file. Raises ConfigurationError with every problem in it."""
    reading = _read_file(path, known=known)
    if reading.problems:
        raise ConfigurationError(all_problems([reading]))
    return _profile_file(reading, DataFile(path=path, warnings=tuple(reading.warnings)))


def lint(*paths: Path, known: Known) -> LintReport:
    """Look at files, and at all profiles of directories, as `load_catalog` would. Raises nothing."""
    return lint_paths(paths, partial(_read_file, known=known), shipped=shipped_profiles_dir())


def _read_file(path: Path, *, known: Known) -> Reading:
    reading = Reading(str(path))
    content = read_bytes(path, reading)
    if content is not None:
        read_into(reading, path.stem, content, known=known)
    return reading


def _profile_file(reading: Reading, file: DataFile) -> ProfileFile:
    assert reading.profile is not None
    return ProfileFile(
        profile=reading.profile,
        path=file.path,
        shipped=file.shipped,
        replaces=file.replaces,
        warnings=file.warnings,
    )
