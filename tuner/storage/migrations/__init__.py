"""Alembic's migrations of the `tuner_` tables."""
