from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.local.accounts import server_account
from dispatcher.local.paths import make_socket_dir, remove_data_dir


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory of its own with a path too long for a socket."""
    top = Path(tempfile.mkdtemp(prefix="dispatcher-test-"))
    top.chmod(0o711)
    found = top / ("long-" * 24) / "data"
    assert len(str(found)) >= 120
    yield found
    if found.exists():
        remove_data_dir(found, server_account())
    remove_data_dir(top, server_account())
    assert not make_socket_dir(found, server_account()).rmdir()
