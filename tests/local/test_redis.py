from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from dispatcher.errors import Unavailable
from dispatcher.local import processes
from dispatcher.local.files import FilesMissing
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.local.supervisor import Supervisor
from tests.support.patience import PATIENCE_S, until


def answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def test_it_keeps_its_url_over_restarts_and_crashes(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "xx_YY")
    monkeypatch.setenv("HOME", "/proc")
    server = EmbeddedRedis(data_dir)
    server.start()
    try:
        url, first = server.url, server.pid
        assert answers(url)
        server.restart()
        assert (server.url, answers(url)) == (url, True)
        server.kill()
        server.start()
        assert (server.url, answers(url)) == (url, True)
        assert server.pid != first
        if os.geteuid() == 0 and Path("/proc").exists():
            assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    finally:
        server.stop()


def test_a_silent_server_is_given_up(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    server = EmbeddedRedis(data_dir, start_timeout_s=0)
    monkeypatch.setattr(server, "shows_life", lambda: False)
    with pytest.raises(Unavailable, match="Redis does not answer, and it has shown no progress for 0 s"):
        server.start()
    assert server.pid is None


def test_it_asks_for_the_password_and_shows_it_to_nobody(redis_server: EmbeddedRedis):
    url = redis_server.url
    password = url.partition(":")[2].partition("@")[0].removeprefix("//:")
    assert all(password not in one.command for one in processes.identify_all())
    assert password not in redis_server.log_path.read_text()
    with (
        redis.Redis.from_url(url.replace(password, "guess")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_one_left_by_a_killed_supervisor_is_stopped(data_dir: Path):
    script = (
        "import sys, os, signal, pathlib\n"
        "from dispatcher.local.redis import EmbeddedRedis\n"
        "server = EmbeddedRedis(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, data_dir], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    orphan = processes.identify(int(ended.stdout))
    assert orphan is not None
    server = EmbeddedRedis(data_dir)
    server.start()
    assert not processes.is_running(orphan)
    server.stop()


def test_a_recorded_number_that_is_somebody_elses_by_now_is_left_alone(data_dir: Path):
    server = EmbeddedRedis(data_dir)
    server.start()
    server.kill()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (data_dir / "redis.pid").write_text(f"{bystander.pid} another-start\n")
        server.start()
        server.stop()
        assert bystander.poll() is None
        bystander.kill()


def test_celery_publishes_and_consumes_through_it(redis_server: EmbeddedRedis, tmp_path: Path):
    (tmp_path / "bell.py").write_text(
        "import os, pathlib\n"
        "from celery import Celery\n"
        "app = Celery('bell', broker=os.environ['URL'])\n"
        "@app.task(name='ring', ignore_result=True)\n"
        "def ring(): pathlib.Path('rung').touch()\n"
    )
    argv = [sys.executable, "-m", "celery", "-A", "bell", "worker", "--pool", "solo", "--loglevel", "ERROR"]
    environment = {**os.environ, "URL": redis_server.url}
    with (
        Celery("bell", broker=redis_server.url, set_as_current=False) as app,
        subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as worker,
    ):
        app.send_task("ring", ignore_result=True)
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "rung").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.kill()
    assert (tmp_path / "rung").exists()


def test_it_starts_on_a_full_disk(data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def fail(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("dispatcher.local.redis.write_secret", fail)
    server = EmbeddedRedis(data_dir)
    server.start()
    try:
        assert answers(server.url)
        assert "process.list_failed" in caplog.text
    finally:
        server.stop()


def test_a_later_start_does_not_make_its_data_directory_anew(data_dir: Path):
    server = EmbeddedRedis(data_dir)
    server.start()
    server.stop()
    data_dir.rename(data_dir.with_name("kept"))
    with pytest.raises(FilesMissing, match=rf"^{data_dir} is missing"):
        server.start()
    assert not data_dir.exists()
    data_dir.with_name("kept").rename(data_dir)


def test_one_that_hangs_is_killed_and_started_again(data_dir: Path, caplog: pytest.LogCaptureFixture):
    server = EmbeddedRedis(data_dir)
    with Supervisor() as supervisor:
        supervisor.start([server])
        pid = supervisor.kill("redis", signal.SIGSTOP)
        supervisor.hang_timeout_s = 2.0
        until(lambda: supervisor.restarts("redis") == 1, "it is replaced")
        supervisor.hang_timeout_s = 60.0
        assert f"process.hung process=redis pid={pid} " in caplog.text
        assert answers(server.url)
