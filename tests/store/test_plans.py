"""The plans of the hot path: by index whatever the statistics say, and into one partition, not all.

Plans are generic, as a worker's prepared statements have them, on a database with 20,000 live deliveries over three
days; once as planned before the tables were ever analysed, and once after.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import TextClause, create_engine, text

from dispatcher.ids import uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.store import deliveries, partitions
from dispatcher.store.rows import to_json
from dispatcher.wiring import PLANS
from tests.support import walk
from tests.support.servers import drop_database, fresh_database

LANES = 40
DAYS_AGO = (0, 1, 2)


@dataclass(frozen=True)
class Scan:
    node: str
    relation: str
    index: str | None
    loops: float
    condition: str


@pytest.fixture(scope="module")
def full_database_url(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    url = fresh_database(postgres, migrated_template)
    engine = create_engine(url, connect_args={"options": PLANS})
    with engine.begin() as connection:
        partitions.ensure(connection)  # every day's: the template has three
        for n in range(LANES):
            walk.add_endpoint(connection, event_types=(f"t{n}",))
        for days in DAYS_AGO:
            at = datetime.now(UTC) - timedelta(days=days)
            for n in range(LANES):
                walk.emit(connection, 167, now=at, type_=f"t{n}")
        worker_id = walk.add_worker(connection, now=None, room=10_000)
        for _ in range(4):
            claims = walk.claim(connection, worker_id, now=None, room=10_000)
            walk.record(connection, [walk.result(claim) for claim in claims], now=None)
        walk.claim(connection, worker_id, now=None, room=10_000)
    engine.dispose()
    yield url
    drop_database(postgres, url)


@pytest.fixture(params=["never analysed", "analysed"])
def connection(full_database_url: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    with psycopg.connect(walk.hot_url(full_database_url), options=PLANS) as connection:
        if request.param == "analysed":
            connection.execute("ANALYZE")  # undone by the rollback
        yield connection
        connection.rollback()


def scans(connection: psycopg.Connection, statement: TextClause, values: dict[str, Any]) -> list[Scan]:
    """Every scan in the generic plan, after it has run."""
    names = list(dict.fromkeys(re.findall(r"(?<![:\w]):(\w+)", statement.text)))
    numbered = re.sub(r"(?<![:\w]):(\w+)", lambda match: f"${names.index(match[1]) + 1}", statement.text)
    connection.execute("DEALLOCATE ALL")
    connection.execute(f"PREPARE hot AS {numbered}".encode())
    arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
    explained = connection.execute(
        sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot({})").format(arguments)
    ).fetchone()
    assert explained is not None
    found: list[Scan] = []

    def visit(node: dict[str, Any], relation: str | None) -> None:
        relation = node.get("Relation Name", relation)
        if (
            "Scan" in node["Node Type"]
            and relation is not None
            and node["Node Type"] not in ("CTE Scan", "Subquery Scan")
        ):
            index, condition = node.get("Index Name"), node.get("Index Cond", "")
            found.append(Scan(node["Node Type"], relation, index, node["Actual Loops"], condition))
        for child in node.get("Plans", ()):
            visit(child, relation if node["Node Type"].startswith("Bitmap") else None)

    visit(explained[0][0]["Plan"], None)
    return found


def by_plain_index(found: list[Scan], *, but: tuple[str, ...] = ()) -> set[str | None]:
    """The indexes read, if nothing was read otherwise."""
    others = [scan for scan in found if scan.node not in ("Index Scan", "Index Only Scan") and scan.relation not in but]
    assert others == []
    return {
        scan.index for scan in found if scan.relation not in but and not re.search(r"_(\d{8}|default)$", scan.relation)
    }


def executed(found: list[Scan], table: str) -> set[str]:
    return {scan.relation for scan in found if scan.relation.startswith(f"{table}_") and scan.loops > 0}


def claim_parameters(connection: psycopg.Connection) -> dict[str, Any]:
    lanes = [row[0] for row in connection.execute("SELECT endpoint_id FROM dispatcher.lanes ORDER BY 1")]
    return {
        "lanes": to_json(lanes), "quantum": 15, "batch": 300, "worker": uuid7(), "room": 1000, "lane_limit": None,
        "now": None,
    }  # fmt: skip


def test_ready_lanes_are_found_at_the_ends_of_their_indexes(connection: psycopg.Connection) -> None:
    found = scans(connection, deliveries._LOCK_LANES, {"lanes": 300, "worker": uuid7(), "room": 1000, "now": None})
    assert by_plain_index(found) == {
        "lanes_ready", "wakes_due", "lanes_pkey", "lanes_capped", "wakes_endpoint", "workers_pkey"
    }  # fmt: skip


def test_a_claim_reads_by_index_and_one_partition_an_event(connection: psycopg.Connection) -> None:
    found = scans(connection, deliveries._CLAIM, claim_parameters(connection))
    # Of pauses there are a handful, on one page: a scan is what is cheapest.
    assert by_plain_index(found, but=("pauses",)) - {"pauses_pkey", "one_pause_a_scope"} == {
        "wakes_endpoint", "lanes_pkey", "endpoints_pkey", "deliveries_due", "deliveries_ordered", "deliveries_pkey",
        "workers_pkey",
    }  # fmt: skip
    assert len({scan.relation for scan in found if scan.relation.startswith("events_")}) >= 10
    assert 1 <= len(executed(found, "events")) <= len(DAYS_AGO)


def test_a_record_reads_by_index(connection: psycopg.Connection) -> None:
    claimed = connection.execute(
        "SELECT id, claim_seq, endpoint_id FROM dispatcher.deliveries WHERE state = 'in_flight' LIMIT 200"
    ).fetchall()
    common = {
        "id": uuid7(), "worker_id": uuid7(), "started_at": datetime.now(UTC), "duration_ms": 1.0, "number": 1,
        "outcome_known": True, "method": "POST", "url": "https://example.com/", "request_headers": [],
        "response_headers": [], "response_body": "", "body_end": "complete", "sentence": "x", "refunded": False,
        "charged": True,
    }  # fmt: skip
    rows = []
    for n, (id_, seq, endpoint_id) in enumerate(claimed):
        change = {"state": "delivered", "reason": "ok", "outcome": "ok"} if n % 2 else {"wait_s": 5, "outcome": "reset"}
        rows.append(common | {"delivery_id": id_, "claim_seq": seq, "endpoint_id": endpoint_id} | change)
    parameters = {"rows": to_json(rows), "verdicts": "[]", "now": None}
    found = scans(connection, deliveries._RECORD, parameters)
    assert len(rows) == 200
    assert by_plain_index(found) == {"deliveries_pkey", "endpoints_blocked", "endpoints_pkey"}
    assert not any(scan.relation.startswith(("attempts", "ended", "events")) for scan in found)


def test_the_claims_of_the_dead_are_found_by_their_partial_index(connection: psycopg.Connection) -> None:
    found = scans(connection, deliveries._LOST, {"batch": 500, "now": None})
    assert by_plain_index(found) == {"deliveries_claimed", "endpoints_pkey", "workers_pkey"}


def test_a_workers_unheard_claims_are_found_by_their_partial_index(connection: psycopg.Connection) -> None:
    found = scans(connection, deliveries._GIVE_UP, {"worker": uuid7(), "held": to_json([uuid7() for _ in range(100)])})
    assert by_plain_index(found) == {"deliveries_claimed"}


def test_demand_is_read_at_the_ends_of_the_indexes(connection: psycopg.Connection) -> None:
    found = scans(connection, deliveries._DEMAND, {"lanes": 64, "now": None})
    assert by_plain_index(found, but=("workers", "clock")) <= {
        "lanes_ready",
        "wakes_due",
        "lanes_capped",
        "wakes_endpoint",
    }


def empty_database(url: str) -> None:
    """Tables that nothing has ever been in."""


def fill(url: str, *, each: int, claims: int | None) -> None:
    """Events for each of 20 endpoints, so many claimed, or (None) all recorded and gone. Then the statistics."""
    engine = create_engine(url, connect_args={"options": PLANS})
    with engine.begin() as connection:
        for n in range(20):
            walk.add_endpoint(connection, event_types=(f"t{n}",))
            walk.emit(connection, each, type_=f"t{n}", now=None)
        worker_id = walk.add_worker(connection, now=None)
        if claims is None:
            every = walk.claim_all(connection, worker_id, now=None)
            walk.record(connection, [walk.result(one) for one in every], now=None)
            for table in ("wakes", "endpoints", "lanes"):
                connection.execute(text(f"DELETE FROM dispatcher.{table}"))
        else:
            walk.claim(connection, worker_id, now=None, room=claims, batch=claims)
    engine.dispose()
    with psycopg.connect(walk.hot_url(url), autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")


def emptied_database(url: str) -> None:
    """Tables that are empty again, as the statistics know."""
    fill(url, each=20, claims=None)


def used_database(url: str) -> None:
    """Tables with a handful of rows that live, as the statistics know."""
    fill(url, each=3, claims=20)


@pytest.fixture(params=[empty_database, emptied_database, used_database], ids=["empty", "emptied", "used"])
def empty(
    postgres: EmbeddedPostgres, migrated_template: str, request: pytest.FixtureRequest
) -> Iterator[psycopg.Connection]:
    url = fresh_database(postgres, migrated_template)
    request.param(url)
    with psycopg.connect(walk.hot_url(url), options=PLANS) as connection:
        yield connection
    drop_database(postgres, url)


def test_a_plan_made_on_empty_tables_finds_each_row_by_its_key(empty: psycopg.Connection) -> None:
    """A worker keeps the plan that it made at its start, or after an ANALYZE. On tables that are empty, or nearly, one
    that begins with whatever is in a state, or compares all with all, costs as little as one that begins with the keys;
    later it reads the whole backlog, or all endpoints, for each claim or record.
    """
    claim = {
        "lanes": "[]", "quantum": 15, "batch": 300, "worker": uuid7(), "room": 1000, "lane_limit": None, "now": None,
    }  # fmt: skip
    record = {"rows": "[]", "verdicts": "[]", "now": None}
    tables = ("deliveries", "endpoints", "lanes", "wakes")
    for statement, values in ((deliveries._CLAIM, claim), (deliveries._RECORD, record)):
        found = [scan for scan in scans(empty, statement, values) if scan.relation in tables]
        assert {"deliveries", "endpoints"} <= {scan.relation for scan in found}
        for scan in found:  # of endpoints_blocked: they are few, and blocked only for a moment
            by_key = re.search(r"\((\w+\.)?(id|endpoint_id) = ", scan.condition)
            assert by_key or scan.index == "endpoints_blocked", scan


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_look_on_empty_tables_reads_what_is_due_and_the_lanes_that_are_capped(
    empty: psycopg.Connection, mode: str
) -> None:
    """With the plan of the first looks, and with the one that is kept."""
    empty.execute(f"SET plan_cache_mode = {mode}".encode())
    look = {"lanes": 300, "worker": uuid7(), "room": 1000, "now": None}
    for statement, values in ((deliveries._LOCK_LANES, look), (deliveries._DEMAND, {"lanes": 64, "now": None})):
        found = [scan for scan in scans(empty, statement, values) if scan.relation in ("lanes", "wakes")]
        assert len(found) >= 4
        for scan in found:
            by_due_or_key = re.search(r"\(((\w+\.)?endpoint_id = |(ready|due)_at <= )", scan.condition)
            assert by_due_or_key or scan.index == "lanes_capped", scan
