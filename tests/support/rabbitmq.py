"""A RabbitMQ of the tests' own: Debian's package, on loopback, with node name, ports and files that no other has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from dispatcher.local.guard import Guard
from dispatcher.local.ports import free_port
from tests.support.patience import until

COMMANDS = Path("/usr/lib/rabbitmq/bin")
"""Debian's folder. What is in /usr/sbin insists on the user rabbitmq and on the service's files."""


def is_installed() -> bool:
    return (COMMANDS / "rabbitmq-server").exists()


class RabbitMQ:
    """Starts on entering, without waiting until it serves; killed and removed at the end."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        memory = Path("/dev/shm")  # a start writes much, and waits for the disk each time
        self._top = Path(tempfile.mkdtemp(prefix="dispatcher-rabbitmq-", dir=memory if memory.is_dir() else None))
        self._port, distribution, self._names_port = (
            free_port("127.0.0.1"),
            free_port("127.0.0.1"),
            free_port("127.0.0.1"),
        )
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        (self._top / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n")
        (self._top / "plugins").write_text("[].")
        self._env = {
            **os.environ,
            "HOME": str(self._top),  # the Erlang cookie
            "RABBITMQ_NODENAME": f"test{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self._top / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._top / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self._top / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._top / "none.config"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._top / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "1",  # no shell stays between us and the server
        }
        self._node: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the node and returns at once."""
        with (self._top / "output").open("ab") as output:
            self._node = self._launch([str(COMMANDS / "rabbitmq-server")], output.fileno())

    def kill(self) -> None:
        """Kills the node with SIGKILL, as a crash would."""
        assert self._node is not None
        self._end(self._node)

    def set_disk_alarm(self, *, on: bool) -> None:
        """Has the node believe that the disk is full: it reads nothing more from whoever publishes."""
        limit = "100000GB" if on else "1MB"
        self._control("set_disk_free_limit", limit)

    def _control(self, *arguments: str) -> None:
        ran = subprocess.run(
            [str(COMMANDS / "rabbitmqctl"), *arguments], env=self._env, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def _launch(self, argv: list[str], output: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        self._guard.watch(process.pid, signal.SIGKILL, stage=1)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._guard.forget(process.pid)
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        self._names = self._launch(
            ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"], subprocess.DEVNULL
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._node is not None
        assert self._names is not None
        self._end(self._node)
        self._end(self._names)
        until(self._removed, "its last process has let go of its files")

    def _removed(self) -> bool:
        shutil.rmtree(self._top, ignore_errors=True)
        return not self._top.exists()
