"""The clock by which deliveries are due: the database's own, corrected for its steps.

Adds one table of one row, a log that is nearly always empty, and functions. Locks no table that is there already.
"""

from dispatcher.store import steps

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE dispatcher.clock (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        seq bigint NOT NULL DEFAULT 0,                      -- how many steps have been recorded
        correction interval NOT NULL DEFAULT interval '0'   -- added to the database's clock
    )
    """,
    "INSERT INTO dispatcher.clock DEFAULT VALUES",
    # Producers with a role of their own accept events by this clock: see `dispatcher.store.grants`.
    "GRANT SELECT (correction) ON dispatcher.clock TO PUBLIC",
    """
    CREATE TABLE dispatcher.clock_steps (
        seq bigint PRIMARY KEY,
        at timestamptz NOT NULL,            -- of the due clock, when the step was noticed
        before timestamptz NOT NULL,        -- what the database's clock would have said then without the step
        after timestamptz NOT NULL,         -- what it said
        change_s double precision NOT NULL, -- what was added to the correction
        correction interval NOT NULL,       -- from then on
        noticed_by text NOT NULL,
        unnoticed_s double precision NOT NULL,  -- the step was so long ago at most
        oldest_xid xid8 NOT NULL            -- what was written meanwhile is of this transaction or a later one
    )
    """,
    """
    CREATE FUNCTION dispatcher.clock_correction() RETURNS interval
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    BEGIN
        RETURN (SELECT c.correction FROM dispatcher.clock c);
    END $$
    """,
    # Null: the due clock. One instant: that one. Two: the due clock, kept between them.
    """
    CREATE FUNCTION dispatcher.due_time(bounds timestamptz[] DEFAULT NULL) RETURNS timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    BEGIN
        IF pg_catalog.cardinality(bounds) = 1 THEN
            RETURN bounds[1];
        END IF;
        RETURN least(greatest(pg_catalog.statement_timestamp() + (SELECT c.correction FROM dispatcher.clock c), bounds[1]),
                     bounds[2]);
    END $$
    """,
)

STEPS = (steps.Change("the due clock", STATEMENTS),)


def upgrade() -> None:
    steps.run(revision, STEPS)
