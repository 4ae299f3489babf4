"""How long payloads, answers and the log itself are kept, and what was erased."""

from dispatcher.store import steps

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A payload that is null is gone: erased at an instant, or, without one, past its retention.
EVENTS = """
ALTER TABLE dispatcher.events
    ALTER COLUMN payload DROP NOT NULL,
    ADD COLUMN erased_at timestamptz
"""

# Shorter than the installation's; null: as long as that.
TENANTS = """
ALTER TABLE dispatcher.tenants
    ADD COLUMN payloads_days smallint,
    ADD COLUMN responses_days smallint,
    ADD COLUMN metadata_days smallint,
    ADD CONSTRAINT tenants_payloads_days_check CHECK (payloads_days > 0) NOT VALID,
    ADD CONSTRAINT tenants_responses_days_check CHECK (responses_days > 0) NOT VALID,
    ADD CONSTRAINT tenants_metadata_days_check CHECK (metadata_days > 0) NOT VALID
"""

TABLES = """
-- What retention did to a day's partition, and where it is to look at it again.
CREATE TABLE dispatcher.retained (
    partition text PRIMARY KEY,
    cursor uuid,                                -- of answers emptied in place: up to where; null: the partition is done
    look_again_at timestamptz NOT NULL DEFAULT 'infinity' -- it kept payloads that lived
);

-- From which ids on the log is whole.
CREATE TABLE dispatcher.kept (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);
INSERT INTO dispatcher.kept DEFAULT VALUES;

CREATE TABLE dispatcher.erasures (
    id uuid PRIMARY KEY,
    object_id text NOT NULL CHECK (object_id <> ''),
    tenant_id uuid,                             -- null: of every tenant
    reason text,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    cursor uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- the last event that this pass looked at
    passes int NOT NULL DEFAULT 0,              -- those that are through
    next_pass_at timestamptz,                   -- null: what was in flight has been erased too
    events bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    in_flight bigint NOT NULL DEFAULT 0         -- deliveries, in this pass
);
CREATE INDEX erasures_next ON dispatcher.erasures (next_pass_at) WHERE next_pass_at IS NOT NULL
"""

# How far a tenant's shorter retention is, along its events.
TENANT_RETAINED = """
CREATE TABLE dispatcher.tenant_retained (
    tenant_id uuid NOT NULL REFERENCES dispatcher.tenants ON DELETE CASCADE,
    what text NOT NULL CHECK (what IN ('payloads', 'responses', 'metadata')),
    cursor uuid NOT NULL,
    PRIMARY KEY (tenant_id, what)
)
"""

STEPS = (
    steps.Change("events", EVENTS, "dispatcher.events"),
    steps.Change("tenants", TENANTS, "dispatcher.tenants"),
    steps.validate(
        "dispatcher.tenants",
        "tenants_payloads_days_check",
        "tenants_responses_days_check",
        "tenants_metadata_days_check",
    ),
    steps.Change("tables", TABLES),
    steps.Change("tenant_retained", TENANT_RETAINED, "dispatcher.tenants", steps.SHARE_ROW_EXCLUSIVE),
)


def upgrade() -> None:
    steps.run(revision, STEPS)
