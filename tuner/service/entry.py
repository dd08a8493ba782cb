"""Into the storage: open it, and enter a checked study, which is created, continued, or refused as changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.errors import StorageUnavailable, StudyChanged, StudyNotFound
from tuner.home import Home, shown
from tuner.spec import StudySpec, difference, read_study
from tuner.storage import FAILED, Database, Store, StudyRow, initialise, is_current


@contextmanager
def open_storage(home: Home, *, create: bool = False, migrate: bool = False) -> Iterator[Store]:
    """Open the storage.

    Args:
        home: where it is.
        create: make a missing SQLite file; without it there is simply nothing to read.
        migrate: bring a server's schema to this version. An SQLite file is brought there by itself.

    Raises:
        StudyNotFound: there is no storage yet.
        StorageUnavailable: the database does not answer, or has no schema of this version.
    """
    database = Database(home.storage, create=create)
    try:
        if not create and not database.exists():
            raise StudyNotFound(f"there are no studies at {shown(home.storage)} yet: `tuner run` makes one.")
        if database.is_sqlite or migrate:
            initialise(database, _create_optuna_tables)
        elif not is_current(database):
            raise StorageUnavailable(f"{shown(home.storage)} is not ready for this version. Run once: tuner init-db")
        yield Store(database)
    finally:
        database.close()


def _create_optuna_tables(url: str) -> None:
    from tuner.search import create_optuna_tables  # optuna is only loaded when there is something to create

    create_optuna_tables(url)


def enter(store: Store, spec: StudySpec) -> StudyRow:
    """Create the study, or set the stored one of this name running again.

    A study that was given up tries its failed trials again. Budgets may differ from what is stored, and then apply.
    Anything else may not: half of the trials would answer another question than the other half. (While no trial has
    succeeded, the new study simply replaces the old.)

    Raises:
        StudyChanged: the study differs from the stored one; the error shows where.
    """
    document = spec.document()
    stored = store.find(spec.study)
    if stored is None:
        return store.create(spec.study, document, spec.seed_everything)
    changes = difference(stored.document, document)
    if changes and not store.replace(stored.id, document, spec.seed_everything):
        lines = [f"  {path}: {_shown(old)} → {_shown(new)}" for path, old, new in changes]
        raise StudyChanged(
            "\n".join(
                [
                    f"study {spec.study!r} is stored with other settings (stored → given):",
                    *lines,
                    f"Undo the change to go on with it, or start another: --set study={spec.study}-2.",
                ]
            )
        )
    if stored.state == FAILED:
        store.retry_failed(stored.id)
    store.go_on(stored.id, document)
    return store.study(spec.study)


def spec_of(row: StudyRow, budgets: Mapping[str, Any] | None = None) -> StudySpec:
    """The spec of a stored study, with other budgets if given (`trials`, `time`, …)."""
    overrides = [(f"search.{key}", value) for key, value in (budgets or {}).items()]
    return read_study(row.document, overrides)


def _shown(value: Any) -> str:
    text = "(absent)" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
