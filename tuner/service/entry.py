"""Into the storage: open it, and enter a checked study, which is created, continued, or refused as changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.errors import StudyChanged, StudyNotFound
from tuner.home import Home, shown
from tuner.spec import StudySpec, difference, read_study
from tuner.storage import Database, Store, StudyRow, initialise


@contextmanager
def open_storage(home: Home, *, create: bool = False) -> Iterator[Store]:
    """Open the storage, bringing its schema to this version.

    Args:
        home: where it is.
        create: make a missing SQLite file; without it there is simply nothing to read.

    Raises:
        StudyNotFound: there is no storage yet.
        StorageUnavailable: the database does not answer.
    """
    database = Database(home.storage, create=create)
    try:
        if not create and not database.exists():
            raise StudyNotFound(f"there are no studies at {shown(home.storage)} yet: `tuner run` makes one.")
        initialise(database, _create_optuna_tables)
        yield Store(database)
    finally:
        database.close()


def _create_optuna_tables(url: str) -> None:
    from tuner.search import create_optuna_tables  # optuna is only loaded when there is something to create

    create_optuna_tables(url)


def enter(store: Store, spec: StudySpec) -> StudyRow:
    """Create the study, or set the stored one of this name running again.

    Budgets may differ from what is stored, and then apply. Anything else may not: half of the trials would answer
    another question than the other half.

    Raises:
        StudyChanged: the study differs from the stored one; the error shows where.
    """
    document = spec.document()
    stored = store.find(spec.study)
    if stored is None:
        return store.create(spec.study, document, spec.seed_everything)
    changes = difference(stored.document, document)
    if changes:
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
    store.go_on(stored.id, document)
    return store.study(spec.study)


def spec_of(row: StudyRow, budgets: Mapping[str, Any] | None = None) -> StudySpec:
    """The spec of a stored study, with other budgets if given (`trials`, `time`, …)."""
    overrides = [(f"search.{key}", value) for key, value in (budgets or {}).items()]
    return read_study(row.document, overrides)


def _shown(value: Any) -> str:
    text = "(absent)" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
