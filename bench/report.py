"""What a run leaves: files of figures, a table on the terminal, the same table as Markdown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.site import Figures
from bench.system import cores

RESULTS = Path(__file__).parent / "results"
LATEST = "latest.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `aim` is the budget, `most` whether it is an upper bound."""

    key: str
    about: str
    unit: str = ""
    aim: float | None = None
    most: bool = True

    def aim_text(self) -> str:
        return "" if self.aim is None else f"{'≤' if self.most else '≥'} {number(self.aim)}{_spaced(self.unit)}"

    def verdict(self, value: float) -> str:
        """`met`, or by how much it is missed."""
        if self.aim is None:
            return ""
        if value <= self.aim if self.most else value >= self.aim:
            return "met"
        return f"missed by {abs(value / self.aim - 1):.0%}"


ROWS = (
    Row("bare.cpu_us_per_post", "CPU of a bare aiohttp POST", "µs"),
    Row("bare_transport.cpu_us_per_post", "CPU of a POST by our own transport alone", "µs"),
    Row("walk.overhead_us", "CPU of everything of ours per delivery, less a bare POST", "µs", 250),
    Row("walk.overhead_over_transport_us", "the same, less a POST by our own transport", "µs"),
    Row("walk.cpu_us_per_delivery", "CPU of everything of ours per delivery", "µs"),
    Row("walk.worker_cpu_us_per_delivery", "… of the workers, the POST included", "µs"),
    Row("walk.postgres_cpu_us_per_delivery", "… of PostgreSQL", "µs"),
    Row("walk.producer_cpu_us_per_delivery", "… of the producer: emit_many() in batches of 500", "µs"),
    Row("walk.scheduler_cpu_us_per_delivery", "… of the scheduler", "µs"),
    Row("walk.redis_cpu_us_per_delivery", "… of Redis", "µs"),
    Row(
        "walk.deliveries_per_s",
        "sustained deliveries, generator and receiver on the same cores",
        "/s",
        3_000,
        most=False,
    ),
    Row("walk.warm_overhead_us", "CPU over a bare POST, of the next 25,000 by the same system: warm", "µs", 250),
    Row("walk.warm_deliveries_per_s", "sustained deliveries, warm", "/s", 3_000, most=False),
    Row("walk.redis_commands_per_delivery", "Redis commands per delivery", "", 0.15),
    Row("walk.wal_bytes_per_delivery", "WAL per delivery", "B"),
    Row("walk.disk_bytes_per_delivery", "disk per delivery: event, log and indexes", "B"),
    Row("walk.accept_to_receive_p50_ms", "accept to receive in that burst, median: the wait behind the others", "ms"),
    Row("walk.accept_to_receive_p99_ms", "accept to receive in that burst, 99th percentile", "ms"),
    Row("latency.tenth_load_p50_ms", "accept to receive at a tenth of that rate, median", "ms", 20),
    Row("latency.tenth_load_p99_ms", "accept to receive at a tenth of that rate, 99th percentile", "ms", 100),
    Row("latency.half_load_p50_ms", "accept to receive at half of that rate, median", "ms", 20),
    Row("latency.half_load_p99_ms", "accept to receive at half of that rate, 99th percentile", "ms", 100),
    Row("latency.half_load_cpu_us_per_delivery", "CPU of everything of ours per delivery at half of that rate", "µs"),
    Row("latency.half_load_from_wanted_p50_ms", "… from when it was to be emitted, median", "ms"),
    Row("latency.half_load_from_wanted_p99_ms", "… from when it was to be emitted, 99th percentile", "ms"),
    Row("half_dead.p99_ms", "healthy endpoints' 99th percentile with half of all endpoints dead", "ms", 200),
    Row("half_dead.p99_ratio", "the same, against none dead", "×", 2),
    Row("one_endpoint.deliveries_per_s", "deliveries to one endpoint", "/s", 2_500, most=False),
    Row("fanout10.cpu_us_per_delivery", "CPU per delivery where each event goes to ten endpoints", "µs"),
    Row("fanout10.saves_us", "… by how much that is less than the walk's", "µs", 30, most=False),
    Row(
        "slow100ms.deliveries_per_s", "deliveries to 1,000 receivers that answer after 100 ms", "/s", 3_000, most=False
    ),
    Row("slow100ms.bytes_per_in_flight", "memory per delivery in flight", "B", 16_000),
    Row("slow100ms_tls.bytes_per_in_flight", "memory per delivery in flight, TLS", "B", 72_000),
    Row("tls_keepalive.overhead_us", "overhead over a bare POST, TLS connections kept", "µs", 250),
    Row("tls_keepalive.deliveries_per_s", "deliveries over kept TLS connections", "/s"),
    Row("tls_new.overhead_us", "overhead over a bare POST, a new TLS connection each", "µs", 250),
    Row("tls_new.cpu_us_per_delivery", "CPU per delivery, a new TLS connection each", "µs"),
    Row(
        "recovery.drain_ratio",
        "a backlog of one endpoint after an outage: deliveries per second, against the walk",
        "×",
        0.8,
        most=False,
    ),
    Row("recovery.cap_at_start", "… how many of it may be in flight when it begins, of 1,000"),
    Row("recovery.live_p99_ms", "… other endpoints' 99th percentile meanwhile", "ms"),
    Row("recovery.live_p99_alone_ms", "… and before", "ms"),
    Row("recovery.duplicates", "… duplicates", "", 0),
    Row("backlog10m.claim_ratio", "a claim at 10 million waiting, against 10 thousand", "×", 1.2),
    Row("backlog10m.idle_cpu_percent", "CPU at rest with 10 million waiting, of a core", "%", 2),
    Row("backlog10m.live_p99_ratio", "99th percentile beside 10 million waiting, against none", "×", 1.5),
    Row("soak.growth_ratio", "the hot tables' size after 15 minutes of half load, against its beginning", "×"),
    Row("soak.hot_bytes_last", "… that size, dead rows included", "B"),
    Row("soak.p99_ms", "… accept to receive, 99th percentile, vacuuming included", "ms"),
    Row("walk.worker_idle_bytes", "resident memory of the workers, idle", "B"),
    Row("walk.worker_busy_bytes", "… at the end of the walk", "B"),
    Row("walk.scheduler_idle_bytes", "… of the scheduler, idle", "B"),
    Row("walk.scheduler_busy_bytes", "… at the end of the walk", "B"),
    Row("walk.postgres_idle_bytes", "… of PostgreSQL, idle; what its processes share counts for each of them", "B"),
    Row("walk.postgres_busy_bytes", "… at the end of the walk", "B"),
    Row("walk.redis_busy_bytes", "… of Redis", "B"),
    Row("ingest.single_per_s", "events accepted by single calls of the API", "/s", 2_000, most=False),
    Row("ingest.batch_events_per_s", "events accepted by the batch API", "/s", 12_000, most=False),
    Row("ingest.repeat_ratio", "repeats under idempotency keys a second, against first calls", "×", 1, most=False),
    Row("ingest.emit_events_per_s", "events accepted by emit_many()", "/s", 20_000, most=False),
    Row("startup.help_cpu_ms", "CPU of `dispatcher --help`", "ms"),
    Row("startup.list_cpu_ms", "… of `dispatcher deliveries list` where the API answers an empty list", "ms"),
    Row("startup.table_cpu_ms", "… where it answers a delivery, which is printed as a table", "ms"),
    Row("startup.celery_help_cpu_ms", "… of `celery --help`", "ms"),
    Row("startup.alembic_help_cpu_ms", "… of `alembic --help`", "ms"),
    Row("startup.help_ratio", "`dispatcher --help` against `celery --help`", "×", 0.5),
    Row("startup.list_ratio", "`dispatcher deliveries list` against `celery --help`", "×", 1),
    Row("schema.worst_pair_cpu_ms", "CPU of judging the worst payload by the worst schema that are accepted", "ms", 50),
    Row("schema.worst_store_cpu_ms", "… of checking the worst schema that is accepted", "ms", 50),
    Row("install.producer_distributions", "distributions that a producer or the client has installed"),
    Row("install.producer_megabytes", "… their size", "MB"),
    Row("install.server_distributions", "… of a server"),
    Row("install.server_megabytes", "… their size", "MB"),
    Row("install.embedded_distributions", "… with embedded PostgreSQL and Valkey"),
    Row("install.embedded_megabytes", "… their size", "MB"),
    Row("install.emit_import_cpu_ms", "CPU of importing `emit`, less a bare interpreter", "ms"),
    Row("install.client_import_cpu_ms", "… of the client", "ms"),
    Row("install.api_import_cpu_ms", "… of the API", "ms"),
    Row("install.worker_import_cpu_ms", "… of a worker", "ms"),
    Row("install.scheduler_import_cpu_ms", "… of the scheduler", "ms"),
    Row("celery_naive.deliveries_per_s", "a Celery task for each delivery instead", "/s"),
    Row("celery_naive.cpu_us_per_delivery", "… its CPU per delivery", "µs"),
    Row("celery_naive.cpu_ratio", "… its CPU against ours", "×"),
    Row("celery_naive.deliveries_ratio", "… our deliveries per second against its", "×"),
)


def number(value: float) -> str:
    """Three digits, and no more than one decimal."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _spaced(unit: str) -> str:
    return "" if not unit else unit if unit.startswith("/") else f" {unit}"


def environment() -> dict[str, Any]:
    """Where and when this ran."""
    folder = Path(tempfile.gettempdir())
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": cores(),
        "data_filesystem": _filesystem(folder),
    }


def _commit() -> str:
    """The commit, and `+` where files differ from it."""

    def git(*arguments: str) -> str:
        argv = ["git", "--no-optional-locks", "-C", str(RESULTS.parent), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _filesystem(folder: Path) -> str:
    """Of what kind it is: on a tmpfs, waiting for the disk costs nothing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holding = [
        (mount[1], mount[2])
        for mount in mounts
        if os.path.commonpath([mount[1], str(folder.resolve())]) == mount[1].rstrip("/") or mount[1] == "/"
    ]
    return max(holding, default=("", "unknown"), key=lambda mount: len(mount[0]))[1]


def write_run(
    name: str, runs: Sequence[Figures], figures: Figures, about: Mapping[str, Any], details: Mapping[str, Any]
) -> Path:
    """The file of one workload: merged figures, each run's, and what explains them."""
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = RESULTS / f"{name}-{stamp}.json"
    path.write_text(json.dumps({**about, **figures, "each_run": runs, "details": details}, indent=2) + "\n")
    return path


def merge_latest(names: Sequence[str], figures: Figures, about: Mapping[str, Any]) -> None:
    """Puts the figures of these workloads into the latest ones, whose other workloads stay as they were measured.

    `<workload>.commit` says of each what it was measured on; `commit` and its neighbours tell of the last run.
    """
    RESULTS.mkdir(exist_ok=True)
    replaced = tuple(f"{name}." for name in names) + tuple({key.split(".")[0] + "." for key in figures})
    kept = {key: value for key, value in read_latest().items() if "." in key and not key.startswith(replaced)}
    commits = {f"{name}.commit": about["commit"] for name in names}
    path = RESULTS / LATEST
    text = json.dumps({**about, **dict(sorted({**kept, **figures, **commits}.items()))}, indent=2) + "\n"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def read_latest() -> dict[str, Any]:
    """The latest figures; empty before the first run."""
    try:
        found: dict[str, Any] = json.loads((RESULTS / LATEST).read_text())
    except FileNotFoundError:
        return {}
    return found


def show(figures: Mapping[str, float], about: Mapping[str, Any], console: Console) -> None:
    """The table of what was measured, budgets beside it."""
    table = Table(title=_title(about), title_justify="left")
    for name, justify in (
        ("figure", "left"),
        ("what", "left"),
        ("measured", "right"),
        ("budget", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in ROWS:
        if row.key in figures:
            value = figures[row.key]
            verdict = row.verdict(value)
            style = {"": None, "met": "green"}.get(verdict, "red")
            measured = number(value) + _spaced(row.unit)
            table.add_row(row.key, row.about, measured, row.aim_text(), verdict, style=style)
    console.print(table)
    for name in sorted({key.split(".")[0] for key in figures}):
        checks = [
            f"{check}={number(figures[f'{name}.{check}'])}"
            for check in ("n", "ledger_posts", "attempt_rows", "log_lines", "signatures_verified", "lost", "duplicates")
            if f"{name}.{check}" in figures
        ]
        spread = figures.get(f"{name}.spread")
        checks += [f"runs={figures[f'{name}.runs']:.0f}"] if f"{name}.runs" in figures else []
        checks += [f"spread={spread:.1%}"] if spread is not None else []
        if checks:
            console.print(f"[bold]{name}[/bold] {' '.join(checks)}", highlight=False)


def _title(about: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {about[name]}"
        for name in ("commit", "fsync", "synchronous_commit", "python", "postgres", "redis", "cores", "machine")
        if name in about
    )


def markdown(latest: Mapping[str, Any]) -> str:
    """The table for a document; what was not measured is a dash."""
    lines = ["| what | key in `bench/results/latest.json` | aim | measured |", "|---|---|---|---|"]
    for row in ROWS:
        value = latest.get(row.key)
        aim = row.aim_text() or "–"
        measured = "–" if value is None else number(value) + _spaced(row.unit)
        lines.append(f"| {row.about} | `{row.key}` | {aim} | {measured} |")
    if latest:
        lines += ["", f"Measured with {_title(latest)}, data on {latest.get('data_filesystem')}, {latest.get('date')}."]
    return "\n".join(lines)


def stderr_console() -> Console:
    return Console(file=sys.stderr)
