"""What makes the log answer: indexes for each search, the last error, phase timings, and counts for statistics."""

from dispatcher.store import steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ATTEMPTS = """
ALTER TABLE dispatcher.attempts
    ADD COLUMN timings real[],                  -- ms: dns, connect, tls, first byte; null on a kept connection
    ADD COLUMN was_lost boolean                 -- true: logged as lost with its worker, and recorded after all
"""

TABLES = """
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

# What nearly every delivery is in, the hot path pays for: those are two. The others are partial: of what failed, or was
# tried more than once.
STEPS = (
    steps.Change("deliveries", "ALTER TABLE dispatcher.deliveries ADD COLUMN last_error text", "dispatcher.deliveries"),
    steps.Change(
        "ended_deliveries",
        "ALTER TABLE dispatcher.ended_deliveries ADD COLUMN last_error text",
        "dispatcher.ended_deliveries",
    ),
    steps.NewIndex("ended_endpoint", "dispatcher.ended_deliveries", "(endpoint_id, id)"),
    steps.NewIndex("ended_type", "dispatcher.ended_deliveries", "(event_type, id)"),
    steps.NewIndex("ended_failed_tenant", "dispatcher.ended_deliveries", "(tenant_id, id) WHERE state <> 'delivered'"),
    steps.NewIndex("ended_failed_lately", "dispatcher.ended_deliveries", "(id) WHERE state <> 'delivered'"),
    steps.NewIndex("ended_failed_type", "dispatcher.ended_deliveries", "(event_type, id) WHERE state <> 'delivered'"),
    steps.NewIndex(
        "ended_failed_outcome", "dispatcher.ended_deliveries", "(last_outcome, id) WHERE state <> 'delivered'"
    ),
    steps.NewIndex(
        "ended_failed_status", "dispatcher.ended_deliveries", "(last_status_code, id) WHERE state <> 'delivered'"
    ),
    steps.NewIndex("ended_retried", "dispatcher.ended_deliveries", "(attempts, state, id) WHERE attempts > 1"),
    steps.NewIndex(
        "ended_error",
        "dispatcher.ended_deliveries",
        "USING gin (to_tsvector('simple', last_error)) WHERE last_error IS NOT NULL",
    ),
    steps.NewIndex("events_tenant", "dispatcher.events", "(tenant_id, id)"),
    # Attempts are appended about in the order of their ids, so a summary of each range of pages finds one by its id.
    steps.NewIndex("attempts_id", "dispatcher.attempts", "USING brin (id)"),
    steps.Change("attempts", ATTEMPTS, "dispatcher.attempts"),
    steps.Change("tables", TABLES),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
