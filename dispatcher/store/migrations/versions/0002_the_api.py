"""What the HTTP API keeps: keys and their scopes, profiles, targets, pauses, platform keys, the audit log."""

from dispatcher.store import steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TENANTS = """
ALTER TABLE dispatcher.tenants
    ADD COLUMN profile text,                                       -- of endpoints that name none; null: the setting's
    ADD COLUMN secrets jsonb NOT NULL DEFAULT '[]'                 -- [{sealed, expires_at}]: for targets of events
"""

API_KEYS = """
ALTER TABLE dispatcher.api_keys
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{admin}',
    ADD COLUMN rate_limit real,                                    -- requests a second; null: no limit
    ADD COLUMN signing_secret text,                                -- sealed: for requests signed by HMAC
    ADD COLUMN last_used_at timestamptz,
    ADD CONSTRAINT api_keys_scopes_check CHECK (cardinality(scopes) > 0) NOT VALID,
    ADD CONSTRAINT api_keys_rate_limit_check CHECK (rate_limit > 0) NOT VALID
"""

ENDPOINTS = """
ALTER TABLE dispatcher.endpoints
    ADD COLUMN signature text[],                                   -- schemes; null: the profile's
    ADD COLUMN headers text,                                       -- sealed JSON: [[name, value]]
    ADD COLUMN auth text,                                          -- sealed JSON: {type, username, password}
    ADD COLUMN rate_limit real,                                    -- attempts a second; null: no limit
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN origin text,                                        -- of an implicit endpoint: where targets of events are
    ADD COLUMN blocked smallint NOT NULL DEFAULT 0,                -- attempts in a row that met a denied address
    ADD CONSTRAINT endpoints_signature_check CHECK (cardinality(signature) > 0) NOT VALID,
    ADD CONSTRAINT endpoints_rate_limit_check CHECK (rate_limit > 0) NOT VALID
"""

LANES = """
ALTER TABLE dispatcher.lanes
    ADD COLUMN tokens real,                                        -- of the rate limit, as of tokens_at
    ADD COLUMN tokens_at timestamptz
"""

DELIVERIES = """
ALTER TABLE dispatcher.deliveries
    ADD COLUMN target_url text,                                    -- of its own, over the endpoint's
    ADD COLUMN target_method text,
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT deliveries_target_method_check CHECK (target_method IN ('POST', 'GET')) NOT VALID
"""

ENDED_DELIVERIES = """
ALTER TABLE dispatcher.ended_deliveries
    ADD COLUMN target_url text,
    ADD COLUMN target_method text
"""

REPLAYS = """
ALTER TABLE dispatcher.replays
    DROP CONSTRAINT replays_state_check,
    DROP CONSTRAINT replays_check,
    ADD COLUMN kind text NOT NULL DEFAULT 'replay',
    ADD COLUMN tenant_id uuid,                                     -- null: of an operator, over all tenants
    ADD COLUMN rate real,                                          -- deliveries a second; null: as fast as it goes
    ADD COLUMN total bigint,                                       -- how many there were when it was asked for
    ADD COLUMN created_by text NOT NULL DEFAULT '',
    ADD COLUMN stepped_at timestamptz,
    ADD CONSTRAINT replays_state_check CHECK (state IN ('running', 'paused', 'done', 'cancelled')) NOT VALID,
    ADD CONSTRAINT an_ended_replay_has_an_end
        CHECK ((state IN ('running', 'paused')) = (ended_at IS NULL)) NOT VALID,
    ADD CONSTRAINT replays_kind_check CHECK (kind IN ('replay', 'cancellation')) NOT VALID,
    ADD CONSTRAINT replays_rate_check CHECK (rate > 0) NOT VALID
"""

TABLES = """
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

-- What those who accept events read of the profile files; published as the schedules are.
CREATE TABLE dispatcher.profiles (
    name text PRIMARY KEY,
    body json NOT NULL,                                            -- the profile, and the networks that it may target
    is_default boolean NOT NULL DEFAULT false                      -- of tenants that name none
);
CREATE UNIQUE INDEX profiles_default ON dispatcher.profiles (is_default) WHERE is_default;

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
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.append_only()
"""

# Lets a producer that may insert no endpoint make the one that a target of its event needs. Whatever else is asked of
# it is refused: the origin is no more than an origin, the rest what the tenant's published profile says.
REGISTER_IMPLICIT_ENDPOINT = """
CREATE FUNCTION dispatcher.register_implicit_endpoint(
    new_id uuid, for_tenant uuid, at_origin text, by_profile text, by_schedule text, in_flight int
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF at_origin !~ '^https?://([a-z0-9.-]+|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$' OR length(at_origin) > 300
       OR in_flight NOT BETWEEN 1 AND 64 OR substr(CAST(new_id AS text), 15, 1) <> '7'
       OR NOT EXISTS (
           SELECT FROM dispatcher.tenants t
           JOIN dispatcher.profiles p ON p.name = t.profile OR (t.profile IS NULL AND p.is_default)
           WHERE t.id = for_tenant AND p.name = by_profile
             AND p.body ->> 'target' = 'true' AND p.body ->> 'schedule' = by_schedule) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'only the endpoint of a target can be registered, as the profile of its tenant has it';
    END IF;
    WITH endpoint AS (
        INSERT INTO dispatcher.endpoints
            (id, tenant_id, url, profile, schedule, method, max_in_flight, secrets, status, origin)
        SELECT new_id, for_tenant, at_origin || '/', p.name, by_schedule, p.body -> 'methods' ->> 0, in_flight, '[]',
               'active', at_origin
        FROM dispatcher.profiles p WHERE p.name = by_profile
        ON CONFLICT DO NOTHING
        RETURNING id, tenant_id, url, profile, schedule, version, status, max_in_flight
    ), lane AS (
        INSERT INTO dispatcher.lanes (endpoint_id, ready_at, cap) SELECT id, 'infinity', max_in_flight FROM endpoint
    ), trail AS (
        INSERT INTO dispatcher.audit_log (id, actor, action, object, tenant_id, after)
        SELECT id, 'target', 'endpoint.created', 'ep_' || id, tenant_id,
               jsonb_build_object('url', url, 'profile', profile, 'schedule', schedule)
        FROM endpoint
    )
    INSERT INTO dispatcher.endpoint_history (endpoint_id, version, status) SELECT id, version, status FROM endpoint;
END $$
"""

FUNCTIONS = (
    REGISTER_IMPLICIT_ENDPOINT,
    """REVOKE EXECUTE ON FUNCTION
    dispatcher.register_implicit_endpoint(uuid, uuid, text, text, text, int) FROM PUBLIC""",
)

STEPS = (
    steps.Change("tenants", TENANTS, "dispatcher.tenants"),
    steps.NewIndex("tenants_parent", "dispatcher.tenants", "(parent_id) WHERE parent_id IS NOT NULL"),
    steps.Change("api_keys", API_KEYS, "dispatcher.api_keys"),
    steps.validate("dispatcher.api_keys", "api_keys_scopes_check", "api_keys_rate_limit_check"),
    steps.NewIndex("api_keys_tenant", "dispatcher.api_keys", "(tenant_id)"),
    steps.Change("endpoints", ENDPOINTS, "dispatcher.endpoints"),
    steps.validate("dispatcher.endpoints", "endpoints_signature_check", "endpoints_rate_limit_check"),
    steps.NewIndex(
        "endpoints_origin",
        "dispatcher.endpoints",
        "(tenant_id, origin) WHERE origin IS NOT NULL AND status <> 'deleted'",
        unique=True,
    ),
    steps.NewIndex("endpoints_blocked", "dispatcher.endpoints", "(id) WHERE blocked > 0"),
    steps.Change("lanes", LANES, "dispatcher.lanes"),
    steps.Change("deliveries", DELIVERIES, "dispatcher.deliveries"),
    steps.validate("dispatcher.deliveries", "deliveries_target_method_check"),
    steps.NewIndex("deliveries_ordered", "dispatcher.deliveries", "(endpoint_id, id) WHERE ordered"),
    steps.Change("ended_deliveries", ENDED_DELIVERIES, "dispatcher.ended_deliveries"),
    # The metrics count lately ended failures by it. What was delivered, which is nearly all, is not in it.
    steps.NewIndex("ended_lately", "dispatcher.ended_deliveries", "(ended_at, state) WHERE state <> 'delivered'"),
    steps.Change("replays", REPLAYS, "dispatcher.replays"),
    steps.validate(
        "dispatcher.replays",
        "replays_state_check",
        "an_ended_replay_has_an_end",
        "replays_kind_check",
        "replays_rate_check",
    ),
    steps.Change("tables", TABLES),
    steps.Change("functions", FUNCTIONS),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
