"""Into the storage: open it, and enter a checked study, which is created, continued, or refused as changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.best import choose
from tuner.errors import NoBest, Problem, SpecError, StorageUnavailable, StudyChanged, StudyNotFound, TunerError
from tuner.home import Home, shown
from tuner.service.reuse import load
from tuner.space.prior import is_prior, read_prior
from tuner.space.yaml import read_yaml
from tuner.spec import BUDGETS, Inspect, StudySpec, at_path, difference, read_study
from tuner.storage import FAILED, Database, Store, StudyRow, initialise, is_current

log = logging.getLogger("tuner")


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


def enter(store: Store, spec: StudySpec, *, change_space: bool = False) -> StudyRow:
    """Create the study, or set the stored one of this name running again.

    A study that was given up tries its failed trials again. Budgets may differ from what is stored, and then apply.
    So may the space if `change_space` says so: the change is recorded, and earlier trials still inform the search.
    Anything else may not: half of the trials would answer another question than the other half. (While no trial has
    succeeded, the new study simply replaces the old.)

    Raises:
        StudyChanged: the study differs from the stored one; the error shows where.
    """
    document = spec.document()
    stored = store.find(spec.study)
    if stored is None:
        return store.create(spec.study, document, spec.seed_everything, start(store, spec))
    changes = difference(stored.document, document)
    if changes and change_space and all(path.startswith("space.") for path, _, _ in changes):
        _record(store, stored, changes)
    elif changes and not store.replace(stored.id, document, spec.seed_everything, start(store, spec)):
        lines = [f"  {path}: {_shown(old)} → {_shown(new)}" for path, old, new in changes]
        raise StudyChanged(
            "\n".join(
                [
                    f"study {spec.study!r} is stored with other settings (stored → given):",
                    *lines,
                    f"Undo the change to go on with it, or start another: --set study={spec.study}-2. "
                    f"A space is narrowed or widened with: tuner resume {spec.study} --set space.PATH=VALUE",
                ]
            )
        )
    if stored.state == FAILED:
        store.retry_failed(stored.id)
    store.go_on(stored.id, document)
    return store.study(spec.study)


def start(store: Store, spec: StudySpec) -> dict[str, Any]:
    """The configurations that the study begins with, as a fact to be kept: what they come from may change later.

    Raises:
        SpecError: a named study or file does not exist, or has no configuration.
    """
    found: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, entry in enumerate(spec.search.start):
        try:
            begun = _begun(store, spec, entry)
        except TunerError as error:
            problems.append(Problem(f"search.start.{number}", str(error)))
            continue
        for values in begun:
            space = spec.searched
            inside, outside = space.divide(values)
            for path, value in outside.items():
                log.warning(
                    "search.start: %s has %s = %r, which the space has not; its default is taken.", entry, path, value
                )
            for path in inside.keys() - space.complete(inside).keys() if isinstance(entry, Mapping) else ():
                log.warning("search.start: %s does not apply beside the other values of %s.", path, entry)
            if space.complete(inside) not in found:
                found.append(space.complete(inside))
    if problems:
        raise SpecError(f"study {spec.study!r}", problems)
    return {"start": found} if found else {}


def _begun(store: Store, spec: StudySpec, entry: str | Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The values by path that an entry of `search.start` says: of one configuration, or of each study of a prior."""
    if isinstance(entry, Mapping):
        return [entry]
    config = _configuration(store, entry)
    if is_prior(config):
        suggestions = read_prior(entry, config).suggestions(spec.searched, spec.model.class_path)
        if not suggestions:
            log.warning("search.start: %s has nothing in common with the space, so it says nothing here.", entry)
        return [values for _, values in suggestions]
    absent = object()
    values = {path: at_path(config, path, absent) for path in spec.searched.parameters}
    return [{path: value for path, value in values.items() if value is not absent}]


def _configuration(store: Store, name: str) -> Mapping[str, Any]:
    """A complete configuration: that of a file, or the best of a stored study; or a prior, as it is in its file."""
    path = Path(name)
    if path.is_file():
        config, problems = read_yaml(path.read_bytes())
        if problems or not isinstance(config, dict):
            raise SpecError(
                name, problems or [Problem("(the file)", "must hold a configuration, as `tuner best` prints it.")]
            )
        return config
    if "/" in name:  # an exported folder, or models:/NAME@champion
        return load(name).config
    row = store.study(name)
    chosen = choose(store.trials(row.id), row.objective)
    if chosen is None:
        raise NoBest(f"study {name!r} has no best yet.")
    return chosen.trial.outcome.config or {}


def _record(store: Store, row: StudyRow, changes: Sequence[tuple[str, Any, Any]]) -> None:
    """Remember that the space is another one from the next trial on."""
    trials = sum(trial.confirms is None for trial in store.trials(row.id))
    told = [f"{path.removeprefix('space.')}: {_shown(old)} → {_shown(new)}" for path, old, new in changes]
    known = row.facts.get("space_changes", [])
    store.add_facts(row.id, {"space_changes": [*known, {"after_trials": trials, "changes": told}]})


def space_changes(row: StudyRow) -> list[str]:
    """In words, how the space was changed while the study went on."""
    return [
        f"after {change['after_trials']} trials: {'; '.join(change['changes'])}"
        for change in row.facts.get("space_changes", [])
    ]


def spec_of(row: StudyRow, overrides: Sequence[tuple[str, Any]] = (), inspect: Inspect | None = None) -> StudySpec:
    """The spec of a stored study, with other budgets and another space if given.

    Args:
        row: the stored study.
        overrides: values by path: `search.trials`, `space.model.learning_rate.float.high`, …
        inspect: checks a changed space against the classes.

    Raises:
        SpecError: the changed study has problems, or more than budgets and space would change.
    """
    budgets = {f"search.{key}" for key in BUDGETS}
    wrong = [path for path, _ in overrides if path not in budgets and path.partition(".")[0] != "space"]
    if wrong:
        allowed = f"A study that goes on may change its space and {', '.join(sorted(budgets))}."
        hint = f"{allowed} For another study: tuner run … --set study={row.name}-2."
        raise SpecError(f"tuner resume {row.name}", [Problem(f"--set {path}", hint) for path in wrong])
    return read_study(row.document, overrides, inspect, stored=True)


def _shown(value: Any) -> str:
    text = "(absent)" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
