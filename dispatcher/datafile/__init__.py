"""Data files: TOML that people write, read so that every error of every file is told at once, with its line. Pure.

What every kind of them has in common: the text (`reading`), the directories (`directory`), the lines (`toml_lines`).
What a kind declares is its own package's: `dispatcher.retry`, `dispatcher.profiles`.
"""

from __future__ import annotations

from dispatcher.datafile.directory import (
    Catalog,
    DataFile,
    LintReport,
    collect,
    good_files,
    lint_paths,
    read_bytes,
    shipped_dir,
    unknown,
)
from dispatcher.datafile.reading import (
    MAX_FILE_BYTES,
    MAX_TEXT_CHARACTERS,
    LintWarning,
    Reading,
    all_problems,
    is_name,
    nearest,
    nearest_name,
    parse,
    refuse_unknown,
    shown,
    shown_key,
    text_of,
)

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_TEXT_CHARACTERS",
    "Catalog",
    "DataFile",
    "LintReport",
    "LintWarning",
    "Reading",
    "all_problems",
    "collect",
    "good_files",
    "is_name",
    "lint_paths",
    "nearest",
    "nearest_name",
    "parse",
    "read_bytes",
    "refuse_unknown",
    "shipped_dir",
    "shown",
    "shown_key",
    "text_of",
    "unknown",
]
