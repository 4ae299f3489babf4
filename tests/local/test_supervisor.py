from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.errors import Unavailable
from dispatcher.local import processes, starting
from dispatcher.local.child import Child, Program
from dispatcher.local.files import write_secret
from dispatcher.local.guard import Guard
from dispatcher.local.lock import DataDirLock
from dispatcher.local.silence import Silence
from dispatcher.local.starting import StartLimit
from dispatcher.local.supervisor import Supervisor, stop_leftovers
from tests.support.patience import PATIENCE_S

SLEEPER = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    *(sys.executable, "-S", "-c"),
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return processes.identify(pid) is None


class Lines(list[tuple[str, str]]):
    def take(self, name: str, line: str) -> None:
        self.append((name, line))


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def supervisor(lines: Lines, tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(record=tmp_path / "processes", output=lines.take, grace_s=5) as found:
        yield found


def test_a_killed_child_is_started_again_and_its_output_passed_on(supervisor: Supervisor, lines: Lines, caplog):
    supervisor.start([Program("one", SLEEPER), Program("two", SLEEPER)])
    until(lambda: len(lines) == 2)
    two = supervisor.children["two"].pid
    killed = supervisor.kill("one")
    until(lambda: supervisor.restarts("one") == 1)
    assert supervisor.children["one"].pid != killed
    assert supervisor.children["two"].pid == two
    until(lambda: lines.count(("one", "up")) == 2)
    logged = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith(f"process.exited process=one pid={killed} signal=SIGKILL") for line in logged) == 1
    assert sum(line.startswith("process.restarted process=one") for line in logged) == 1


def test_the_waits_between_restarts_double(supervisor: Supervisor, caplog, monkeypatch: pytest.MonkeyPatch):
    from dispatcher.local import supervisor as module

    monkeypatch.setattr(module, "LONGEST_BACK_OFF_S", 0.9)
    supervisor.start([Program("weak", ["/bin/sh", "-c", "exit 3"])])
    until(lambda: supervisor.restarts("weak") >= 3)
    waits = [r.getMessage().rpartition("=")[2] for r in caplog.records if "process.exited" in r.getMessage()]
    assert waits[:3] == ["0.5", "0.9", "0.9"]
    assert "exit_code=3" in caplog.text


def test_stop_leaves_no_process_of_a_group_behind(supervisor: Supervisor, lines: Lines):
    shell = ["/bin/sh", "-c", "sleep 600 & echo $!; wait"]
    supervisor.start([Program("shell", shell), Program("plain", SLEEPER)])
    until(lambda: any(name == "shell" for name, _ in lines))
    grandchild = next(int(line) for name, line in lines if name == "shell")
    pids = [child.pid for child in supervisor.children.values()]
    supervisor.stop()
    assert all(gone(pid) for pid in [grandchild, *pids] if pid)


def test_a_child_that_does_not_stop_in_time_is_killed(lines: Lines):
    with Supervisor(output=lines.take, grace_s=0.3) as supervisor:
        supervisor.start([Program("stubborn", STUBBORN)])
        until(lambda: lines)
        pid = supervisor.children["stubborn"].pid
    assert pid is not None
    assert gone(pid)


def test_start_waits_for_the_probe_and_says_why_it_failed(supervisor: Supervisor, tmp_path: Path):
    flag = tmp_path / "flag"
    argv = ["/bin/sh", "-c", 'sleep 0.2; touch "$0"; sleep 600', str(flag)]
    supervisor.start([Program("slow", argv, ready=flag.exists)])
    assert flag.exists()
    with pytest.raises(Unavailable, match="bad ended before it was ready: no port"):
        supervisor.start([Program("bad", ["/bin/sh", "-c", "echo no port; exit 1"], ready=lambda: False)])
    with pytest.raises(Unavailable, match="none does not start"):
        supervisor.start([Program("none", ["/nonexistent"])])


def test_a_program_that_prints_nothing_for_the_limit_is_given_up(lines: Lines):
    says = r"mute is not ready, and it has shown no progress for 0\.1 s"
    with Supervisor(output=lines.take, start_timeout_s=0.1) as supervisor, pytest.raises(Unavailable, match=says):
        supervisor.start([Program("mute", SLEEPER, ready=lambda: False)])


def test_a_start_is_waited_for_while_there_is_progress():
    now_s = [0.0]
    limit = StartLimit(300, lambda: now_s[0])
    for line in range(20):
        now_s[0] += 299
        assert not limit.exceeded(line)
    now_s[0] += 299
    assert not limit.exceeded(19)
    now_s[0] += 2
    assert limit.exceeded(19)


def test_a_long_start_says_what_it_waits_for(supervisor: Supervisor, caplog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(starting, "SAY_EVERY_S", 0.01)
    supervisor.start([Program("slow", SLEEPER, ready=lambda: "last_line=up" in caplog.text)])
    assert "process.awaited process=slow" in caplog.text


def test_one_can_be_stopped_and_started_and_restarted_on_purpose(supervisor: Supervisor):
    supervisor.start([Program("one", SLEEPER)])
    first = supervisor.children["one"].pid
    supervisor.restart("one")
    second = supervisor.children["one"].pid
    assert second not in (first, None)
    supervisor.stop_one("one")
    with pytest.raises(Unavailable):
        supervisor.kill("one")
    supervisor.start_one("one")
    supervisor.kill("one")
    until(lambda: supervisor.restarts("one") == 2)


SCRIPT = textwrap.dedent("""
    import sys, pathlib
    from dispatcher.local.child import Program
    from dispatcher.local.supervisor import Supervisor
    supervisor = Supervisor(record=pathlib.Path(sys.argv[1]), grace_s=float(sys.argv[2]))
    def start():
        supervisor.start([Program("a", sys.argv[3:]), Program("b", sys.argv[3:])])
        print(*[child.pid for child in supervisor.children.values()], supervisor._guard.pid, flush=True)
    supervisor.run(start)
""")


def is_stubborn(pid: int) -> bool:
    """Whether the process ignores SIGTERM by now: before, it is still starting and would die of it."""
    status = Path(f"/proc/{pid}/status")
    if not status.parent.exists():  # no Linux, or gone
        time.sleep(2)
        return True
    (ignored,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def run_script(record: Path, grace_s: float, argv: list[str]) -> tuple[subprocess.Popen[str], list[int]]:
    # What a shell does to a job in the background: SIGINT ignored from the start.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(record), str(grace_s), *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3
    return process, pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(tmp_path: Path, number: signal.Signals):
    process, pids = run_script(tmp_path / "record", 10, SLEEPER)
    process.send_signal(number)
    with process:
        assert process.wait(PATIENCE_S) == 0
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "record").exists()


def test_a_second_signal_ends_the_grace(tmp_path: Path):
    process, pids = run_script(tmp_path / "record", 600, STUBBORN)
    until(lambda: all(is_stubborn(pid) for pid in pids[:2]))
    with process:
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert all(gone(pid) for pid in pids)


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path):
    process, pids = run_script(tmp_path / "record", 0.3, STUBBORN)
    with process:
        process.kill()
    until(lambda: all(gone(pid) for pid in pids))


def test_what_a_killed_supervisor_and_its_killed_guard_left_is_stopped_by_the_next(tmp_path: Path):
    process, pids = run_script(tmp_path / "record", 5, SLEEPER)
    with process:
        os.kill(pids[2], signal.SIGKILL)
        process.kill()
    assert not any(gone(pid) for pid in pids[:2])
    assert stop_leftovers(tmp_path / "record") == 2
    assert all(gone(pid) for pid in pids)
    assert stop_leftovers(tmp_path / "record") == 0


def test_a_listed_number_that_is_somebody_elses_by_now_is_left_alone(tmp_path: Path):
    with subprocess.Popen(["sleep", "60"]) as bystander:
        write_secret(tmp_path / "record", f'[[{bystander.pid}, "another start", "sleep 60"]]')
        assert stop_leftovers(tmp_path / "record") == 0
        assert bystander.poll() is None
        bystander.kill()


def test_a_second_holder_of_a_data_directory_is_refused_and_told_who_holds_it(tmp_path: Path):
    with DataDirLock(tmp_path), pytest.raises(Unavailable, match=f"process {os.getpid()}"):
        DataDirLock(tmp_path).acquire()
    with DataDirLock(tmp_path):
        pass


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [line for record in caplog.records if (line := record.getMessage()).startswith(f"{name} ")]


class FullDisk:
    """Stands in for `write_secret` on a disk that may be full."""

    def __init__(self) -> None:
        self.full = False

    def write(self, path: Path, text: str) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_secret(path, text)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    disk = FullDisk()
    monkeypatch.setattr("dispatcher.local.supervisor.write_secret", disk.write)
    return disk


def test_a_list_of_processes_that_cannot_be_written_stops_no_restart_and_is_written_later(
    supervisor: Supervisor, disk: FullDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    supervisor.start([Program("one", SLEEPER)])
    disk.full = True
    for number in range(1, 4):
        supervisor.kill("one")
        until(lambda number=number: supervisor.restarts("one") == number and supervisor.children["one"].pid)
    assert len(messages(caplog, "process.list_failed")) == 1
    assert "No space left on device" in messages(caplog, "process.list_failed")[0]
    disk.full = False
    now_running = f"[[{supervisor.children['one'].pid}, "
    until(lambda: (tmp_path / "processes").read_text().startswith(now_running))


def test_a_start_with_a_full_disk_does_without_the_list(
    supervisor: Supervisor, disk: FullDisk, caplog: pytest.LogCaptureFixture
):
    disk.full = True
    supervisor.start([Program("one", SLEEPER)])
    assert supervisor.children["one"].pid is not None
    assert len(messages(caplog, "process.list_failed")) == 1


class Brittle(Child):
    """Its starts fail with these errors, one after another, after the first start."""

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__(Program("brittle", SLEEPER))
        self.errors = errors
        self.starts = 0

    def start(self) -> None:
        super().start()
        self.starts += 1
        if self.starts > 1 and self.errors:
            raise self.errors.pop(0)


def test_a_keeper_goes_on_after_an_error_that_nobody_expected(supervisor: Supervisor, caplog: pytest.LogCaptureFixture):
    brittle = Brittle([OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a defect")])
    supervisor.start([brittle])
    supervisor.kill("brittle")
    until(lambda: supervisor.restarts("brittle") == 1)
    assert brittle.pid is not None
    assert brittle.starts == 4
    failed = [record for record in caplog.records if record.getMessage().startswith("process.start_failed ")]
    assert ["No space left on device" in failed[0].getMessage(), failed[0].exc_info] == [True, None]
    assert ["a defect" in failed[1].getMessage(), bool(failed[1].exc_info)] == [True, True]


def test_what_a_failed_start_left_running_is_stopped(supervisor: Supervisor, lines: Lines):
    pids: list[int] = []

    class Half(Child):
        def start(self) -> None:
            super().start()
            assert self.pid is not None
            pids.append(self.pid)
            if len(pids) == 2:
                raise Unavailable("its port is in use")

    supervisor.start([Half(Program("half", SLEEPER), lines.take)])
    supervisor.kill("half")
    until(lambda: supervisor.restarts("half") == 1)
    assert [gone(pid) for pid in pids] == [True, True, False]


def test_output_that_cannot_be_passed_on_does_not_block_the_child(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def refuse(name: str, line: str) -> None:
        raise RuntimeError("the output is closed")

    flag = tmp_path / "flag"
    argv = [
        sys.executable,
        "-S",
        "-c",
        "import sys\nfor _ in range(9999): print('line')\nopen(sys.argv[1], 'w')",
        str(flag),
    ]
    with Supervisor(output=refuse) as supervisor:
        supervisor.start([Program("chatty", argv)])
        until(flag.exists)
    assert len(messages(caplog, "process.output_failed")) == 1


PULSING = [
    *(sys.executable, "-S", "-c"),
    textwrap.dedent("""
        import os, time
        print("up", flush=True)
        while True:
            os.write(int(os.environ["DISPATCHER_PULSE"]), b".")
            time.sleep(0.02)
    """),
]


def stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped it: no sign of life follows."""
    shown = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return shown.stdout.startswith("T")


def test_a_program_that_hangs_is_killed_and_started_again(supervisor: Supervisor, lines: Lines, caplog):
    supervisor.hang_timeout_s = 2.0
    supervisor.start([Program("one", PULSING)])
    until(lambda: lines)
    pid = supervisor.kill("one", signal.SIGSTOP)
    until(lambda: supervisor.restarts("one"))
    supervisor.hang_timeout_s = 60.0
    assert gone(pid)
    assert re.match(
        rf"process.hung process=one pid={pid} silent_for_s=\d+\.\d signal=SIGKILL", messages(caplog, "process.hung")[0]
    )
    until(lambda: lines.count(("one", "up")) >= 2)


def test_a_program_that_is_still_starting_is_not_judged(supervisor: Supervisor, lines: Lines, caplog):
    supervisor.hang_timeout_s = 1000.0
    supervisor.start([Program("slow to start", SLEEPER)])
    until(lambda: lines)
    for _ in range(100):
        supervisor.look(100.0)
    assert not messages(caplog, "process.hung")


def test_after_a_standstill_of_the_supervisor_silence_counts_from_zero_again(
    supervisor: Supervisor, lines: Lines, caplog
):
    supervisor.hang_timeout_s = 1000.0
    supervisor.start([Program("one", PULSING)])
    until(lambda: lines)
    pid = supervisor.kill("one", signal.SIGSTOP)
    until(lambda: stopped(pid))
    supervisor.look(100.0)  # takes its last signs of life
    for _ in range(9):
        supervisor.look(100.0)
    supervisor.look(300.0)  # everything was frozen
    for _ in range(9):
        supervisor.look(100.0)
    assert not messages(caplog, "process.hung")
    supervisor.look(100.0)
    assert messages(caplog, "process.hung")
    until(lambda: supervisor.restarts("one"))


def test_a_program_that_waits_until_its_output_is_taken_is_not_hung(tmp_path: Path):
    taken = threading.Event()
    script = "import os; os.write(int(os.environ['DISPATCHER_PULSE']), b'.'); print('line', flush=True); os.read(0, 1)"
    child = Child(
        Program("one", [sys.executable, "-S", "-c", f"{script}; import time; time.sleep(600)"]), lambda *_: taken.wait()
    )
    child.start()
    try:
        until(lambda: child.last_line)
        child.shows_life()
        assert child.shows_life()
        taken.set()
        until(lambda: not child.shows_life())
    finally:
        child.kill()


def test_what_hangs_is_sent_each_signal_in_turn_and_each_has_its_time():
    steps = ((signal.SIGQUIT, 15.0), (signal.SIGKILL, 0.0))
    silence = Silence(1, started=True)

    def wait(seconds: int) -> list[tuple[int, signal.Signals]]:
        """One look each second; the seconds and signals of those that were due."""
        sent = []
        for second in range(1, seconds + 1):
            silence.count(1.0, alive=False)
            if (number := silence.due(60.0, steps)) is not None:
                sent.append((second, number))
        return sent

    assert wait(140) == [(60, signal.SIGQUIT), (75, signal.SIGKILL), (135, signal.SIGKILL)]
    assert silence.count(1.0, alive=True) == 0
    assert wait(60) == [(60, signal.SIGQUIT)]


def test_silence_before_the_first_sign_of_life_counts_for_nothing():
    silence = Silence(1, started=False)
    assert [silence.count(elapsed_s, alive=False) for elapsed_s in (500.0, None, 500.0)] == [0, 0, 0]
    assert silence.due(60.0, ((signal.SIGKILL, 0.0),)) is None
    silence.count(1.0, alive=True)
    silence.count(60.0, alive=False)
    assert silence.due(60.0, ((signal.SIGKILL, 0.0),)) == signal.SIGKILL


def test_the_guard_asks_a_server_to_stop_immediately_before_it_kills_it():
    """As PostgreSQL means SIGQUIT: without it a server that gets stuck in its shutdown would be killed by SIGKILL."""
    script = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # it is ignored below a shell's background job
print("up", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        guard = Guard(grace_s=0.1)
        guard.watch(server.pid, signal.SIGINT, stage=1)
        guard.close()
        assert server.wait() == -signal.SIGQUIT
