"""Previews of replays and cancellations, each of which starts one."""

from dispatcher.store import steps

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PREVIEWS = """
CREATE TABLE dispatcher.previews (
    id uuid PRIMARY KEY,
    tenant_id uuid,                             -- who has previewed; null: an operator
    kind text NOT NULL CHECK (kind IN ('replay', 'cancellation')),
    filter jsonb NOT NULL,
    options jsonb NOT NULL,
    count bigint NOT NULL CHECK (count >= 0),
    expires_at timestamptz NOT NULL,
    replay_id uuid                              -- what it has started
);
CREATE INDEX previews_expiry ON dispatcher.previews (expires_at)
"""

STEPS = (steps.Change("previews", PREVIEWS),)


def upgrade() -> None:
    steps.run(revision, STEPS)
