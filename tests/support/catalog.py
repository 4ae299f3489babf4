"""What PostgreSQL's catalogue says of the schema, to compare two databases."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection

_QUERIES = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.reloptions, c.relacl::text,
               pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)
        FROM pg_class c WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'v')""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0""",
    "constraints": """
        SELECT c.relname, n.conname, n.convalidated, pg_get_constraintdef(n.oid)
        FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
        WHERE n.connamespace = 'dispatcher'::regnamespace""",
    "triggers": """
        SELECT t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = 'dispatcher'::regnamespace AND NOT t.tgisinternal""",
    "functions": """
        SELECT pg_get_functiondef(oid), proacl::text FROM pg_proc WHERE pronamespace = 'dispatcher'::regnamespace""",
}

# The parts of a partitioned table's index are compared without their names: PostgreSQL chooses them where it makes the
# parts by itself.
_INDEXES = """
    SELECT t.relname, coalesce(parent.relname, c.relname), x.indisvalid, pg_get_indexdef(c.oid), parent.relname IS NULL
    FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE t.relnamespace = 'dispatcher'::regnamespace"""


def catalog(connection: Connection) -> dict[str, list[Any]]:
    """Everything that a dump of the schema would say, except for the rows."""
    found = {
        name: sorted((tuple(row) for row in connection.exec_driver_sql(query)), key=repr)
        for name, query in _QUERIES.items()
    }
    indexes = []
    for table, name, is_valid, definition, has_own_name in connection.exec_driver_sql(_INDEXES):
        compared = definition if has_own_name else re.sub(r"INDEX \w+ ON", "INDEX ON", definition)
        indexes.append((table, name, is_valid, compared))
    return found | {"indexes": sorted(indexes)}
