"""Test mode can be told apart: indexes of the deliveries of a sandbox."""

from dispatcher.store import steps

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None

# Partial, so that a delivery of live mode is in none of them and costs nothing more.
STEPS = (
    steps.NewIndex("deliveries_test", "dispatcher.deliveries", "(id) WHERE mode = 'test'"),
    steps.NewIndex("ended_test", "dispatcher.ended_deliveries", "(id) WHERE mode = 'test'"),
    steps.NewIndex("ended_test_endpoint", "dispatcher.ended_deliveries", "(endpoint_id, id) WHERE mode = 'test'"),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
