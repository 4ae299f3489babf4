from __future__ import annotations

import base64
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from dispatcher.api.command_line import MIN_KEY
from dispatcher.errors import Unavailable
from dispatcher.local import processes
from dispatcher.local.accounts import server_account
from dispatcher.local.child import Program
from dispatcher.local.files import write_secret
from dispatcher.local.paths import make_data_dir, remove_data_dir
from dispatcher.local.ports import free_port
from dispatcher.local.running import find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.local.stack import Stack, standard_programs
from tests.support.patience import PATIENCE_S
from tests.support.servers import FAST_SETTINGS

SITE = next(path for path in sys.path if path.endswith("site-packages"))
REPOSITORY = str(Path(__file__).parents[2])


def migrate(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS migrated ()"))


def test_it_runs_servers_migrations_and_programs_and_restarts_a_killed_server(data_dir: Path):
    seen: list[tuple[str, str]] = []
    show = ["/bin/sh", "-c", "env | grep ^DISPATCHER_; exec sleep 600"]
    stack = Stack(
        migrate=migrate,
        data_dir=data_dir,
        programs=[Program("toy", show)],
        env={"DISPATCHER_EXTRA": "1"},
        postgres_settings=FAST_SETTINGS,
        output=lambda name, line: seen.append((name, line)),
    )
    with stack:
        assert list(stack.supervisor.children) == ["postgres", "redis", "toy"]
        running = find_running(data_dir)
        assert running is not None
        assert (running.url, running.database_url, running.broker_url) == (
            *(stack.url, stack.database_url, stack.broker_url),
        )
        with pytest.raises(Unavailable, match=f"in use by process {os.getpid()}"):
            Stack(migrate=migrate, data_dir=data_dir, programs=[]).start()
        assert find_running(data_dir) == running
        assert (data_dir / "running").stat().st_mode & 0o777 == 0o600
        assert len(running.command_line_key) >= MIN_KEY
        assert running.command_line_key not in repr(running)

        url = stack.database_url
        pids = {name: stack.supervisor.kill(name) for name in ("postgres", "redis")}
        deadline = time.monotonic() + PATIENCE_S
        while any(stack.supervisor.restarts(name) == 0 for name in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert stack.database_url == url
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM migrated")) == 0
        assert find_running(data_dir) == running
        left = [child.pid for child in stack.supervisor.children.values()]
    environment = dict(line.split("=", 1) for name, line in seen)
    assert environment["DISPATCHER_DATABASE_URL"] == url
    assert environment["DISPATCHER_EXTRA"] == "1"
    assert environment["DISPATCHER_SECRET_KEYS"] == secret_keys(data_dir)
    assert all(processes.identify(pid) is None for pid in left if pid)
    assert find_running(data_dir) is None


def test_a_data_directory_of_another_user_is_one_sentence(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dispatcher.local.files.os.open", refuse)
    with pytest.raises(Unavailable, match="another user's"):
        find_running(data_dir)


STACK = textwrap.dedent("""
    import pathlib, sys
    from dispatcher.local.child import Program
    from dispatcher.local.stack import Stack
    toy = Program("toy", [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    stack = Stack(migrate=lambda url: None, data_dir=pathlib.Path(sys.argv[1]), programs=[toy])
    stack.run(lambda: print(*[child.pid for child in stack.supervisor.children.values()], flush=True))
""")


def start_stack(data_dir: Path) -> tuple[subprocess.Popen[str], list[int]]:
    argv = [sys.executable, "-c", STACK, str(data_dir)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while any(processes.identify(pid) is not None for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_second_one_is_refused_and_a_killed_one_leaves_nothing_that_stops_the_next(data_dir: Path):
    first, pids = start_stack(data_dir)
    with first:
        assert len(pids) == 3
        second, nothing = start_stack(data_dir)
        with second:
            assert (second.wait(), nothing) == (1, [])
            assert second.stderr is not None
            assert f"in use by process {first.pid}" in second.stderr.read()
        assert not any(processes.identify(pid) is None for pid in pids)
        running = find_running(data_dir)
        assert running is not None
        assert running.pid == first.pid
        assert (data_dir / "processes").exists()
        first.kill()
    assert find_running(data_dir) is None
    # The guard may still be at work on the first one's.
    third, more = start_stack(data_dir)
    with third:
        assert len(more) == 3
        third.terminate()
        assert third.wait() == 0
    assert all_gone([*pids, *more])


LISTENER = textwrap.dedent("""
    import socket, time
    with socket.create_server(("127.0.0.1", PORT)):
        print("listening", flush=True)
        time.sleep(600)
""")


def test_what_a_killed_system_left_listening_is_stopped_before_its_port_is_looked_at(data_dir: Path):
    port = free_port()
    make_data_dir(data_dir)

    def stop_here(_: str) -> None:
        raise Unavailable("past the port")

    left = subprocess.Popen(
        [sys.executable, "-S", "-c", LISTENER.replace("PORT", str(port))],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"listening\n"
        identity = processes.identify(left.pid)
        assert identity is not None
        write_secret(data_dir / "processes", json.dumps([[identity.pid, identity.started, identity.command]]))
        stack = Stack(
            migrate=stop_here, data_dir=data_dir, database_url="postgresql+psycopg://db/x",
            broker_url="redis://cache/0", port=port, programs=[],
        )  # fmt: skip
        try:
            with pytest.raises(Unavailable, match="past the port"):
                stack.start()
            assert processes.identify(left.pid) is None
        finally:
            left.kill()


def test_a_port_that_somebody_else_holds_is_one_sentence(data_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = Stack(
            migrate=lambda url: None, data_dir=data_dir, database_url="postgresql+psycopg://db/x",
            broker_url="redis://cache/0", port=port, programs=[],
        )  # fmt: skip
        with pytest.raises(Unavailable, match=f"^cannot listen on 127.0.0.1 port {port}: it is in use"):
            stack.start()


def test_when_its_data_directory_vanishes_it_says_so_and_stops(data_dir: Path):
    process, pids = start_stack(data_dir)
    with process:
        assert len(pids) == 3
        data_dir.rename(data_dir.with_name("kept"))
        data_dir.mkdir(mode=0o700)  # what an unmounted volume leaves is an empty folder
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert re.search(rf"{data_dir}/?\S* is missing", process.stderr.read())
    assert all_gone(pids)
    assert not list(data_dir.glob("postgres*"))
    remove_data_dir(data_dir, server_account())
    data_dir.with_name("kept").rename(data_dir)


def test_the_generated_keyring_is_private_and_stays(tmp_path: Path):
    kept = secret_keys(tmp_path)
    name, _, key = kept.partition(":")
    assert name == "k1"
    assert len(base64.b64decode(key)) == 32
    assert (tmp_path / "secret_keys").stat().st_mode & 0o777 == 0o600
    assert secret_keys(tmp_path) == kept


def test_with_servers_of_ones_own_nothing_is_embedded_and_commands_find_the_api(data_dir: Path):
    seen: list[str] = []
    stack = Stack(
        migrate=seen.append,
        data_dir=data_dir,
        database_url="postgresql+psycopg://db/x",
        broker_url="redis://cache/0",
        host="0.0.0.0",
        programs=[Program("toy", ["sleep", "600"])],
    )
    with stack:
        assert list(stack.supervisor.children) == ["toy"]
        assert "DISPATCHER_SECRET_KEYS" not in stack.environment()
        running = find_running(data_dir)
        assert running is not None
        assert running.url == f"http://127.0.0.1:{stack.port}"
        assert running.database_url == "postgresql+psycopg://db/x"
    assert seen == ["postgresql+psycopg://db/x"]
    assert find_running(data_dir) is None
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock"]


def test_the_api_alone_is_told_the_key_of_the_command_line():
    programs = standard_programs("127.0.0.1", 1, workers=1, command_line_key="k" * MIN_KEY)
    told = {one.name: dict(one.env) for one in programs}
    assert told == {"scheduler": {}, "worker-1": {}, "api": {"DISPATCHER_COMMAND_LINE_KEY": "k" * MIN_KEY}}


def test_each_start_has_a_key_of_its_own(data_dir: Path):
    keys = set()
    for _ in range(2):
        with Stack(
            migrate=lambda url: None, data_dir=data_dir, database_url="postgresql+psycopg://db/x",
            broker_url="redis://cache/0", programs=[],
        ):  # fmt: skip
            running = find_running(data_dir)
            assert running is not None
            keys.add(running.command_line_key)
    assert len(keys) == 2


def test_a_record_of_a_version_before_it_has_no_key(data_dir: Path):
    ourselves = processes.identify(os.getpid())
    assert ourselves is not None
    data_dir.mkdir(parents=True, mode=0o700)
    kept = {"pid": ourselves.pid, "started": ourselves.started, "url": "http://127.0.0.1:1"}
    write_secret(data_dir / "running", json.dumps(kept | {"database_url": "a", "broker_url": "b"}))
    running = find_running(data_dir)
    assert running is not None
    assert running.command_line_key == ""


def test_a_migration_that_fails_stops_the_servers_again(data_dir: Path):
    def fail(url: str) -> None:
        raise Unavailable("no")

    stack = Stack(migrate=fail, data_dir=data_dir, programs=[], postgres_settings=FAST_SETTINGS)
    with pytest.raises(Unavailable, match="no"):
        stack.start()
    assert stack.postgres is not None
    assert stack.postgres.pid is None


def test_the_standard_programs_are_counted():
    names = [one.name for one in standard_programs("127.0.0.1", 1, workers=3, schedulers=2, api=False)]
    assert names == ["scheduler-1", "scheduler-2", "worker-1", "worker-2", "worker-3"]
    names = [one.name for one in standard_programs("127.0.0.1", 1, workers=1)]
    assert names == ["scheduler", "worker-1", "api"]


def python_for_everybody() -> str:
    """A Python of this version that the user nobody can run; ours may lie below a closed home."""
    version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if server_account().can_run([python, "-c", version]):
            return python
    pytest.skip("no Python of this version that the user nobody can run")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root; without root every other test runs as an ordinary user")
def test_it_runs_for_an_ordinary_user_with_a_read_only_home(data_dir: Path):
    script = textwrap.dedent("""
        import os, pathlib, sys
        from dispatcher.local.child import Program
        from dispatcher.local.paths import make_data_dir, remove_data_dir
        from dispatcher.local.accounts import server_account
        from dispatcher.local.stack import Stack
        data_dir = pathlib.Path(sys.argv[1])
        import psycopg, redis
        with Stack(migrate=print, data_dir=data_dir, programs=[Program("toy", ["sleep", "60"])]) as stack:
            with stack.postgres.connect() as connection:
                assert connection.execute("SELECT current_setting('fsync')").fetchone() == ("on",)
            assert redis.Redis.from_url(stack.broker_url).ping()
            for name in ("postgres_password", "redis.pid", "processes", "running", "secret_keys"):
                assert (data_dir / name).stat().st_mode & 0o777 == 0o600, name
            assert data_dir.stat().st_mode & 0o777 == 0o700
        stack.remove()
        assert not data_dir.exists()
        print("fine")
    """)
    # Some user who exists: PostgreSQL asks for the name.
    account = server_account()
    data_dir.mkdir(parents=True)
    os.chown(data_dir.parent, account.uid, account.gid)
    data_dir.rmdir()
    python = python_for_everybody()
    # redis-py asks for a back port before 3.11.3, which our own environment may lack.
    (data_dir.parent / "async_timeout.py").write_text("from asyncio import timeout\n")
    ended = subprocess.run(
        [python, "-c", script, str(data_dir)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/proc",
            "LC_ALL": "xx_YY",
            "PYTHONPATH": f"{REPOSITORY}:{SITE}:{data_dir.parent}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.endswith("fine\n"), ended.stderr
    if data_dir.exists():
        remove_data_dir(data_dir, account)


def test_a_start_on_a_full_disk_is_one_sentence(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("dispatcher.local.stack.write_secret", fail)
    stack = Stack(
        migrate=lambda url: None, data_dir=data_dir, database_url="postgresql+psycopg://db/x",
        broker_url="redis://cache/0", programs=[Program("toy", ["sleep", "600"])],
    )  # fmt: skip
    with pytest.raises(
        Unavailable, match=rf"^The data directory {data_dir} cannot be written: No space left on device"
    ):
        stack.start()
    assert not stack.supervisor.children
