"""The first tables: studies, trials, reports."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "tuner_study",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("active_seconds", sa.Float(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("tracked", sa.JSON(), nullable=False),
        sa.Column("courier", sa.String(200)),
        sa.Column("courier_until", sa.Float(), nullable=False),
    )
    op.create_table(
        "tuner_trial",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("tuner_study.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("confirms", sa.Integer()),
        sa.Column("params", sa.JSON()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("metrics", sa.JSON()),
        sa.Column("best_epoch", sa.Integer()),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("infeasible", sa.Boolean(), nullable=False),
        sa.Column("config", sa.JSON()),
        sa.Column("seconds", sa.JSON()),
        sa.Column("wasted_seconds", sa.Float(), nullable=False),
        sa.Column("wasted_epochs", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.Column("run_id", sa.String(64)),
        sa.Column("tracked_revision", sa.Integer(), nullable=False),
        sa.UniqueConstraint("study_id", "number"),
    )
    op.create_index("ix_tuner_trial_state", "tuner_trial", ["study_id", "state"])
    op.create_table(
        "tuner_report",
        sa.Column("trial_id", sa.Integer(), sa.ForeignKey("tuner_trial.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )
