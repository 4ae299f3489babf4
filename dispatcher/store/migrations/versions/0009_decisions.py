"""Decisions about attempts as data: beside what was decided, whether the attempt was charged, and how long to wait.

Locks `attempts` and its partitions ACCESS EXCLUSIVE for a moment: columns that may be null change only the catalogue.
Rows that are there have null in the new columns, and say all in the sentence of `decision`; `dispatcher.store.decisions`
reads both forms.
"""

from dispatcher.store import steps

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ATTEMPTS = """
ALTER TABLE dispatcher.attempts
    ADD COLUMN charged boolean,                 -- null: only the sentence in decision says it
    ADD COLUMN wait_s real,                     -- of a retry, as decided
    ADD COLUMN from_first_attempt boolean       -- of a retry: wait_s counts from the start of attempt 1
"""

STEPS = (steps.Change("attempts", ATTEMPTS, "dispatcher.attempts"),)


def upgrade() -> None:
    steps.run(revision, STEPS)
