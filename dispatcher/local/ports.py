"""Free ports of the loopback interface."""

from __future__ import annotations

import errno
import secrets
import socket

from dispatcher.errors import Unavailable

# Below the ports that outgoing connections draw from (Linux 32768, macOS 49152): one of those could hold ours
# while the process that listens on it restarts.
_LOWEST, _HIGHEST = 20_000, 32_000


def port_is_taken(host: str, port: int) -> bool:
    """Tell whether the port cannot be listened on now."""
    return _why_not(host, port) is not None


def check_port(host: str, port: int) -> None:
    """Raises Unavailable where the port cannot be listened on now."""
    error = _why_not(host, port)
    if error is None:
        return
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "it is in use; --port 0 takes a free one"
    raise Unavailable(f"cannot listen on {host} port {port}: {reason}")


def _why_not(host: str, port: int) -> OSError | None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now. Raises Unavailable when a hundred draws found none."""
    for _ in range(100):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if not port_is_taken(host, port):
            return port
    raise Unavailable(f"No free port on {host}.")
