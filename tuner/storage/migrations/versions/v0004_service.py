"""The service: studies as queue entries, the workers, and where a trial failed for its worker's reasons."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns and the table of workers."""
    op.add_column("tuner_study", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("tuner_study", sa.Column("submitted_at", sa.Float()))
    op.add_column("tuner_study", sa.Column("served_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("tuner_study", sa.Column("active_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("tuner_trial", sa.Column("setbacks", sa.JSON()))
    op.create_table(
        "tuner_worker",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False, unique=True),
        sa.Column("machine", sa.String(200), nullable=False),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("tuner_study.id", ondelete="SET NULL")),
        sa.Column("trouble", sa.Text()),
        sa.Column("refused", sa.JSON(), nullable=False),
        sa.Column("left_at", sa.Float()),
    )
