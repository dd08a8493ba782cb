"""Create or migrate the tables, in one explicit step that is safe to run twice and at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from tuner.errors import StorageUnavailable
from tuner.home import alone, shown
from tuner.storage.database import READ_ONLY, Database

VERSION_TABLE = "tuner_alembic_version"
_LOCK = 0x74756E6572  # "tuner": the key of PostgreSQL's advisory lock


def initialise(database: Database, also: Callable[[str], None] = lambda _: None) -> None:
    """Bring the schema to this version.

    Args:
        database: where.
        also: called with the URL under the same lock, to create tables that stand beside ours (Optuna's).

    Raises:
        StorageUnavailable: the database does not answer, or was written by a newer version.
    """
    if is_current(database):
        return
    with one_initialiser(database):
        if is_current(database):
            return
        also(database.url)  # first: our own version, written last and in one transaction, says that all is there
        with database.engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def is_current(database: Database) -> bool:
    """Whether the schema is the one this version knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    try:
        with database.engine.execution_options(**READ_ONLY).connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            found = context.get_current_revision()
    except DBAPIError as error:
        raise StorageUnavailable(
            f"the storage {shown(database.url)} does not answer: {database.told(error)}."
        ) from error
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise StorageUnavailable(
            f"the storage {shown(database.url)} has schema {found!r}, which this version does not know. "
            "It was written by a newer tuner: upgrade this one."
        )
    return found == newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def one_initialiser(database: Database) -> Iterator[None]:
    """Hold the lock for which everybody waits who makes or migrates tables beside this database."""
    if database.is_sqlite:
        path = sa.make_url(database.url).database
        if not path or path == ":memory:":
            raise StorageUnavailable("TUNER_STORAGE must be an SQLite file: workers cannot share one in memory.")
        with alone(Path(path)):
            yield
    else:
        with database.engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
            connection.commit()
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))
