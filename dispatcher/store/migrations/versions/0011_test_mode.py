"""Test mode can be told apart: indexes of the deliveries of a sandbox, and counts of their own.

Until every process is of this version, workers of the version before count what is of test mode as if it were live.
"""

from dispatcher.store import steps

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None

COUNTS = """
ALTER TABLE dispatcher.counts
    DROP CONSTRAINT counts_kind_check,
    ADD CONSTRAINT counts_kind_check CHECK (kind IN ('attempt', 'end', 'test_attempt', 'test_end')) NOT VALID
"""

# Partial, so that a delivery of live mode is in none of them and costs nothing more.
STEPS = (
    steps.NewIndex("deliveries_test", "dispatcher.deliveries", "(id) WHERE mode = 'test'"),
    steps.NewIndex("ended_test", "dispatcher.ended_deliveries", "(id) WHERE mode = 'test'"),
    steps.NewIndex("ended_test_endpoint", "dispatcher.ended_deliveries", "(endpoint_id, id) WHERE mode = 'test'"),
    # What failed lately is counted by it, instead of by ended_lately, which the version before reads.
    steps.NewIndex(
        "ended_lately_live",
        "dispatcher.ended_deliveries",
        "(ended_at, state) WHERE state <> 'delivered' AND mode = 'live'",
    ),
    steps.Change("counts", COUNTS, "dispatcher.counts"),
    steps.validate("dispatcher.counts", "counts_kind_check"),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
