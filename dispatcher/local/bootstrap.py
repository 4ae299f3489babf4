"""The API key of an embedded system, which nobody configured."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from dispatcher.local.files import read_secret, write_secret
from dispatcher.local.paths import default_data_dir, make_data_dir

if TYPE_CHECKING:
    from pathlib import Path


def bootstrap_key(data_dir: Path | None) -> str:
    """An operator's key of 256 random bits: generated once, kept in the 0600 file `api_key` of the data directory."""
    path = make_data_dir(data_dir or default_data_dir()) / "api_key"
    kept = read_secret(path)
    if not kept:
        kept = f"dsk_{secrets.token_urlsafe(32)}"
        write_secret(path, kept)
    return kept
