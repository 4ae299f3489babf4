"""A program of ours as a child process whose output lines are passed on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from dispatcher import telemetry
from dispatcher.config import PULSE
from dispatcher.errors import Unavailable
from dispatcher.local import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

# A line longer than this is passed on in pieces.
_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """What to run under which name.

    `env` is added to our environment. `ready` is polled after the start until it says true; it must not raise, and
    returns within a second or so.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready: Callable[[], bool] | None = None


def print_line(name: str, line: str) -> None:
    """Write one line of a child to our stderr, the child's name in front."""
    # A terminal that is gone must not stop the child: with nobody reading its output, it would block.
    with contextlib.suppress(OSError, ValueError):
        # One write: lines of several children must not run into each other.
        sys.stderr.write(f"{name} | {line}\n")


class _PulsePipe:
    """The supervisor's end of the pipe that one process writes its signs of life into: see `dispatcher.pulse`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader, self.writer = os.pipe()
        self._closed = False
        for end in (self._reader, self.writer):
            os.set_blocking(end, False)

    def heard(self) -> bool:
        """Take what has come; whether anything has."""
        with self._lock:
            if self._closed:
                return False
            heard = False
            with contextlib.suppress(BlockingIOError):
                while os.read(self._reader, 65_536):
                    heard = True
            return heard

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._reader)


class Child:
    """One run after another of a program, each the leader of its own process group and session."""

    hung_steps: Final = ((signal.SIGKILL, 0.0),)

    def __init__(self, program: Program, output: Callable[[str, str], None] = print_line) -> None:
        self.program = program
        self.last_line = ""
        self.lines = 0
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pulse_pipe: _PulsePipe | None = None
        self._has_pulse = False
        self._lines = 0
        self._line_passed_on = 0  # the number of the line that `output` is at, 0 when it is at none
        self._line_seen = 0

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The process's number, which is its group's too; None when it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the program. Raises Unavailable when it cannot be run at all."""
        if self._pulse_pipe is not None:
            self._pulse_pipe.close()
        self._has_pulse = False
        try:
            self._pulse_pipe = _PulsePipe()
        except OSError as error:
            raise Unavailable(f"{self.name} does not start: {error}.") from error
        writer = self._pulse_pipe.writer
        try:
            self._process = subprocess.Popen(
                self.program.argv,
                env={**os.environ, **self.program.env, PULSE: str(writer)},
                pass_fds=(writer,),
                cwd=self.program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the supervisor, which stops its children in order.
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"{self.name} does not start: {error}.") from error
        finally:
            os.close(writer)
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._pass_on, args=(self._process.stdout,), name=f"{self.name}-output", daemon=True
        )
        self._reader.start()

    def shows_life(self, timeout_s: float = 0.0) -> bool:  # noqa: ARG002 - a server may need it
        """Tell whether the process's event loop has turned since the last call; at once.

        A process whose output nobody takes stands still through no fault of its own: then it counts as alive.
        """
        blocked = self._line_passed_on != 0 and self._line_passed_on == self._line_seen
        self._line_seen = self._line_passed_on
        heard = self._pulse_pipe is not None and self._pulse_pipe.heard()
        self._has_pulse = self._has_pulse or heard
        return heard or (blocked and self._has_pulse)

    def terminate(self) -> None:
        """Ask the process to stop, without waiting."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Ask the process to stop, wait for it, and kill it, and whatever is left of its group, after `timeout_s`."""
        process = self._process
        if process is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        self._sweep(process)

    def kill(self) -> None:
        """Kill the process and its group at once."""
        if self._process is not None:
            self._sweep(self._process)

    def end_slow_shutdown(self) -> None:
        """Do nothing: a program has its grace."""

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the process to leave; its exit code, or None when it still runs after `timeout_s`."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        # Its own children must not live on beside its successor's.
        processes.send(self._process.pid, signal.SIGKILL, group=True)
        return code

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        processes.send(process.pid, signal.SIGKILL, group=True)
        process.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            # The pipe ends with the group; a descendant that left the group may hold it open.
            self._reader.join(timeout=1.0)
        if self._pulse_pipe is not None:
            self._pulse_pipe.close()
        self._process = None

    def _pass_on(self, pipe: IO[bytes]) -> None:
        failed = False
        with pipe:
            while line := pipe.readline(_LINE_BYTES):
                self.lines += 1
                self.last_line = line.decode(errors="replace").rstrip("\r\n")
                self._lines += 1
                self._line_passed_on = self._lines
                try:
                    self._output(self.name, self.last_line)
                except Exception:  # noqa: BLE001 - if nobody read what it prints, the program would block or die
                    if not failed:
                        telemetry.log(_log, logging.ERROR, "process.output_failed", process=self.name, exc_info=True)
                    failed = True
                self._line_passed_on = 0
