"""What makes the log answer: indexes for each search, the last error, phase timings, and counts for statistics."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What nearly every delivery is in, the hot path pays for: those are two. The others are partial: of what failed, or was
# tried more than once.
STATEMENTS = """
ALTER TABLE dispatcher.deliveries ADD COLUMN last_error text;
ALTER TABLE dispatcher.ended_deliveries ADD COLUMN last_error text;

CREATE INDEX ended_endpoint ON dispatcher.ended_deliveries (endpoint_id, id);
CREATE INDEX ended_type ON dispatcher.ended_deliveries (event_type, id);
CREATE INDEX ended_failed_tenant ON dispatcher.ended_deliveries (tenant_id, id) WHERE state <> 'delivered';
CREATE INDEX ended_failed_lately ON dispatcher.ended_deliveries (id) WHERE state <> 'delivered';
CREATE INDEX ended_failed_type ON dispatcher.ended_deliveries (event_type, id) WHERE state <> 'delivered';
CREATE INDEX ended_failed_outcome ON dispatcher.ended_deliveries (last_outcome, id) WHERE state <> 'delivered';
CREATE INDEX ended_failed_status ON dispatcher.ended_deliveries (last_status_code, id) WHERE state <> 'delivered';
CREATE INDEX ended_retried ON dispatcher.ended_deliveries (attempts, state, id) WHERE attempts > 1;
CREATE INDEX ended_error ON dispatcher.ended_deliveries USING gin (to_tsvector('simple', last_error))
    WHERE last_error IS NOT NULL;
CREATE INDEX events_tenant ON dispatcher.events (tenant_id, id);

-- Attempts are appended about in the order of their ids, so a summary of each range of pages finds one by its id.
CREATE INDEX attempts_id ON dispatcher.attempts USING brin (id);

ALTER TABLE dispatcher.attempts
    ADD COLUMN timings real[],                  -- ms: dns, connect, tls, first byte; null on a kept connection
    ADD COLUMN was_lost boolean;                -- true: logged as lost with its worker, and recorded after all

-- What each recorded batch adds to the statistics: one row, written with the batch, so that a crash can part neither
-- from the other. The scheduler folds them into counts.
CREATE TABLE dispatcher.tallies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    body json NOT NULL                          -- [{endpoint_id, event_type, kind, what, size, n}], as counts has them
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Of each endpoint and type in each span of time. An attempt counts by its outcome and its latency, an end by its state
-- and its attempts.
CREATE TABLE dispatcher.counts (
    endpoint_id uuid NOT NULL,
    grain text NOT NULL CHECK (grain IN ('5min', 'hour', 'day')),
    since timestamptz NOT NULL,
    event_type text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('attempt', 'end')),
    what text NOT NULL,
    size smallint NOT NULL,                     -- attempts: see LATENCY in store.deliveries; ends: attempts made
    n bigint NOT NULL,
    PRIMARY KEY (endpoint_id, grain, since, event_type, kind, what, size)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX counts_since ON dispatcher.counts (grain, since)
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
