"""What spares work where there is most of it."""

from dispatcher.store import steps

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STEPS = (
    # It claims again of itself, since more is due: no bell is needed until it has found nothing.
    steps.Change(
        "workers",
        "ALTER TABLE dispatcher.workers ADD COLUMN going boolean NOT NULL DEFAULT false",
        "dispatcher.workers",
    ),
    # An id that is not a key of it, but beside the keys: PostgreSQL 18 skips over the first keys of an index, and where few
    # rows lived as a plan was made it looked for each id by a walk through this index. The version before claims by the
    # old index until the new one takes its name.
    steps.NewIndex("deliveries_due_new", "dispatcher.deliveries", "(endpoint_id, state, due_at) INCLUDE (id)"),
    # What comes and goes. To give the empty end of such a table back, vacuum locks it against everybody, and what it gave
    # back is asked for again at once.
    steps.Change(
        "deliveries",
        """
DROP INDEX dispatcher.deliveries_due;
ALTER INDEX dispatcher.deliveries_due_new RENAME TO deliveries_due;
ALTER TABLE dispatcher.deliveries SET (vacuum_truncate = false)
""",
        "dispatcher.deliveries",
    ),
    steps.Change(
        "wakes",
        "ALTER TABLE dispatcher.wakes SET (vacuum_truncate = false)",
        "dispatcher.wakes",
        steps.SHARE_UPDATE_EXCLUSIVE,
    ),
    steps.Change(
        "tallies",
        "ALTER TABLE dispatcher.tallies SET (vacuum_truncate = false)",
        "dispatcher.tallies",
        steps.SHARE_UPDATE_EXCLUSIVE,
    ),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
