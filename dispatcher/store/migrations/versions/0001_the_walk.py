"""The walk: tenants, endpoints, events, deliveries, attempts, lanes, wakes, workers."""

from dispatcher.store import steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE dispatcher.tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> ''),
    parent_id uuid REFERENCES dispatcher.tenants CHECK (parent_id <> id),
    created_at timestamptz NOT NULL DEFAULT statement_timestamp()
);
INSERT INTO dispatcher.tenants (id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default');

CREATE TABLE dispatcher.api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid REFERENCES dispatcher.tenants,          -- null: an operator's key
    name text NOT NULL,
    key_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(key_sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    revoked_at timestamptz
);

CREATE TABLE dispatcher.schedule_versions (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    hash text NOT NULL,
    body text NOT NULL,
    first_wait_s float8 NOT NULL CHECK (first_wait_s >= 0),        -- what a producer needs of it
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    UNIQUE (name, hash)
);
-- The version that new deliveries pin. A row stays when its file goes: endpoints may still name it.
CREATE TABLE dispatcher.schedules (
    name text PRIMARY KEY,
    version_id smallint NOT NULL REFERENCES dispatcher.schedule_versions
);

CREATE TABLE dispatcher.endpoints (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES dispatcher.tenants,
    url text NOT NULL,
    name text,
    description text,
    metadata jsonb NOT NULL DEFAULT '{}',
    event_types text[] CHECK (cardinality(event_types) > 0),       -- null: all
    type_patterns text[],                                          -- the same as LIKE patterns
    profile text NOT NULL,
    schedule text NOT NULL REFERENCES dispatcher.schedules,
    method text NOT NULL CHECK (method IN ('POST', 'GET')),
    max_in_flight smallint NOT NULL CHECK (max_in_flight BETWEEN 1 AND 1000),
    secrets jsonb NOT NULL,                                        -- [{sealed, expires_at}], newest first
    status text NOT NULL CHECK (status IN ('active', 'disabled', 'deleted')),
    status_reason text CHECK (status_reason IS NULL OR status <> 'active'),
    version int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp()
);
CREATE INDEX endpoints_tenant ON dispatcher.endpoints (tenant_id) WHERE status <> 'deleted';

CREATE TABLE dispatcher.endpoint_history (
    endpoint_id uuid NOT NULL,
    version int NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    event_types text[],
    status text NOT NULL,
    status_reason text,
    PRIMARY KEY (endpoint_id, version)
);

CREATE TABLE dispatcher.events (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    type text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('live', 'test')),
    object_id text,
    payload bytea NOT NULL,
    fanout smallint NOT NULL CHECK (fanout >= 0),
    created_at timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX events_object ON dispatcher.events (object_id) WHERE object_id IS NOT NULL;
CREATE TABLE dispatcher.events_default PARTITION OF dispatcher.events DEFAULT;

CREATE TABLE dispatcher.idempotency (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    event_id uuid NOT NULL,
    body_sha256 bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_expiry ON dispatcher.idempotency (expires_at);

-- Only the claimer writes lanes; everybody else appends to wakes. A producer that updated its endpoint's lane
-- would block, and deadlock with, every other producer of that endpoint.
CREATE TABLE dispatcher.lanes (
    endpoint_id uuid PRIMARY KEY,
    ready_at timestamptz NOT NULL,
    cap smallint NOT NULL CHECK (cap >= 1),
    capped boolean NOT NULL DEFAULT false       -- asleep because its cap is in flight: any wake counts
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX lanes_ready ON dispatcher.lanes (ready_at);
CREATE INDEX lanes_capped ON dispatcher.lanes (endpoint_id) WHERE capped;

CREATE TABLE dispatcher.wakes (
    endpoint_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    succeeded int NOT NULL DEFAULT 0,
    failed int NOT NULL DEFAULT 0,              -- at once
    stalled int NOT NULL DEFAULT 0              -- after a second or more
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 1000000);
CREATE INDEX wakes_endpoint ON dispatcher.wakes (endpoint_id);
CREATE INDEX wakes_due ON dispatcher.wakes (due_at);

-- Live deliveries only: recording an end moves the row to ended_deliveries.
CREATE TABLE dispatcher.deliveries (
    id uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    claimed_by uuid,
    created_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    first_attempt_at timestamptz,
    expires_at timestamptz,
    replay_id uuid,
    replay_of uuid,
    claim_seq int NOT NULL DEFAULT 0,
    schedule_id smallint NOT NULL,
    attempts smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    refunds smallint NOT NULL DEFAULT 0 CHECK (refunds >= 0),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'in_flight')),
    event_type text NOT NULL,
    mode text NOT NULL,
    object_id text,
    reason text,                                -- of the last attempt, or of a hold
    last_outcome text,
    last_status_code int,
    CONSTRAINT in_flight_has_a_claim CHECK ((state = 'in_flight') = (claimed_by IS NOT NULL)),
    CONSTRAINT an_attempt_has_a_claim CHECK (attempts + refunds <= claim_seq),
    CONSTRAINT a_replay_has_an_original CHECK (replay_of IS NOT NULL OR replay_id IS NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON dispatcher.deliveries (endpoint_id, state, due_at, id);
CREATE INDEX deliveries_claimed ON dispatcher.deliveries (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX deliveries_expiry ON dispatcher.deliveries (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX deliveries_event ON dispatcher.deliveries (event_id);

CREATE TABLE dispatcher.ended_deliveries (
    id uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    first_attempt_at timestamptz,
    ended_at timestamptz NOT NULL,
    replay_id uuid,
    replay_of uuid,
    claim_seq int NOT NULL,
    schedule_id smallint NOT NULL,
    attempts smallint NOT NULL,
    refunds smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('delivered', 'exhausted', 'rejected', 'expired', 'cancelled')),
    event_type text NOT NULL,
    mode text NOT NULL,
    object_id text,
    reason text NOT NULL,
    last_outcome text,
    last_status_code int,
    CONSTRAINT delivered_has_an_attempt CHECK (state <> 'delivered' OR (attempts > 0 AND last_outcome = 'ok'))
) PARTITION BY RANGE (id);
CREATE INDEX ended_event ON dispatcher.ended_deliveries (event_id);
CREATE INDEX ended_object ON dispatcher.ended_deliveries (object_id) WHERE object_id IS NOT NULL;
CREATE INDEX ended_failed ON dispatcher.ended_deliveries (endpoint_id, id) WHERE state <> 'delivered';
CREATE TABLE dispatcher.ended_deliveries_default PARTITION OF dispatcher.ended_deliveries DEFAULT;

CREATE TABLE dispatcher.attempts (
    delivery_id uuid NOT NULL,
    claim_seq int NOT NULL,
    id uuid NOT NULL,
    worker_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    duration_ms real NOT NULL,
    number smallint NOT NULL CHECK (number >= 1),
    status_code int,
    outcome_known boolean NOT NULL,
    outcome text NOT NULL,
    phase text,
    error text,
    peer_ip text,
    method text NOT NULL,
    url text NOT NULL,
    request_headers json NOT NULL,              -- [[name, value]]
    body_sha256 bytea,                          -- null: lost with its worker
    response_headers json NOT NULL,
    response_body bytea NOT NULL,
    body_end text NOT NULL,
    retry_after_s real,
    decision text NOT NULL,
    PRIMARY KEY (delivery_id, claim_seq),
    CONSTRAINT a_lost_attempt_is_unknown CHECK (outcome <> 'worker_lost' OR NOT outcome_known)
) PARTITION BY RANGE (delivery_id);
CREATE TABLE dispatcher.attempts_default PARTITION OF dispatcher.attempts DEFAULT;

CREATE TABLE dispatcher.workers (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    pid int NOT NULL,
    room int NOT NULL CHECK (room >= 0),        -- how many more deliveries it would take
    started_at timestamptz NOT NULL,
    heartbeat_until timestamptz NOT NULL        -- its claims die when this passes
) WITH (fillfactor = 50);

CREATE TABLE dispatcher.replays (
    id uuid PRIMARY KEY,
    filter jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
    cursor uuid,                                -- the last delivery that was looked at
    replayed bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    ended_at timestamptz,
    CHECK ((state = 'running') = (ended_at IS NULL))
);

CREATE TABLE dispatcher.leader (
    name text PRIMARY KEY,
    owner uuid NOT NULL,
    term bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
"""

STEPS = (steps.Change("tables", TABLES),)


def upgrade() -> None:
    steps.run(revision, STEPS)
