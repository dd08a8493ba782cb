"""One engine for each process, set so that many processes can share the database; foreign errors mapped here."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from tuner.errors import StorageUnavailable
from tuner.home import shown

_UNDEFINED_TABLE = "42P01"  # PostgreSQL's code
_SERVER = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 4}
"""One connection is kept; the others last as long as a heartbeat. A server takes 100 connections by default."""
READ_ONLY = {"tuner_read_only": True}


class now(FunctionElement[float]):  # noqa: N801 - it is a function in SQL
    """Seconds since 1970 on the database's clock: leases are measured by one clock, not by every worker's."""

    type = sa.Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now)
def _other_now(element: Any, compiler: Any, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return "extract(epoch from clock_timestamp())"


class Database:
    """The engine of one process.

    Args:
        url: an SQLAlchemy URL; SQLite and PostgreSQL (psycopg) are the ones tested.
        create: make the folder of an SQLite file.

    Raises:
        StorageUnavailable: the URL cannot be used at all.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = url
        try:
            parsed = sa.make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            self._file = Path(parsed.database) if self.is_sqlite and parsed.database else None
            if self._file and create:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {"connect_args": {"timeout": 60}} if self.is_sqlite else _SERVER
            self.engine = sa.create_engine(url, **options)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise StorageUnavailable(
                f"TUNER_STORAGE must be an SQLAlchemy URL with its driver installed, but got {shown(url)}: {error}. "
                "For PostgreSQL: pip install 'tuner[postgres]', then postgresql+psycopg://user@host/db."
            ) from error
        except OSError as error:
            raise StorageUnavailable(f"the storage {shown(url)} cannot be made: {error}.") from error
        share_safely(self.engine)

    def told(self, error: DBAPIError) -> str:
        """What the driver says, in one line and without the password."""
        text = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        password = self.engine.url.password
        return shown(text.replace(str(password), "***") if password else text)

    def exists(self) -> bool:
        """Whether there is a database to open; of a server one only learns by asking."""
        return self._file is None or self._file.exists()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; on SQLite it owns the database from its first statement."""
        with self._mapped(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """Like `write`, without a session's bookkeeping."""
        with self._mapped(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads, and so waits for nobody."""
        with self._mapped(), Session(self.engine.execution_options(**READ_ONLY)) as session, session.begin():
            yield session

    def close(self) -> None:
        """Let go of the connections."""
        self.engine.dispose()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DBAPIError) as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            reason = self.told(error)
            hint = ""
            if "no such table" in reason or getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE:
                hint = " Its tables are missing: run `tuner init-db` once."
            elif "locked" in reason:
                hint = " SQLite takes one writer at a time: use PostgreSQL (TUNER_STORAGE) for many workers."
            raise StorageUnavailable(f"the storage {shown(self.url)} does not answer: {reason}.{hint}") from error


def share_safely(engine: sa.Engine) -> None:
    """Set an SQLite engine so that several processes can write; leave others as they are.

    SQLite has no SELECT … FOR UPDATE: two workers that read first and write later would take the same trial. So a
    transaction that may write takes the write lock when it begins. Optuna's engine needs the same.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        for pragma in ("busy_timeout=60000", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        _set_wal(cursor)
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        read_only = connection.get_execution_options().get("tuner_read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _set_wal(cursor: Any) -> None:
    """Turn on the write-ahead log; for this one statement SQLite does not wait for others by itself."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
