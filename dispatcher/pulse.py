"""A process's sign of life: its event loop writes into a pipe, which the supervisor that started the process reads.

It shows that the loop turns. A pipe needs no disk, no clock and no port, and ends with either process.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import Final

EVERY_S: Final = 1.0


def start(descriptor: str | None) -> None:
    """Give a sign of life now, and each second for as long as the running event loop turns.

    `descriptor` is the number of the pipe's end, which the supervisor passed on; None where no supervisor waits for it.
    A number that belongs to no pipe comes from a variable that somebody copied, and is ignored.
    """
    if descriptor is None or not _is_pipe(int(descriptor)):
        return
    pipe = int(descriptor)
    os.set_inheritable(pipe, False)
    loop = asyncio.get_running_loop()

    def beat() -> None:
        try:
            os.write(pipe, b".")
        except BlockingIOError:
            pass  # the supervisor has not read for hours: when it does, it finds more than enough
        except OSError:
            return  # the supervisor is gone, and its guard stops us
        loop.call_later(EVERY_S, beat)

    beat()


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False
