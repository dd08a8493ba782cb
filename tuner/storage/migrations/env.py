"""Alembic's entry: run the migrations on the connection that `schema.initialise` hands over."""

from alembic import context

from tuner.storage.schema import VERSION_TABLE
from tuner.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
