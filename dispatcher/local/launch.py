"""Starts a server's process the same way for every server."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import IO, TYPE_CHECKING

from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.local.accounts import Account


_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": "1048576",
}
"""glibc keeps what a statement used for the next one, instead of giving pages back and faulting them in anew."""


def launch(argv: Sequence[str], log: IO[bytes], account: Account, stdin: bytes = b"") -> subprocess.Popen[bytes]:
    """Start a server under the account, its output going to the log. Raises Unavailable when it cannot be run.

    `stdin` is what it reads, a few kB at most.
    """
    try:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            argv,
            cwd="/",
            env=server_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # A Ctrl-C in the terminal is for the supervisor, which stops its servers last.
            start_new_session=True,
            **account.popen_arguments(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{argv[0]} does not run as {account.name}: {error}.") from error
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(stdin)
    return process


def server_environment() -> dict[str, str]:
    """Our environment less what reaches into a server: locales that may not be installed, PG* variables, HOME."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PG", "LANG"))}
    kept.pop("HOME", None)
    return {**kept, **_MEMORY, "LC_ALL": "C", "TZ": "UTC"}
