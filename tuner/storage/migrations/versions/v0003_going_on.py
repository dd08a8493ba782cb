"""A trial that was begun before: after which epoch it goes on, what the time up to there was, which workers it lost."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; what has been begun so far began at its first epoch."""
    op.add_column("tuner_trial", sa.Column("began_after", sa.Integer()))
    op.add_column("tuner_trial", sa.Column("lost", sa.JSON()))
    op.add_column("tuner_trial", sa.Column("kept_seconds", sa.Float(), nullable=False, server_default="0"))
    trial = sa.table("tuner_trial", sa.column("began_after", sa.Integer()))
    op.execute(sa.update(trial).values(began_after=0))
