"""The benchmarks run, small: what they count must agree; what they measure is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bench import accounting, report
from bench.bare import cpu_us_per_post
from bench.generator import payload
from bench.receiver import Receiver
from bench.site import TINY, Bench, Figures, quantile
from bench.system import System
from bench.workloads import WORKLOADS, derived, merged, prefixed, selected

linux = pytest.mark.skipif(not accounting.HAS_PROC, reason="CPU is read from /proc, which only Linux has")

# Of those over TLS one will do; what is bulk-loaded has benchmarks of its own below.
DELIVERING = [
    "walk", "latency", "one_endpoint", "fanout10", "slow100ms", "tls_new", "recovery", "half_dead", "celery_naive",
]  # fmt: skip
CPU = {
    "walk": ["worker", "postgres", "redis", "scheduler", "producer"],
    "celery_naive": ["worker", "postgres", "redis", "producer"],
}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with System(workers=TINY.workers, durable=TINY.durable) as system:
        yield system


@pytest.fixture(scope="module")
def after_backlog() -> Iterator[tuple[System, Figures]]:
    """Another system, on which the backlog's deliveries wait for hours, and the figures of that workload."""
    with System(workers=TINY.workers, durable=TINY.durable) as system:
        yield system, WORKLOADS["backlog10m"].run(Bench(TINY, system=system))


@pytest.mark.parametrize("name", DELIVERING)
def test_each_workload_accounts_for_every_delivery(name: str, request: pytest.FixtureRequest):
    system: System | None
    match name:
        case "half_dead":  # it leaves deliveries too, which wait for the dead
            system, _ = request.getfixturevalue("after_backlog")
        case "tls_new":  # its workers trust an authority that the others do not
            system = None
        case _:
            system = request.getfixturevalue("system")
    bench = Bench(TINY, figures={"walk.deliveries_per_s": 300.0}, system=system)
    workload = WORKLOADS[name]
    found = workload.run(bench)
    assert found[workload.main] > 0
    assert found["lost"] == 0
    assert found["n"] > 0
    assert found["payload_bytes"] == 1024
    assert found["signatures_verified"] == found["signatures_sampled"]
    if name == "recovery":
        assert found["duplicates"] == 0
    elif name != "half_dead":  # where some POSTs are not in the ledger, and some events not at an end
        assert found["duplicates"] == 0
        assert found["ledger_posts"] == found["attempt_rows"] == found["n"]
    if name == "walk":
        assert found["signatures_verified"] == found["n"] // 100
    if accounting.HAS_PROC and name in CPU:
        parts = sum(found[f"{part}_cpu_us_per_delivery"] for part in CPU[name])
        assert found["cpu_us_per_delivery"] == pytest.approx(parts)
    assert bench.environment["synchronous_commit"] == "on"
    assert bench.environment["fsync"] == "off"  # as it was asked to be here, read from the server


def test_a_claim_beside_a_backlog_is_measured(after_backlog: tuple[System, Figures]):
    _, found = after_backlog
    assert found["n"] == TINY.backlog
    assert found["lost"] == found["duplicates"] == 0
    assert found["claim_ratio"] > 0


def test_the_bare_client_is_counted_by_the_receiver():
    found = WORKLOADS["bare"].run(Bench(TINY))
    assert found["bare.ledger_posts"] == found["bare_transport.ledger_posts"] == found["n"]
    assert found["bare.cpu_us_per_post"] > 0


def test_ingest_finds_every_event_in_the_database():
    bench = Bench(TINY)
    found = WORKLOADS["ingest"].run(bench)
    assert found["lost"] == 0
    assert bench.details["answers"] == {202: found["calls"]}
    for name in ("emit_events_per_s", "single_per_s", "batch_events_per_s", "repeat_ratio"):
        assert found[name] > 0


def test_what_starts_is_measured_beside_others():
    found = WORKLOADS["startup"].run(Bench(TINY))
    assert found["n"] == TINY.startups
    for name in ("help", "list", "table", "celery_help", "alembic_help"):
        assert found[f"{name}_cpu_ms"] > 0
    assert found["list_ratio"] == found["list_cpu_ms"] / found["celery_help_cpu_ms"]


def test_a_ledger_larger_than_a_pipe_comes_through():
    with Receiver() as receiver:
        cpu_us_per_post("transport", receiver.url("ok", 1), b"{}", 6_400)
        ledger = receiver.ledger()
    assert ledger.posts == 640 + 6_400
    assert len(ledger.first_at_s) == 6_400  # the warm-up repeats the same few ids


def test_the_worst_schemas_and_payloads_are_accepted_ones():
    bench = Bench(replace(TINY, schema_shapes=2))
    found = WORKLOADS["schema"].run(bench)
    assert found["pairs"] == len(bench.details["pairs"])
    assert found["worst_pair_cpu_ms"] == pytest.approx(bench.details["pairs"][0]["cpu_ms"], abs=0.001)
    assert found["worst_store_cpu_ms"] > 0


def test_what_is_installed_is_measured():
    bench = Bench(TINY)
    found = WORKLOADS["install"].run(bench)
    assert 0 < found["producer_distributions"] < found["server_distributions"] < found["embedded_distributions"]
    assert 0 < found["producer_megabytes"] < found["server_megabytes"] < found["embedded_megabytes"]
    assert {f"{name}_import_cpu_ms" for name in ("emit", "client", "api", "worker", "scheduler")} <= set(found)
    assert bench.details["producer"]["dispatcher-webhooks"] > 0


@linux
def test_cpu_of_dead_children_is_counted():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert accounting.cpu_s([process.pid]) >= 0.27  # of each clock the kernel cuts off what is no whole tick
        assert accounting.resident_bytes([process.pid]) > 1_000_000
        process.communicate(b"\n")


def test_a_payload_has_the_size_that_was_asked_for():
    assert len(orjson.dumps(payload(1024))) == 1024
    with pytest.raises(ValueError, match="at least"):
        payload(10)


def test_of_several_runs_the_median_counts_and_what_went_wrong_adds_up():
    runs = [
        {"deliveries_per_s": 10.0, "n": 5, "lost": 0},
        {"deliveries_per_s": 30.0, "n": 5, "lost": 1},
        {"deliveries_per_s": 20.0, "n": 4, "lost": 2},
    ]
    assert merged(runs, "deliveries_per_s") == {
        "deliveries_per_s": 20.0,
        "n": 4,
        "lost": 3,
        "runs": 3,
        "spread": 1.0,
    }


def test_quantiles_are_of_the_nearest_rank():
    values = [float(n) for n in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([7.0], 0.99) == 7.0


def test_overhead_is_the_difference_within_one_run():
    figures = {"bare.cpu_us_per_post": 70.0, "bare_transport.cpu_us_per_post": 35.0, "walk.cpu_us_per_delivery": 270.0}
    assert derived(figures) == {"walk.overhead_us": 200.0, "walk.overhead_over_transport_us": 235.0}
    assert derived({"walk.cpu_us_per_delivery": 270.0}) == {}
    assert [workload.name for workload in selected(["latency"])] == ["bare", "walk", "latency"]


def test_a_run_replaces_its_own_figures_in_the_latest_file_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.merge_latest(["walk"], prefixed("walk", {"deliveries_per_s": 1.0, "gone": 1.0}), {"commit": "a"})
    report.merge_latest(["ingest"], prefixed("ingest", {"emit_events_per_s": 5.0}), {"commit": "b"})
    report.merge_latest(["walk"], prefixed("walk", {"deliveries_per_s": 2.0}), {"commit": "c"})
    assert json.loads((tmp_path / "latest.json").read_text()) == {
        "commit": "c",
        "ingest.commit": "b",
        "ingest.emit_events_per_s": 5.0,
        "walk.commit": "c",
        "walk.deliveries_per_s": 2.0,
    }


def test_what_was_not_measured_is_a_dash():
    lines = report.markdown({"walk.overhead_us": 201.4}).splitlines()
    assert (
        "| CPU of everything of ours per delivery, less a bare POST | `walk.overhead_us` | ≤ 250 µs | 201 µs |" in lines
    )
    assert any("`tls_new.cpu_us_per_delivery` | – | – |" in line for line in lines)


def test_the_table_says_by_how_much_a_budget_is_missed():
    row = next(row for row in report.ROWS if row.key == "walk.deliveries_per_s")
    assert (row.verdict(3_000), row.verdict(2_400)) == ("met", "missed by 20%")
