"""What spares work where there is most of it."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = """
-- It claims again of itself, since more is due: no bell is needed until it has found nothing.
ALTER TABLE dispatcher.workers ADD COLUMN going boolean NOT NULL DEFAULT false;

-- An id that is no key of it, but beside the keys: PostgreSQL 18 skips over the first keys of an index, and where few
-- rows lived as a plan was made it looked for each id by a walk through this index.
DROP INDEX dispatcher.deliveries_due;
CREATE INDEX deliveries_due ON dispatcher.deliveries (endpoint_id, state, due_at) INCLUDE (id);

-- What comes and goes. To give the empty end of such a table back, vacuum locks it against everybody, and what it gave
-- back is asked for again at once.
ALTER TABLE dispatcher.deliveries SET (vacuum_truncate = false);
ALTER TABLE dispatcher.wakes SET (vacuum_truncate = false);
ALTER TABLE dispatcher.tallies SET (vacuum_truncate = false)
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        op.execute(statement)
