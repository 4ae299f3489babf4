"""What spares work where there is most of it."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = """
-- It claims again of itself, since more is due: no bell is needed until it has found nothing.
ALTER TABLE dispatcher.workers ADD COLUMN going boolean NOT NULL DEFAULT false
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        op.execute(statement)
