"""The keyring of an embedded system, which nobody configured."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from dispatcher.local.files import read_secret, write_secret

if TYPE_CHECKING:
    from pathlib import Path


def secret_keys(data_dir: Path) -> str:
    """Return the value for DISPATCHER_SECRET_KEYS: `<id>:<base64 of 32 bytes>`, comma-separated, the first active.

    It is generated once and kept in the 0600 file `secret_keys`: without it, what was sealed cannot be opened.
    """
    path = data_dir / "secret_keys"
    kept = read_secret(path)
    if not kept:
        kept = f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"
        write_secret(path, kept)
    return kept
