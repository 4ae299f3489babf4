"""What starting costs: CPU of short commands of ours, beside the help of Celery and of Alembic."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.site import Bench, Figures

_DELIVERY = {
    "id": "dlv_01890a5d-ac96-774b-bcce-b302099a8057",
    "created_at": "2026-01-31T12:00:00Z",
    "status": "delivered",
    "status_reason": "ok",
    "attempt_count": 1,
    "last_outcome": "ok",
    "last_status_code": 200,
    "event_id": "evt_01890a5d-ac96-774b-bcce-b302099a8057",
    "event_type": "payment.completed",
    "object_id": "pay_9",
    "mode": "live",
    "endpoint_id": "ep_01890a5d-ac96-774b-bcce-b302099a8057",
    "url": "https://shop.example.com/webhooks",
    "next_attempt_at": None,
}

_MEASURED = {
    "help": ("dispatcher", "--help"),
    "list": ("dispatcher", "deliveries", "list"),
    "table": ("dispatcher", "deliveries", "list", "--status", "delivered"),
    "celery_help": ("celery", "--help"),
    "alembic_help": ("alembic", "--help"),
}
"""`list` gets an empty page, `table` one with a delivery, which it prints as a table."""


@contextmanager
def _api() -> Iterator[str]:
    """An API that has one delivery, which was delivered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [_DELIVERY] if "delivered" in self.path else []
            content = json.dumps({"data": found, "has_more": False, "next_cursor": None}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _cpu_ms(command: list[str], environ: dict[str, str]) -> float:
    """CPU of one run, its children included. Raises CalledProcessError where it fails."""
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return (usage.ru_utime + usage.ru_stime) * 1_000


def startup(bench: Bench) -> Figures:
    """The median of the runs of each, which take turns; the first of each may write bytecode and is not counted."""
    folder = Path(sys.executable).parent
    times: dict[str, list[float]] = {name: [] for name in _MEASURED}
    with _api() as url:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["DISPATCHER_API_URL"] = url
        for run in range(bench.options.startups + 1):
            bench.progress(run, bench.options.startups + 1)
            for name, (program, *words) in _MEASURED.items():
                cpu_ms = _cpu_ms([sys.executable, str(folder / program), *words], environ)
                if run:
                    times[name].append(cpu_ms)
    found = {f"{name}_cpu_ms": statistics.median(values) for name, values in times.items()}
    found |= {
        f"{name}_ratio": found[f"{name}_cpu_ms"] / found["celery_help_cpu_ms"] for name in ("help", "list", "table")
    }
    return found | {"n": float(bench.options.startups)}
