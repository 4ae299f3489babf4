"""Test mode can be told apart: indexes of the deliveries of a sandbox, counts of their own, and pauses of one mode.

Until every process is of this version, workers of the version before count what is of test mode as if it were live, and
take a pause of one mode for one of both.
"""

from dispatcher.store import steps

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COUNTS = """
ALTER TABLE dispatcher.counts
    DROP CONSTRAINT counts_kind_check,
    ADD CONSTRAINT counts_kind_check CHECK (kind IN ('attempt', 'end', 'test_attempt', 'test_end')) NOT VALID
"""

PAUSES = """
ALTER TABLE dispatcher.pauses
    ADD COLUMN mode text,                                          -- null: of both
    ADD CONSTRAINT pauses_mode_check CHECK (mode IN ('live', 'test')) NOT VALID
"""

ONE_PAUSE = """
ALTER TABLE dispatcher.pauses
    DROP CONSTRAINT one_pause_a_scope,
    ADD CONSTRAINT one_pause_a_scope UNIQUE USING INDEX pauses_scope
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
    steps.Change("pauses", PAUSES, "dispatcher.pauses"),
    steps.validate("dispatcher.pauses", "pauses_mode_check"),
    steps.NewIndex(
        "pauses_scope",
        "dispatcher.pauses",
        "(tenant_id, endpoint_id, event_type, mode) NULLS NOT DISTINCT",
        unique=True,
    ),
    steps.Change("one pause a scope", ONE_PAUSE, "dispatcher.pauses"),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
