"""What is about to go, written to a file first: a JSON object a line, compressed, whole or not there."""

from __future__ import annotations

import gzip
import os
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows, for the owner's eyes only, under a temporary name that becomes `path` once they are on the
    disk; how many there were. Raises ClickException where that cannot be done, or something is there already.
    """
    if path.exists():
        raise click.ClickException(f"{path} is there already; nothing was changed")
    count = 0
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        with open(handle, "wb") as file:  # noqa: PTH123 - it is open
            with gzip.GzipFile(fileobj=file, mode="wb", filename="") as compressed:
                for row in rows:
                    line = {key: _plain(value) for key, value in row.items()}
                    compressed.write(orjson.dumps(line, option=orjson.OPT_UTC_Z) + b"\n")
                    count += 1
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}; nothing was changed") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)
    return count


def _plain(value: object) -> object:
    """Bytes as text where they are UTF-8, else as {"base64": …}."""
    if not isinstance(value, bytes | memoryview):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
