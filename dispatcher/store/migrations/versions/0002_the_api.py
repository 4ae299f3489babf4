"""What the HTTP API keeps: keys and their scopes, profiles, targets, pauses, platform keys, the audit log."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Columns are added with constant defaults only, so no table is rewritten and the version that runs can go on.
STATEMENTS = """
ALTER TABLE dispatcher.tenants
    ADD COLUMN profile text,                                       -- of endpoints that name none; null: the setting's
    ADD COLUMN secrets jsonb NOT NULL DEFAULT '[]';                -- [{sealed, expires_at}]: for targets of events
CREATE INDEX tenants_parent ON dispatcher.tenants (parent_id) WHERE parent_id IS NOT NULL;

ALTER TABLE dispatcher.api_keys
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{admin}' CHECK (cardinality(scopes) > 0),
    ADD COLUMN rate_limit real CHECK (rate_limit > 0),             -- requests a second; null: no limit
    ADD COLUMN signing_secret text,                                -- sealed: for requests signed by HMAC
    ADD COLUMN last_used_at timestamptz;
CREATE INDEX api_keys_tenant ON dispatcher.api_keys (tenant_id);

-- Signed requests that were accepted: each only once.
CREATE TABLE dispatcher.request_signatures (
    signature_sha256 bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX request_signatures_expiry ON dispatcher.request_signatures (expires_at);

-- What a POST other than an event's answered under its idempotency key. `owner`: a tenant, or zeros for operators.
CREATE TABLE dispatcher.idempotent_requests (
    owner uuid NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    status smallint NOT NULL,
    body text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotent_requests_expiry ON dispatcher.idempotent_requests (expires_at);

-- What workers, the API and producers read of the profile files; published as the schedules are.
CREATE TABLE dispatcher.profiles (
    name text PRIMARY KEY,
    body text NOT NULL
);

ALTER TABLE dispatcher.endpoints
    ADD COLUMN signature text[] CHECK (cardinality(signature) > 0), -- schemes; null: the profile's
    ADD COLUMN headers text,                                       -- sealed JSON: [[name, value]]
    ADD COLUMN auth text,                                          -- sealed JSON: {type, username, password}
    ADD COLUMN rate_limit real CHECK (rate_limit > 0),             -- attempts a second; null: no limit
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN origin text,                                        -- of an implicit endpoint: where targets of events are
    ADD COLUMN blocked smallint NOT NULL DEFAULT 0;                -- attempts in a row that met a denied address
CREATE UNIQUE INDEX endpoints_origin ON dispatcher.endpoints (tenant_id, origin)
    WHERE origin IS NOT NULL AND status <> 'deleted';
CREATE INDEX endpoints_blocked ON dispatcher.endpoints (id) WHERE blocked > 0;

ALTER TABLE dispatcher.lanes
    ADD COLUMN tokens real,                                        -- of the rate limit, as of tokens_at
    ADD COLUMN tokens_at timestamptz;

ALTER TABLE dispatcher.deliveries
    ADD COLUMN target_url text,                                    -- of its own, over the endpoint's
    ADD COLUMN target_method text CHECK (target_method IN ('POST', 'GET')),
    ADD COLUMN ordered boolean NOT NULL DEFAULT false;
CREATE INDEX deliveries_ordered ON dispatcher.deliveries (endpoint_id, id) WHERE ordered;
ALTER TABLE dispatcher.ended_deliveries
    ADD COLUMN target_url text,
    ADD COLUMN target_method text;

CREATE TABLE dispatcher.event_types (
    name text PRIMARY KEY CHECK (name <> ''),
    description text,
    schema text,                                                   -- JSON Schema that payloads must meet
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp()
);

-- Each holds what matches all of its columns that are not null; one with none of them holds everything.
CREATE TABLE dispatcher.pauses (
    id uuid PRIMARY KEY,
    tenant_id uuid,
    endpoint_id uuid,
    event_type text,                                               -- a type, or payment.*
    type_pattern text,                                             -- the same as a LIKE pattern
    reason text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CHECK ((event_type IS NULL) = (type_pattern IS NULL)),
    CONSTRAINT one_pause_a_scope UNIQUE NULLS NOT DISTINCT (tenant_id, endpoint_id, event_type)
);

-- The platform's own signing keys. A new one is published before it signs, an old one stays published after.
CREATE TABLE dispatcher.signing_keys (
    id text PRIMARY KEY,                                           -- the public key's thumbprint
    kind text NOT NULL CHECK (kind IN ('rsa', 'ed25519')),
    sealed text NOT NULL,
    public bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    signs_from timestamptz NOT NULL,
    signs_until timestamptz NOT NULL DEFAULT 'infinity',
    published_until timestamptz NOT NULL DEFAULT 'infinity',
    CHECK (signs_until <= published_until)
);

ALTER TABLE dispatcher.replays
    DROP CONSTRAINT replays_state_check,
    ADD CONSTRAINT replays_state_check CHECK (state IN ('running', 'paused', 'done', 'cancelled')),
    DROP CONSTRAINT replays_check,
    ADD CONSTRAINT an_ended_replay_has_an_end CHECK ((state IN ('running', 'paused')) = (ended_at IS NULL)),
    ADD COLUMN kind text NOT NULL DEFAULT 'replay' CHECK (kind IN ('replay', 'cancellation')),
    ADD COLUMN tenant_id uuid,                                     -- null: of an operator, over all tenants
    ADD COLUMN rate real CHECK (rate > 0),                         -- deliveries a second; null: as fast as it goes
    ADD COLUMN total bigint,                                       -- how many there were when it was asked for
    ADD COLUMN created_by text NOT NULL DEFAULT '',
    ADD COLUMN stepped_at timestamptz;

CREATE TABLE dispatcher.audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT statement_timestamp(),
    actor text NOT NULL,                                           -- key_…, cli:name, worker
    action text NOT NULL,                                          -- endpoint.created
    object text NOT NULL,                                          -- ep_…
    tenant_id uuid,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_log_object ON dispatcher.audit_log (object, id);
CREATE INDEX audit_log_tenant ON dispatcher.audit_log (tenant_id, id);
CREATE FUNCTION dispatcher.append_only() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''the audit log is append-only''; END';
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispatcher.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.append_only();
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
