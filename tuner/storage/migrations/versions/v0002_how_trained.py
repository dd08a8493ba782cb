"""How a trial was trained: lean, in a cohort or by Lightning, and why; and its share of the time."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("tuner_trial", sa.Column("trained", sa.Text()))
    op.add_column("tuner_trial", sa.Column("spent_seconds", sa.Float()))
