"""Replays that keep count by endpoint: pace, canary, what has become of them."""

from dispatcher.store import steps

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REPLAYS = """
ALTER TABLE dispatcher.replays
    ADD COLUMN goes_to text NOT NULL DEFAULT 'same',               -- same, matching, or an endpoint's id: ep_…
    ADD COLUMN rate_per_endpoint real,                             -- deliveries a second; null: no limit
    ADD COLUMN canary smallint,                                    -- so many of each endpoint go first; null: none
    ADD COLUMN status_reason text,
    ADD COLUMN looked_at timestamptz,                              -- its last turn, whatever came of it
    ADD COLUMN resumed_at timestamptz,
    ADD COLUMN marked_at timestamptz,                              -- of the pace: how many there were when,
    ADD COLUMN marked bigint NOT NULL DEFAULT 0,
    ADD COLUMN pace real,                                          -- and deliveries a second until then
    ADD CONSTRAINT replays_rate_per_endpoint_check CHECK (rate_per_endpoint > 0) NOT VALID,
    ADD CONSTRAINT replays_canary_check CHECK (canary > 0) NOT VALID
"""

# How far a replay is with each endpoint: a slow or dead one keeps no other waiting.
REPLAY_ENDPOINTS = """
CREATE TABLE dispatcher.replay_endpoints (
    replay_id uuid NOT NULL REFERENCES dispatcher.replays ON DELETE CASCADE,
    endpoint_id uuid NOT NULL,
    total bigint NOT NULL,                      -- how many there were when it was asked for
    made bigint NOT NULL DEFAULT 0,
    cursor uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- the last delivery or event looked at
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'stopped', 'done')),
    status_reason text,
    canary_from bigint NOT NULL DEFAULT 0,      -- made when the first ones that go alone began
    passed boolean NOT NULL DEFAULT false,      -- one of those that went first was delivered
    looked_at timestamptz NOT NULL,
    stepped_at timestamptz NOT NULL,            -- up to when its rate is used up
    PRIMARY KEY (replay_id, endpoint_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX replay_endpoints_turn ON dispatcher.replay_endpoints (replay_id, looked_at, endpoint_id)
    WHERE state = 'running';
CREATE INDEX replay_endpoints_stopped ON dispatcher.replay_endpoints (replay_id) WHERE state = 'stopped'
"""

STEPS = (
    steps.Change("replays", REPLAYS, "dispatcher.replays"),
    steps.validate("dispatcher.replays", "replays_rate_per_endpoint_check", "replays_canary_check"),
    steps.Change("replay_endpoints", REPLAY_ENDPOINTS, "dispatcher.replays", steps.SHARE_ROW_EXCLUSIVE),
    # A replay to the endpoints that match today also has events that had no delivery there.
    steps.Change(
        "deliveries",
        "ALTER TABLE dispatcher.deliveries DROP CONSTRAINT a_replay_has_an_original",
        "dispatcher.deliveries",
    ),
    # Of replays only, so ordinary deliveries pay nothing for them.
    steps.NewIndex(
        "deliveries_replay", "dispatcher.deliveries", "(replay_id, endpoint_id) WHERE replay_id IS NOT NULL"
    ),
    steps.NewIndex(
        "deliveries_replay_fresh",
        "dispatcher.deliveries",
        "(replay_id, endpoint_id) WHERE replay_id IS NOT NULL AND attempts = 0 AND refunds = 0",
    ),
    steps.NewIndex(
        "ended_replay",
        "dispatcher.ended_deliveries",
        "(replay_id, endpoint_id, state) WHERE replay_id IS NOT NULL",
    ),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
