"""${message}"""

from dispatcher.store import steps

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

# The version before goes on while this runs, and afterwards: CONTRIBUTING.md, "Add a migration".
STEPS = (${upgrades if upgrades else ""})


def upgrade() -> None:
    steps.run(revision, STEPS)
