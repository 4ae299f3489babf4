"""Ids are found by their first characters as a range of an index, and no table is read as a whole for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, event, text

from dispatcher.ids import IdRange, Prefix, created_at, format_id, is_short, parse_short_id, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.store import limits, short_ids
from tests.support import many_rows, walk
from tests.support.servers import drop_database, fresh_database

ROWS = 5_000
WANTED = 0x200
AT = many_rows.made_at(datetime.now(UTC))

TABLES = {
    "evt": ("event", "events"),
    "ep": ("endpoint", "endpoints"),
    "dlv": ("ended", "ended_deliveries"),
    "rpl": ("replay", "replays"),
    "ten": ("tenant", "tenants"),
    "key": ("key", "api_keys"),
    "ers": ("erasure", "erasures"),
}
"""Kinds of rows and their tables; not pauses, which are few, so that reading all of them is the best plan."""


@pytest.fixture(scope="module")
def connection(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[Connection]:
    url = fresh_database(postgres, migrated_template)
    with psycopg.connect(walk.hot_url(url), autocommit=True) as filling:
        many_rows.fill(filling, ROWS, now=datetime.now(UTC))
        filling.execute("VACUUM (ANALYZE)")
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()
    drop_database(postgres, url)


def wanted(prefix: str) -> IdRange:
    """A range that holds 16 rows."""
    id_ = format_id(prefix, many_rows.id_of(TABLES[prefix][0], WANTED, AT))  # type: ignore[arg-type]
    return parse_short_id(list(get_args(Prefix)), id_[:-1])


def scans(connection: Connection, ids: IdRange, **options: Any) -> tuple[int, list[dict[str, Any]]]:
    """How many ids are found, and the nodes of the plans by which a table with such ids is read."""
    statements: list[tuple[Any, Any]] = []

    def note(_: Any, clause: Any, multiparams: Any, params: Any, __: Any) -> None:
        statements.append((clause, {**params, **(multiparams[0] if multiparams else {})}))

    event.listen(connection, "before_execute", note)
    found: list[dict[str, Any]] = []
    table = TABLES[ids.prefix][1]

    def visit(node: dict[str, Any]) -> None:
        relation = node.get("Relation Name", "")
        if node.get("Actual Loops") and (relation in (table, "deliveries") or relation.startswith(f"{table}_")):
            found.append(node)
        for child in node.get("Plans", ()):
            visit(child)

    with limits.limited(connection):
        count = len(short_ids.find(connection, ids, limit=11, **options))
        event.remove(connection, "before_execute", note)
        for clause, values in statements:
            if ":limit" in clause.text and "dispatcher." in clause.text and "set_config" not in clause.text:
                explained = connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {clause.text}"), values)
                visit(explained.scalar_one()[0]["Plan"])
    connection.rollback()
    return count, found


@pytest.mark.parametrize("prefix", TABLES)
@pytest.mark.parametrize("of_a_tenant", [False, True], ids=["of all tenants", "of one tenant"])
def test_ids_are_found_by_a_range_of_an_index(connection: Connection, prefix: str, of_a_tenant: bool) -> None:
    ids = wanted(prefix)
    tenant_id = many_rows.id_of("tenant", WANTED, AT) if of_a_tenant else None
    count, nodes = scans(connection, ids, tenant_id=tenant_id)
    assert nodes
    if not of_a_tenant:
        assert count == 11, "of 16"
    for node in nodes:
        assert node["Node Type"] in {"Index Scan", "Index Only Scan"}, node
        assert "id >= " in node["Index Cond"], node
        assert "id <" in node["Index Cond"], node
        assert node.get("Rows Removed by Filter", 0) <= 16, node


def test_the_beginning_of_an_id_is_the_range_of_all_ids_that_have_it() -> None:
    id_ = uuid7()
    whole = format_id("dlv", id_)
    for length in range(len("dlv_") + 1, len(whole) + 1):
        ids = parse_short_id(["ep", "dlv"], whole[:length])
        assert ids.prefix == "dlv"
        assert ids.low <= id_ <= ids.high
        assert all(format_id("dlv", bound).startswith(whole[:length]) for bound in (ids.low, ids.high))
        assert is_short(whole[:length]) == (length < len(whole))
    assert created_at(parse_short_id(["dlv"], whole).low) == created_at(id_)
