"""The storage on SQLite and on PostgreSQL: schema, budgets, leases and their fences, counts, and its errors.

PostgreSQL is tested where TUNER_TEST_POSTGRES names a server on which schemas may be made, as an SQLAlchemy URL such
as postgresql+psycopg://root@127.0.0.1/test.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tuner.errors import LeaseLost, StorageUnavailable, StudyNotFound
from tuner.home import shown
from tuner.search import create_optuna_tables
from tuner.storage import Database, Lease, Store, StudyRow, initialise
from tuner.storage.rows import Unfinished
from tuner.storage.schema import VERSION_TABLE
from tuner.storage.tables import TrialTable
from tuner.trial import Report, TrialResult, TrialState

OUR_TABLES = {"tuner_study", "tuner_trial", "tuner_report", "tuner_worker"}
PATIENCE = 60.0


# Databases, fresh for each test


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An opened database without tables."""
    database = Database(url, create=True)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    """A store with its tables."""
    initialise(database)
    return Store(database)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Six processes that begin each task at the same moment."""
    crowd = Crowd()
    yield crowd
    crowd.close()


class Crowd:
    """Processes, started once, that meet at a barrier before each task."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        barriers = {count: context.Barrier(count) for count in (4, 6)}
        self._pool = ProcessPoolExecutor(6, mp_context=context, initializer=_join_crowd, initargs=(barriers,))

    def at_once(self, count: int, task: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run a task in so many processes at the same moment; return their answers."""
        futures = [self._pool.submit(_in_crowd, count, task, number, *arguments) for number in range(count)]
        return [future.result(PATIENCE) for future in futures]

    def close(self) -> None:
        self._pool.shutdown()


_barriers: dict[int, Any] = {}


def _join_crowd(barriers: dict[int, Any]) -> None:
    _barriers.update(barriers)


def _in_crowd(count: int, task: Callable[..., Any], *arguments: Any) -> Any:
    _barriers[count].wait(PATIENCE)
    return task(*arguments)


# What the processes of the crowd do


def initialise_it(number: int, url: str) -> str:
    database = Database(url, create=True)
    try:
        initialise(database, create_optuna_tables)
    finally:
        database.close()
    return "done"


def create_it(number: int, url: str) -> int:
    database = Database(url)
    try:
        return Store(database).create("digits", document(seed=number), seed=number).id
    finally:
        database.close()


def claim_all(number: int, url: str, study_id: int) -> list[int]:
    database = Database(url)
    try:
        store, numbers = Store(database), []
        while lease := store.claim(study_id, f"worker-{number}"):
            numbers.append(lease.trial.number)
            store.finish(lease, complete(0.5))
        return numbers
    finally:
        database.close()


def remember(number: int, url: str, study_id: int) -> None:
    database = Database(url)
    try:
        store = Store(database)
        for i in range(8):
            store.add_facts(study_id, {f"fact-{number}-{i}": i})
            store.add_ledger(study_id, {"cpu": 1.0})
            store.spend(study_id, 1.0)
    finally:
        database.close()


def train_until_the_epochs_are_spent(number: int, url: str, study_id: int) -> int:
    """Claim and train as a worker does: after each epoch ask whether another may follow. Returns epochs trained."""
    database = Database(url)
    try:
        store, trained = Store(database), 0
        while True:
            lease = store.claim(study_id, f"worker-{number}")
            if lease is None:
                if store.plan(study_id, lambda trials: []) == Unfinished(0, 0):
                    return trained
                continue  # others are still training, and may leave some of what was promised to them
            epoch, may_go_on = 0, True
            while may_go_on and epoch < 3:
                epoch += 1
                trained += 1
                store.report(lease, report(epoch))
                may_go_on = (store.epochs_left(study_id) or 0) > 0
            store.finish(lease, complete(0.5, epochs=epoch))
    finally:
        database.close()


# Small things to say


def nobody_is_gone(owner: str) -> bool:
    return False


def everybody_is_gone(owner: str) -> bool:
    return True


def document(trials: int | None = 100, epochs: int | None = None, **more: Any) -> dict[str, Any]:
    return {"search": {"trials": trials, "epochs": epochs}, "objective": {"metric": "val_loss"}, **more}


def report(epoch: int, value: float = 0.5, **metrics: float) -> Report:
    return Report(epoch, {"val_loss": value, **metrics}, value)


def complete(value: float, epochs: int = 1, **more: Any) -> TrialResult:
    return TrialResult(TrialState.COMPLETE, value=value, best_epoch=1, epochs=epochs, **more)


def new_study(store: Store, trials: int | None = 100, epochs: int | None = None) -> StudyRow:
    return store.create("digits", document(trials, epochs), seed=7)


def claimed(store: Store, study: StudyRow, owner: str = "a", after: int = 0) -> Lease:
    """A trial that this owner has taken, which goes on after an epoch if it was begun before."""
    lease = store.claim(study.id, owner)
    assert lease is not None
    if lease.trial.began_after is None:
        store.begin_after(lease, after)
    return lease


def change_trial(store: Store, number: int, **values: Any) -> None:
    """Set columns behind the store's back: a lease that has run out, a trial that took exactly ten seconds."""
    with store.database.write() as session:
        session.execute(sa.update(TrialTable).where(TrialTable.number == number).values(**values))


def let_lease_run_out(store: Store, number: int) -> None:
    change_trial(store, number, lease_until=1.0)


def change_study(store: Store, **values: Any) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in values)
    with store.database.write() as session:
        session.execute(sa.text(f"UPDATE tuner_study SET {columns}"), values)  # noqa: S608 - our own names


# The schema


def test_a_fresh_database_gets_our_tables_and_a_second_initialise_changes_nothing(database: Database) -> None:
    initialise(database)
    store = Store(database)
    study = new_study(store)
    calls: list[str] = []
    initialise(database, calls.append)
    assert set(sa.inspect(database.engine).get_table_names()) >= OUR_TABLES
    assert store.study("digits") == study
    assert calls == []


def test_the_tables_are_those_that_the_code_maps(store: Store) -> None:
    inspector = sa.inspect(store.database.engine)
    for table in TrialTable.metadata.sorted_tables:
        stored = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert stored == {column.name: column.nullable for column in table.columns}


def test_six_processes_may_initialise_a_fresh_database_at_once_with_optunas_tables_beside_ours(
    url: str, crowd: Crowd
) -> None:
    assert crowd.at_once(6, initialise_it, url) == ["done"] * 6
    database = Database(url)
    try:
        tables = set(sa.inspect(database.engine).get_table_names())
        with database.engine.connect() as connection:
            versions = connection.execute(sa.text(f"SELECT count(*) FROM {VERSION_TABLE}")).scalar_one()  # noqa: S608
    finally:
        database.close()
    assert tables >= OUR_TABLES | {"studies", "trials", "alembic_version", VERSION_TABLE}
    assert versions == 1


def test_a_fresh_sqlite_file_that_another_process_is_just_setting_up_is_waited_for(tmp_path: Path) -> None:
    """Switching to the write-ahead log takes a lock for which SQLite itself does not wait."""
    path = tmp_path / "tuner.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    database = Database(f"sqlite:///{path}")
    try:
        initialise(database)
        assert set(sa.inspect(database.engine).get_table_names()) >= OUR_TABLES
    finally:
        release.join()
        other.close()
        database.close()


def test_tables_beside_ours_that_could_not_be_made_are_made_by_the_next_initialise(database: Database) -> None:
    def fails(url: str) -> None:
        raise StorageUnavailable("the server went away")

    with pytest.raises(StorageUnavailable):
        initialise(database, fails)
    calls: list[str] = []
    initialise(database, calls.append)
    assert calls == [database.url]


def test_a_schema_of_a_newer_version_is_refused(store: Store) -> None:
    with store.database.write() as session:
        session.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
    with pytest.raises(StorageUnavailable, match=r"schema '9999'.*newer tuner: upgrade"):
        initialise(store.database)


def test_an_sqlite_database_in_memory_is_refused_because_workers_cannot_share_it() -> None:
    database = Database("sqlite://")
    with pytest.raises(StorageUnavailable, match="must be an SQLite file"):
        initialise(database)
    database.close()


# Studies


def test_a_study_is_found_as_it_was_created(store: Store) -> None:
    created = store.create("digits", document(trials=3, note="ä"), seed=2**32 - 1)
    found = store.find("digits")
    assert found == created
    assert (created.document, created.seed) == (document(trials=3, note="ä"), 2**32 - 1)
    assert store.find("other") is None
    assert [row.name for row in store.studies()] == ["digits"]


def test_creating_a_study_that_exists_returns_it_unchanged(store: Store) -> None:
    first = store.create("digits", document(trials=3), seed=7)
    second = store.create("digits", document(trials=9), seed=8)
    assert second == first


def test_six_processes_that_create_one_study_at_once_share_it(store: Store, crowd: Crowd) -> None:
    ids = crowd.at_once(6, create_it, store.database.url)
    assert len(set(ids)) == 1
    assert len(store.studies()) == 1


def test_going_on_with_a_study_sets_it_running_with_the_new_budget(store: Store) -> None:
    study = new_study(store, trials=1)
    store.finish(claimed(store, study), complete(0.5))
    store.set_state(study.id, "failed", "the metric is missing")
    assert store.study("digits").reason == "the metric is missing"
    store.go_on(study.id, document(trials=2))
    again = store.study("digits")
    assert (again.reason, again.document) == (None, document(trials=2))
    assert claimed(store, study).trial.number == 1


def test_an_unknown_study_is_reported_with_the_closest_name(store: Store) -> None:
    with pytest.raises(StudyNotFound, match="There is none yet"):
        store.study("digits")
    new_study(store)
    with pytest.raises(StudyNotFound, match=r"no study 'digist' in this storage\. Did you mean 'digits'\?"):
        store.study("digist")
    with pytest.raises(StudyNotFound, match="There are: digits"):
        store.study("zzz")


def test_a_running_study_that_nobody_runs_is_interrupted(store: Store) -> None:
    study = new_study(store)
    assert store.study("digits").state == "interrupted"
    claimed(store, study)
    assert store.study("digits").state == "running"
    let_lease_run_out(store, 0)
    assert store.study("digits").state == "interrupted"
    store.become_courier(study.id, "courier", nobody_is_gone)
    assert store.study("digits").state == "running"


def test_a_study_is_complete_only_when_nothing_of_it_is_waiting_or_running(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    store.complete(study.id)
    assert store.study("digits").state == "running"
    store.give_back(lease)
    store.complete(study.id)
    assert store.study("digits").state == "interrupted"
    store.finish(claimed(store, study), complete(0.5))
    store.complete(study.id)
    assert store.study("digits").state == "complete"


def test_a_stopped_study_does_not_become_complete(store: Store) -> None:
    study = new_study(store)
    store.set_state(study.id, "stopped")
    store.complete(study.id)
    assert store.study("digits").state == "stopped"


def test_facts_and_spent_seconds_add_up(store: Store) -> None:
    study = new_study(store)
    store.add_facts(study.id, {"data_hash": "abc", "threads": 1})
    store.add_facts(study.id, {"threads": 2})
    store.spend(study.id, 1.5)
    store.spend(study.id, 2.0)
    store.set_tracked(study.id, {"run_id": "r"})
    row = store.study("digits")
    assert row.facts == {"data_hash": "abc", "threads": 2}
    assert row.active_seconds == 3.5
    assert row.tracked == {"run_id": "r"}


def test_the_ledger_adds_up_beside_the_facts(store: Store) -> None:
    study = new_study(store)
    store.add_facts(study.id, {"data_hash": "abc"})
    store.add_ledger(study.id, {"worker_cpu": 1.5})
    store.add_ledger(study.id, {"worker_cpu": 0.25, "courier": 2.0})
    assert store.study("digits").facts == {"data_hash": "abc", "ledger": {"worker_cpu": 1.75, "courier": 2.0}}


def test_what_six_processes_remember_of_a_study_at_once_is_all_kept(store: Store, crowd: Crowd) -> None:
    study = new_study(store)
    crowd.at_once(6, remember, store.database.url, study.id)
    facts = store.study("digits").facts
    assert facts.pop("ledger") == {"cpu": 6 * 8 * 1.0}
    assert facts == {f"fact-{number}-{i}": i for number in range(6) for i in range(8)}
    assert store.study("digits").active_seconds == 6 * 8 * 1.0


# Claims and budgets


def test_claims_hand_out_numbers_in_order_each_with_a_seed_of_its_own(store: Store) -> None:
    study = new_study(store, trials=3)
    leases = [claimed(store, study) for _ in range(3)]
    assert [lease.trial.number for lease in leases] == [0, 1, 2]
    assert len({lease.trial.seed for lease in leases}) == 3
    assert all(0 <= lease.trial.seed < 2**32 for lease in leases)
    assert [lease.trial.state for lease in leases] == [TrialState.RUNNING] * 3
    assert [(lease.trial.params, lease.trial.attempt) for lease in leases] == [(None, 1)] * 3


def test_two_studies_number_their_trials_and_spend_their_budgets_apart(store: Store) -> None:
    first = store.create("first", document(trials=2), seed=7)
    second = store.create("second", document(trials=1), seed=8)
    seeds = [claimed(store, study).trial.seed for study in (first, second)]
    assert claimed(store, first).trial.number == 1
    assert store.claim(second.id, "a") is None
    assert store.claim(first.id, "a") is None
    assert seeds[0] != seeds[1]


def test_no_trial_is_opened_beyond_the_budget_of_trials(store: Store) -> None:
    study = new_study(store, trials=2)
    claimed(store, study)
    claimed(store, study)
    assert store.claim(study.id, "a") is None


def test_a_budget_of_no_trials_at_all_opens_none(store: Store) -> None:
    assert store.claim(new_study(store, trials=0).id, "a") is None


def test_a_waiting_trial_may_be_claimed_although_no_new_one_may_be_opened(store: Store) -> None:
    study = new_study(store)
    assert store.claim(study.id, "a", open_new=False) is None
    store.give_back(claimed(store, study))
    lease = store.claim(study.id, "a", open_new=False)
    assert lease is not None
    assert lease.trial.number == 0


def test_a_study_that_is_not_running_gives_no_trial(store: Store) -> None:
    study = new_study(store)
    store.give_back(claimed(store, study))
    store.set_state(study.id, "stopped")
    assert store.claim(study.id, "a") is None


def test_an_epoch_is_not_promised_twice_while_a_trial_is_being_opened(postgres_url: str) -> None:
    """A trial is opened for the last epoch but one, and meanwhile the one that runs asks for another.

    On SQLite a writer owns the database, so this can only happen on a server.
    """
    slow_database, quick_database = Database(postgres_url), Database(postgres_url)
    initialise(slow_database)
    slow_store, quick_store = Store(slow_database), Store(quick_database)
    study = new_study(slow_store, trials=None, epochs=2)
    lease = claimed(slow_store, study, "a")
    left: list[int | None] = []

    def train() -> None:
        quick_store.report(lease, report(1))
        left.append(quick_store.epochs_left(study.id))

    trainer = threading.Thread(target=train)
    meanwhile(slow_database, "INSERT INTO tuner_trial", trainer, quick_database)
    opened = slow_store.claim(study.id, "b")
    trainer.join(PATIENCE)
    try:
        assert opened is not None, "one epoch was left"
        assert left == [0], "and it is the other trial's"
    finally:
        slow_database.close()
        quick_database.close()


def meanwhile(database: Database, statement: str, thread: threading.Thread, other: Database) -> None:
    """Just before such a statement, run a thread, until it is done or waits for a lock of this transaction."""
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE :us = ANY (pg_blocking_pids(pid))")

    def before(connection: Any, cursor: Any, told: str, *_: Any) -> None:
        if not told.startswith(statement) or thread.ident:
            return
        thread.start()
        us = connection.connection.dbapi_connection.info.backend_pid
        with other.engine.connect() as looking:
            while thread.is_alive() and not looking.execute(waiting, {"us": us}).scalar_one():
                looking.rollback()  # the view of the server's activity stands still within a transaction
                thread.join(0.01)

    sa.event.listen(database.engine, "before_cursor_execute", before)


def test_no_trial_is_opened_once_the_epochs_are_spent(store: Store) -> None:
    study = new_study(store, trials=None, epochs=3)
    lease = claimed(store, study)
    for epoch in (1, 2):
        store.report(lease, report(epoch))
    assert store.epochs_left(study.id) == 1
    store.report(lease, report(3))
    assert store.epochs_left(study.id) == 0
    store.finish(lease, complete(0.5, epochs=3))
    assert store.claim(study.id, "a") is None


def test_epochs_are_not_limited_without_a_budget(store: Store) -> None:
    assert store.epochs_left(new_study(store).id) is None


def test_epochs_of_a_trial_that_was_given_back_are_spent(store: Store) -> None:
    study = new_study(store, epochs=5)
    lease = claimed(store, study)
    store.report(lease, report(1))
    store.report(lease, report(2))
    store.give_back(lease)
    store.report(claimed(store, study), report(1))
    assert store.epochs_left(study.id) == 2


def test_an_epoch_that_is_being_trained_is_not_promised_to_a_second_worker(store: Store) -> None:
    study = new_study(store, trials=None, epochs=2)
    claimed(store, study, "a")
    claimed(store, study, "b")
    assert store.claim(study.id, "c") is None


def test_four_processes_open_exactly_the_budget_of_trials_and_no_number_twice(store: Store, crowd: Crowd) -> None:
    study = new_study(store, trials=30)
    answers = crowd.at_once(4, claim_all, store.database.url, study.id)
    assert sorted(number for numbers in answers for number in numbers) == list(range(30))
    assert store.summary(study.id).count(TrialState.COMPLETE) == 30


def test_four_processes_train_exactly_the_budget_of_epochs(store: Store, crowd: Crowd) -> None:
    study = new_study(store, trials=None, epochs=31)
    answers = crowd.at_once(4, train_until_the_epochs_are_spent, store.database.url, study.id)
    assert sum(answers) == 31
    assert store.summary(study.id).epochs == 31


# Leases and fences


def test_what_a_worker_writes_is_read_back(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    store.propose(lease, {"model.depth": 2, "model.lr": 1e-5, "model.norm": "batch", "model.bias": True})
    assert store.report(lease, report(1, 0.75, val_acc=0.5))
    assert store.report(lease, report(2, 0.5, val_acc=0.625))
    result = TrialResult(
        TrialState.PRUNED,
        value=0.5,
        metrics={"val_loss": 0.5, "val_acc": 0.625},
        best_epoch=2,
        epochs=2,
        reason="pruned at epoch 2",
        config={"seed_everything": 3, "model": {"class_path": "a.B", "init_args": {"widths": [1, 2], "bias": None}}},
        seconds={"ask": 0.25, "train": 1.5},
        detail="Traceback …",
    )
    store.finish(lease, result)
    [trial] = store.trials(study.id)
    assert trial.result == result
    assert trial.params == {"model.depth": 2, "model.lr": 1e-5, "model.norm": "batch", "model.bias": True}
    assert trial.values == {1: 0.75, 2: 0.5}
    assert trial.started is not None
    assert trial.finished is not None
    assert trial.finished >= trial.started


def test_two_running_trials_never_get_the_same_values(store: Store) -> None:
    study = new_study(store)
    first, second = claimed(store, study, "a"), claimed(store, study, "b")
    assert store.propose(first, {"model.depth": 2})
    assert not store.propose(second, {"model.depth": 2})
    assert store.trials(study.id)[1].params is None
    assert store.propose(second, {"model.depth": 3})


def test_a_trial_with_nothing_to_propose_is_withdrawn_and_one_with_values_is_not(store: Store) -> None:
    study = new_study(store)
    first, second = claimed(store, study, "a"), claimed(store, study, "b")
    store.propose(first, {"model.depth": 2})
    store.withdraw(second)
    store.withdraw(first)
    assert [trial.number for trial in store.trials(study.id)] == [0]


@pytest.mark.parametrize(
    ("state", "infeasible"), [(TrialState.PRUNED, True), (TrialState.PRUNED, False), (TrialState.FAILED, False)]
)
def test_a_trial_without_a_value_keeps_its_state_and_whether_it_is_infeasible(
    store: Store, state: TrialState, infeasible: bool
) -> None:
    study = new_study(store)
    store.finish(claimed(store, study), TrialResult(state, reason="because", infeasible=infeasible))
    [trial] = store.trials(study.id)
    assert (trial.state, trial.outcome.infeasible, trial.outcome.reason) == (state, infeasible, "because")
    assert trial.value is None


def test_metrics_that_are_not_finite_are_stored_as_null(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    store.propose(lease, {})
    store.report(lease, report(1, 0.5, grad=math.nan, norm=math.inf, acc=0.25))
    [waiting] = store.untracked(study.id)
    assert waiting.reports[0][2] == {"val_loss": 0.5, "grad": None, "norm": None, "acc": 0.25}
    store.finish(lease, complete(0.5, metrics={"val_loss": 0.5, "grad": math.nan}))
    with store.database.read() as session:
        raw = session.execute(sa.text("SELECT metrics FROM tuner_trial")).scalar_one()
    assert (json.loads(raw) if isinstance(raw, str) else raw) == {"val_loss": 0.5, "grad": None}
    assert store.trials(study.id)[0].outcome.metrics == {"val_loss": 0.5}


def test_a_worker_that_lost_its_lease_can_neither_propose_nor_report_nor_finish(store: Store) -> None:
    study = new_study(store)
    old = claimed(store, study, "a")
    store.propose(old, {"model.depth": 1})
    let_lease_run_out(store, 0)
    assert store.reclaim(study.id, nobody_is_gone) == [0]
    for write in (
        lambda lease: store.propose(lease, {"model.depth": 9}),
        lambda lease: store.report(lease, report(1)),
        lambda lease: store.finish(lease, complete(0.125)),
    ):
        with pytest.raises(LeaseLost, match="trial 0"):
            write(old)
    new = claimed(store, study, "b")
    with pytest.raises(LeaseLost):
        store.report(old, report(1, 0.125))
    with pytest.raises(LeaseLost):
        store.finish(old, complete(0.125))
    assert store.report(new, report(1, 0.5))
    store.finish(new, complete(0.5))
    [trial] = store.trials(study.id)
    assert (trial.value, trial.params, trial.values) == (0.5, {"model.depth": 1}, {1: 0.5})


def test_a_worker_that_lost_its_lease_cannot_take_the_trial_from_the_new_one(store: Store) -> None:
    study = new_study(store)
    old = claimed(store, study, "a")
    let_lease_run_out(store, 0)
    store.reclaim(study.id, nobody_is_gone)
    new = claimed(store, study, "b")
    store.give_back(old)
    store.renew([old])
    assert store.report(new, report(1))
    let_lease_run_out(store, 0)
    store.renew([old])
    assert store.reclaim(study.id, nobody_is_gone) == [0]


def test_a_finished_trial_cannot_be_written_again(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    store.finish(lease, complete(0.5))
    with pytest.raises(LeaseLost):
        store.finish(lease, complete(0.25))
    store.give_back(lease)
    assert store.trials(study.id)[0].value == 0.5


def test_a_trial_that_is_given_back_comes_again_with_its_values_and_seed(store: Store) -> None:
    study = new_study(store)
    first = claimed(store, study)
    store.propose(first, {"model.depth": 2})
    store.report(first, report(1, 0.25))
    store.give_back(first)
    [waiting] = store.trials(study.id)
    assert (waiting.state, waiting.began_after) == (TrialState.WAITING, None)
    second = claimed(store, study)
    assert second.trial.number == 0
    assert second.trial.params == {"model.depth": 2}
    assert second.trial.seed == first.trial.seed
    assert store.report(second, report(1, 0.5))
    assert store.trials(study.id)[0].values == {1: 0.5}


def test_a_trial_goes_on_after_an_epoch_and_what_it_reported_later_was_for_nothing(store: Store) -> None:
    study = new_study(store, epochs=20)
    first = claimed(store, study)
    for epoch in range(1, 8):
        store.report(first, report(epoch, 1 / epoch))
    change_trial(store, 0, started_at=sa.func.coalesce(TrialTable.started_at, 0.0) - 100.0)
    store.reclaim(study.id, everybody_is_gone)
    [waiting] = store.trials(study.id)
    assert set(waiting.values) == set(range(1, 8)), "until somebody says how far it was kept"
    assert waiting.wasted_seconds == pytest.approx(100.0, abs=30.0)
    assert store.epochs_left(study.id) == 20 - 7
    second = store.claim(study.id, "b")
    assert second is not None
    assert (second.trial.began_after, second.trial.values) == (None, {e: 1 / e for e in range(1, 8)})
    taken_up = store.begin_after(second, 5, 60.0)
    assert taken_up == store.trials(study.id)[0]
    assert store.begin_after(second, 5, 60.0) == taken_up, "whose answer was lost may say it again"
    assert (taken_up.began_after, set(taken_up.values)) == (5, {1, 2, 3, 4, 5})
    assert taken_up.wasted_seconds == pytest.approx(40.0, abs=30.0)
    assert store.summary(study.id).epochs == 7
    assert store.summary(study.id).seconds == pytest.approx(100.0, abs=30.0)
    for epoch in (6, 7, 8):
        store.report(second, report(epoch, 0.125))
    assert store.epochs_left(study.id) == 20 - 7 - 3
    store.finish(second, complete(0.125, epochs=8, seconds={"train": 90.0}))
    summary = store.summary(study.id)
    assert (summary.epochs, set(store.trials(study.id)[0].values)) == (10, set(range(1, 9)))
    assert summary.seconds == pytest.approx(90.0 + 40.0, abs=30.0)


def test_what_was_kept_counts_as_wasted_again_when_it_is_lost(store: Store) -> None:
    study = new_study(store)
    claimed(store, study)
    for kept in (60.0, 0.0):
        change_trial(store, 0, started_at=sa.func.coalesce(TrialTable.started_at, 0.0) - 100.0)
        store.reclaim(study.id, everybody_is_gone)
        lease = store.claim(study.id, "b")
        assert lease is not None
        wasted = store.begin_after(lease, 0, kept).wasted_seconds
    assert wasted == pytest.approx(200.0, abs=30.0)
    assert store.summary(study.id).seconds == pytest.approx(200.0, abs=30.0)


def test_only_the_owner_says_after_which_epoch_a_trial_goes_on(store: Store) -> None:
    study = new_study(store)
    store.report(claimed(store, study), report(1))
    store.reclaim(study.id, everybody_is_gone)
    stale = store.claim(study.id, "b")
    assert stale is not None
    store.reclaim(study.id, everybody_is_gone)
    with pytest.raises(LeaseLost, match="trial 0"):
        store.begin_after(stale, 0)
    assert set(store.trials(study.id)[0].values) == {1}
    store.claim(study.id, "c")
    with pytest.raises(LeaseLost, match="trial 0"):
        store.begin_after(stale, 0)


def test_mlflow_hears_of_a_trial_that_was_lost_once_it_is_known_how_far_it_was_kept(store: Store) -> None:
    study = new_study(store)
    first = claimed(store, study)
    store.propose(first, {})
    for epoch in (1, 2):
        store.report(first, report(epoch))
    store.reclaim(study.id, everybody_is_gone)
    second = store.claim(study.id, "b")
    assert second is not None
    assert (store.untracked(study.id), store.count_untracked(study.id)) == ([], 0)
    store.begin_after(second, 1)
    [waiting] = store.untracked(study.id)
    assert ([epoch for epoch, *_ in waiting.reports], store.count_untracked(study.id)) == ([1], 1)


def test_giving_back_does_not_count_as_an_attempt(store: Store) -> None:
    study = new_study(store)
    for _ in range(5):
        lease = claimed(store, study)
        assert lease.trial.attempt == 1
        store.give_back(lease)
    assert store.trials(study.id)[0].state is TrialState.WAITING


def test_waiting_trials_come_before_new_ones_lowest_number_first(store: Store) -> None:
    study = new_study(store)
    leases = [claimed(store, study) for _ in range(3)]
    for lease in reversed(leases[1:]):
        store.give_back(lease)
    assert [claimed(store, study).trial.number for _ in range(3)] == [1, 2, 3]


def test_three_lost_workers_make_a_failed_trial_with_a_reason(store: Store) -> None:
    study = new_study(store, trials=1)
    for attempt in (1, 2, 3):
        lease = claimed(store, study, f"host/boot/4026|{10 + attempt}|99")
        assert lease.trial.attempt == attempt
        store.report(lease, report(1))
        assert store.reclaim(study.id, everybody_is_gone) == [0]
    [trial] = store.trials(study.id)
    assert trial.state is TrialState.FAILED
    assert trial.outcome.reason == (
        "lost 3 workers, which died or fell silent while training it: "
        "host, process 11, in epoch 2; host, process 12, in epoch 2; host, process 13, in epoch 2"
    )
    assert store.claim(study.id, "a") is None
    summary = store.summary(study.id)
    assert (summary.count(TrialState.FAILED), summary.epochs) == (1, 3)


def test_reclaim_leaves_a_living_worker_with_a_fresh_lease_alone(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    assert store.reclaim(study.id, nobody_is_gone) == []
    assert store.report(lease, report(1))


def test_reclaim_takes_the_trials_of_dead_workers_however_fresh_their_leases(store: Store) -> None:
    study = new_study(store)
    for owner in ("dead", "alive", "dead", "finished"):
        last = claimed(store, study, owner)
    store.finish(last, complete(0.5))
    assert store.reclaim(study.id, lambda owner: owner in ("dead", "finished")) == [0, 2]
    assert [t.state.value for t in store.trials(study.id)] == ["waiting", "running", "waiting", "complete"]


def test_the_owners_are_those_who_train_now_each_once(store: Store) -> None:
    study = new_study(store)
    leases = {owner: claimed(store, study, owner) for owner in ("b", "finished", "gave-back", "a")}
    store.finish(leases["finished"], complete(0.5))
    store.give_back(leases["gave-back"])
    claimed(store, study, "b")
    assert store.owners(study.id) == ["a", "b"]


def test_reclaim_leaves_other_studies_alone(store: Store) -> None:
    study, other = new_study(store), store.create("other", document(), seed=8)
    lease = claimed(store, other)
    assert store.reclaim(study.id, everybody_is_gone) == []
    assert store.report(lease, report(1))


@pytest.mark.parametrize("beat", ["report", "renew"])
def test_a_report_or_a_heartbeat_renews_the_lease(store: Store, beat: str) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    let_lease_run_out(store, 0)
    if beat == "report":
        store.report(lease, report(1))
    else:
        store.renew([lease])
    assert store.reclaim(study.id, nobody_is_gone) == []


def test_a_report_says_no_once_the_study_is_stopped_and_is_kept(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    assert store.report(lease, report(1)) is True
    store.set_state(study.id, "stopped")
    assert store.report(lease, report(2)) is False
    assert set(store.trials(study.id)[0].values) == {1, 2}


@pytest.mark.parametrize("slow", ["reclaim", "give_back"])
def test_returning_a_trial_to_the_queue_never_undoes_the_claim_of_another_worker(postgres_url: str, slow: str) -> None:
    """One worker is about to write that the trial goes back, while another has it reclaimed and claims it.

    On SQLite a writer owns the database, so this can only happen on a server.
    """
    slow_database, quick_database = Database(postgres_url), Database(postgres_url)
    initialise(slow_database)
    slow_store, quick_store = Store(slow_database), Store(quick_database)
    study = new_study(slow_store)
    first = claimed(slow_store, study, "lost")
    let_lease_run_out(slow_store, 0)
    taken: list[Lease | None] = []

    def take() -> None:
        quick_store.reclaim(study.id, nobody_is_gone)
        taken.append(quick_store.claim(study.id, "new", open_new=False))

    taker = threading.Thread(target=take)

    meanwhile(slow_database, "UPDATE tuner_trial", taker, quick_database)
    if slow == "reclaim":
        slow_store.reclaim(study.id, nobody_is_gone)
    else:
        slow_store.give_back(first)
    taker.join(PATIENCE)
    [lease] = taken
    try:
        assert lease is not None
        assert lease.token > first.token
        assert quick_store.report(lease, report(1)) is True
        assert slow_store.claim(study.id, "third", open_new=False) is None
    finally:
        slow_database.close()
        quick_database.close()


# Confirming runs


def test_plan_queues_confirming_runs_with_the_values_of_what_they_confirm(store: Store) -> None:
    study = new_study(store, trials=1)
    lease = claimed(store, study)
    store.propose(lease, {"model.depth": 2})
    store.finish(lease, complete(0.5))
    told = store.plan(study.id, lambda trials: [(0, 11), (0, 12)])
    assert told is not None
    assert (told.waiting, told.running) == (2, 0)
    runs = [claimed(store, study).trial for _ in range(2)]
    assert [(t.number, t.confirms, t.seed, t.params) for t in runs] == [
        (1, 0, 11, {"model.depth": 2}),
        (2, 0, 12, {"model.depth": 2}),
    ]
    assert store.claim(study.id, "a") is None


@pytest.mark.parametrize("unfinished", ["running", "waiting"])
def test_plan_queues_nothing_while_a_trial_is_unfinished(store: Store, unfinished: str) -> None:
    study = new_study(store)
    store.finish(claimed(store, study), complete(0.5))
    lease = claimed(store, study)
    if unfinished == "waiting":
        store.give_back(lease)
    told = store.plan(study.id, lambda trials: pytest.fail("nobody may be asked yet"))
    assert told is not None
    assert (told.waiting, told.running) == ((1, 0) if unfinished == "waiting" else (0, 1))
    assert len(store.trials(study.id)) == 2


def test_plan_queues_confirming_runs_only_once(store: Store) -> None:
    study = new_study(store, trials=1)
    store.finish(claimed(store, study), complete(0.5))

    def needed(trials: list[Any]) -> list[tuple[int, int]]:
        return [] if any(t.confirms == 0 for t in trials) else [(0, 11)]

    for _ in range(3):
        told = store.plan(study.id, needed)
        assert told is not None
        assert told.waiting == 1
    store.finish(claimed(store, study), complete(0.25))
    told = store.plan(study.id, needed)
    assert told is not None
    assert (told.waiting, told.running) == (0, 0)
    assert len(store.trials(study.id)) == 2


def test_a_stopped_study_plans_nothing(store: Store) -> None:
    study = new_study(store)
    store.set_state(study.id, "stopped")
    assert store.plan(study.id, lambda trials: [(0, 11)]) is None


def test_confirming_runs_are_spent_from_no_budget_of_the_search(store: Store) -> None:
    study = new_study(store, trials=2, epochs=10)
    store.finish(claimed(store, study), complete(0.5, epochs=4))
    store.plan(study.id, lambda trials: [(0, 11)])
    store.finish(claimed(store, study), complete(0.5, epochs=4))
    assert store.epochs_left(study.id) == 6
    assert claimed(store, study).trial.confirms is None
    assert store.claim(study.id, "a") is None


# For those who look


def test_trials_returns_only_what_changed_since(store: Store) -> None:
    study = new_study(store)
    leases = [claimed(store, study) for _ in range(3)]
    seen = {t.number: t.revision for t in store.trials(study.id)}
    assert store.trials(study.id, seen) == []
    store.report(leases[1], report(1, 0.25))
    store.finish(leases[2], complete(0.5))
    changed = store.trials(study.id, seen)
    assert [(t.number, t.values, t.value) for t in changed] == [(1, {1: 0.25}, None), (2, {}, 0.5)]
    store.reclaim(study.id, everybody_is_gone)
    seen |= {t.number: t.revision for t in changed}
    assert [(t.number, t.state.value) for t in store.trials(study.id, seen)] == [(0, "waiting"), (1, "waiting")]
    store.finish(claimed(store, study), complete(0.75))
    new = claimed(store, study), claimed(store, study)
    assert [lease.trial.number for lease in new] == [1, 3]
    seen = {t.number: t.revision for t in store.trials(study.id) if t.number != 3}
    assert [t.number for t in store.trials(study.id, seen)] == [3]


def test_hundreds_of_changed_trials_come_without_those_that_did_not_change(store: Store) -> None:
    study, other = new_study(store, trials=1), store.create("other", document(), seed=8)
    claimed(store, other)
    store.finish(claimed(store, study), complete(0.5))
    store.plan(study.id, lambda trials: [(0, seed) for seed in range(600)])
    known = {0: store.trials(study.id)[0].revision}
    assert [t.number for t in store.trials(study.id, known)] == list(range(1, 601))


# For workers that follow


def test_a_feed_hands_out_every_trial_and_then_only_what_changes(store: Store) -> None:
    study = new_study(store)
    leases = [claimed(store, study) for _ in range(3)]
    store.propose(leases[0], {"x": 0.5})
    store.report(leases[0], report(1, 0.25))
    store.report(leases[0], report(2, 0.125))
    store.finish(leases[1], complete(0.5, epochs=4, config={"model": {}}))
    feed = store.feed(study.id)
    assert [(t.number, t.params, t.values, t.value) for t in feed.changes()] == [
        (0, {"x": 0.5}, {1: 0.25, 2: 0.125}, None),
        (1, None, {}, 0.5),
        (2, None, {}, None),
    ]
    assert feed.changes() == []
    store.report(leases[0], report(3, 0.0625))
    store.finish(leases[2], TrialResult(TrialState.PRUNED, 0.75, epochs=2, infeasible=True, reason="diverged"))
    claimed(store, study)
    running, pruned, new = feed.changes()
    assert (running.number, running.values) == (0, {1: 0.25, 2: 0.125, 3: 0.0625})
    assert pruned.outcome == TrialResult(TrialState.PRUNED, 0.75, epochs=2, infeasible=True, reason="diverged")
    assert (new.number, new.state) == (3, TrialState.RUNNING)


def test_a_feed_tells_of_own_trials_once_they_are_no_longer_left_out(store: Store) -> None:
    study, feed = new_study(store), None
    leases = [claimed(store, study) for _ in range(2)]
    feed = store.feed(study.id)
    assert [t.number for t in feed.changes(without={0})] == [1]
    store.finish(leases[0], complete(0.5))
    assert feed.changes(without={0}) == []
    assert [(t.number, t.value) for t in feed.changes()] == [(0, 0.5)]
    assert feed.changes() == []


def test_a_feed_does_not_ask_about_trials_that_cannot_change_any_more(store: Store) -> None:
    study = new_study(store)
    store.finish(claimed(store, study), complete(0.5))
    feed = store.feed(study.id)
    assert len(feed.changes()) == 1
    change_trial(store, 0, revision=99)  # which no write does
    assert feed.changes() == []


def test_a_feed_notices_failed_trials_that_are_tried_again_and_numbers_used_again(store: Store) -> None:
    study = new_study(store)
    feed = store.feed(study.id)
    store.finish(claimed(store, study), TrialResult(TrialState.FAILED, reason="ValueError"))
    withdrawn = claimed(store, study)
    assert [(t.number, t.state.value) for t in feed.changes()] == [(0, "failed"), (1, "running")]
    store.withdraw(withdrawn)
    store.retry_failed(study.id)
    assert [(t.number, t.state.value) for t in feed.changes()] == [(0, "waiting")]
    store.finish(claimed(store, study), complete(0.25))
    again = claimed(store, study)
    assert again.trial.number == 1
    store.propose(again, {"x": 0.5})
    assert [(t.number, t.state.value) for t in feed.changes()] == [(0, "complete"), (1, "running")]


def test_hundreds_of_trials_come_at_once_with_their_own_values(store: Store) -> None:
    study, other = new_study(store, trials=1), store.create("other", document(), seed=8)
    store.finish(claimed(store, study), complete(0.5))
    store.plan(study.id, lambda trials: [(0, seed) for seed in range(600)])
    for owner in (study, other):
        for epoch in (2, 1) if owner is study else (1,):
            lease = claimed(store, owner)
            store.report(lease, report(epoch, lease.trial.number + epoch / 8))
            store.report(lease, report(epoch + 2, lease.trial.number + 0.5))
    followed = store.feed(study.id).changes()
    assert len(followed) == 601
    assert [(t.number, t.values) for t in followed if t.values] == [(1, {2: 1.25, 4: 1.5}), (2, {1: 2.125, 3: 2.5})]
    assert [t.values for t in followed] == [t.values for t in store.trials(study.id)]


def test_a_number_that_was_withdrawn_leaves_room_for_another_trial(store: Store) -> None:
    study = new_study(store, trials=2)
    first, _ = claimed(store, study), claimed(store, study)
    assert store.claim(study.id, "a") is None
    store.withdraw(first)
    assert claimed(store, study).trial.number == 2
    assert store.claim(study.id, "a") is None


def test_a_worker_keeps_one_connection_and_its_heartbeat_none(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.read() as one, database.read() as other:
        assert one.scalar(sa.select(1)) == other.scalar(sa.select(1))
    assert database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    database.close()


def test_the_summary_counts_proposals_by_state_and_adds_up_what_they_cost(store: Store) -> None:
    study = new_study(store)
    for result in (
        complete(0.5, epochs=5),
        TrialResult(TrialState.PRUNED, value=0.75, epochs=2),
        TrialResult(TrialState.FAILED, reason="broken", epochs=1),
        complete(0.25, epochs=4),
    ):
        store.finish(claimed(store, study), result)
    for number, seconds in enumerate((10.0, 3.0, 2.0, 8.0)):
        change_trial(store, number, started_at=1000.0, finished_at=1000.0 + seconds)
    store.plan(study.id, lambda trials: [(3, 11)])
    store.finish(claimed(store, study), complete(0.25, epochs=4))
    change_trial(store, 4, started_at=1000.0, finished_at=1007.0)
    lost = claimed(store, study)
    for epoch in (1, 2, 3):
        store.report(lost, report(epoch))
    store.give_back(lost)
    change_trial(store, 5, wasted_seconds=6.0)
    running = claimed(store, study)
    store.report(running, report(1))
    claimed(store, study)

    summary = store.summary(study.id)
    assert {state.value: summary.count(state) for state in TrialState} == {
        "waiting": 0,
        "running": 2,
        "complete": 2,
        "pruned": 1,
        "failed": 1,
    }
    assert summary.confirming == 1
    assert summary.epochs == 5 + 2 + 1 + 4 + 4 + 3 + 1
    assert summary.seconds == pytest.approx(10 + 3 + 2 + 8 + 7 + 6)
    assert summary.wasted_seconds == pytest.approx(3 + 2 + 6)


def test_a_study_without_trials_has_cost_nothing(store: Store) -> None:
    summary = store.summary(new_study(store).id)
    assert (summary.epochs, summary.seconds, summary.wasted_seconds, summary.confirming) == (0, 0.0, 0.0, 0)
    assert summary.count(TrialState.COMPLETE) == 0


def test_the_time_of_a_lost_worker_is_wasted(store: Store) -> None:
    study = new_study(store)
    claimed(store, study)
    with store.database.read() as session:
        started = session.execute(sa.select(TrialTable.started_at)).scalar_one()
    change_trial(store, 0, started_at=started - 100.0)
    store.reclaim(study.id, everybody_is_gone)
    assert store.trials(study.id)[0].wasted_seconds == pytest.approx(100.0, abs=30.0)


# The courier


def test_a_second_courier_waits_until_the_lease_of_the_first_is_over(store: Store) -> None:
    study = new_study(store)
    assert store.become_courier(study.id, "first", nobody_is_gone)
    assert store.become_courier(study.id, "first", nobody_is_gone)
    assert not store.become_courier(study.id, "second", nobody_is_gone)
    change_study(store, courier_until=1.0)
    assert store.become_courier(study.id, "second", nobody_is_gone)
    assert not store.become_courier(study.id, "first", nobody_is_gone)


def test_a_second_courier_takes_over_at_once_from_one_that_is_gone(store: Store) -> None:
    study = new_study(store)
    store.become_courier(study.id, "first", nobody_is_gone)
    assert store.become_courier(study.id, "second", lambda owner: owner == "first")


def test_only_the_courier_itself_can_leave(store: Store) -> None:
    study = new_study(store)
    store.become_courier(study.id, "first", nobody_is_gone)
    store.leave_courier(study.id, "second")
    assert not store.become_courier(study.id, "second", nobody_is_gone)
    store.leave_courier(study.id, "first")
    assert store.become_courier(study.id, "second", nobody_is_gone)


def test_what_tracking_has_not_seen_waits_until_it_is_marked(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    assert store.untracked(study.id) == []
    store.propose(lease, {"model.depth": 2})
    store.report(lease, report(1, 0.5, val_acc=0.25))
    [waiting] = store.untracked(study.id)
    assert (waiting.run_id, [(epoch, metrics) for epoch, _, metrics in waiting.reports]) == (
        None,
        [(1, {"val_loss": 0.5, "val_acc": 0.25})],
    )
    store.report(lease, report(2, 0.25))
    store.mark_tracked(study.id, {0: (waiting.trial.revision, "run")})
    [waiting] = store.untracked(study.id)
    assert waiting.run_id == "run"
    assert [epoch for epoch, _, _ in waiting.reports] == [1, 2]
    assert store.count_untracked(study.id) == 1
    store.mark_tracked(study.id, {0: (waiting.trial.revision, "run")})
    assert store.untracked(study.id) == []
    assert store.count_untracked(study.id) == 0


def test_a_trial_that_tracking_has_seen_running_is_brought_again_when_it_goes_back_to_the_queue(store: Store) -> None:
    study = new_study(store)
    lease = claimed(store, study)
    store.propose(lease, {"model.depth": 2})
    [seen] = store.untracked(study.id)
    store.mark_tracked(study.id, {0: (seen.trial.revision, "run")})
    store.give_back(lease)
    assert store.count_untracked(study.id) == 1
    [waiting] = store.untracked(study.id)
    assert (waiting.trial.state, waiting.run_id, waiting.reports) == (TrialState.WAITING, "run", [])


# When it does not answer


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        "oracle9i://user:hunter2@host/db",
        "mysql+nodriver://user:hunter2@host/db",
        "postgresql+psycopg://user:hunter2@host:port/db",
        "postgresql:/user:hunter2@host/db",
    ],
)
def test_a_url_that_cannot_be_used_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(StorageUnavailable) as raised:
        Database(url)
    assert "TUNER_STORAGE must be an SQLAlchemy URL" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_server_that_does_not_answer_is_reported_without_its_password() -> None:
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    database = Database("postgresql+psycopg://user:hunter2@127.0.0.1:9/db")
    for act in (lambda: initialise(database), lambda: Store(database).find("digits")):
        with pytest.raises(StorageUnavailable, match="does not answer") as raised:
            act()
        assert "user:***@127.0.0.1:9" in str(raised.value)
        assert "hunter2" not in str(raised.value)
    database.close()


def test_a_wrong_password_is_reported_without_it(postgres_url: str) -> None:
    named = sa.make_url(postgres_url).set(username="tuner_nobody", password="hunter2")  # noqa: S106
    database = Database(named.render_as_string(hide_password=False))
    with pytest.raises(StorageUnavailable, match="does not answer") as raised:
        initialise(database)
    assert "hunter2" not in str(raised.value)
    database.close()


def test_missing_tables_are_reported_with_the_command_that_makes_them(database: Database) -> None:
    with pytest.raises(StorageUnavailable, match="Its tables are missing: run `tuner init-db` once"):
        Store(database).find("digits")


def test_a_missing_database_is_not_reported_as_missing_tables(postgres_url: str) -> None:
    named = sa.make_url(postgres_url).set(database="tuner_no_such_database")
    database = Database(named.render_as_string(hide_password=False))
    with pytest.raises(StorageUnavailable, match=r"tuner_no_such_database.*does not exist") as raised:
        Store(database).find("digits")
    assert "init-db" not in str(raised.value)
    database.close()


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tuner.db").write_text("this is a letter to grandmother, not a database\n" * 100)
    database = Database(f"sqlite:///{tmp_path / 'tuner.db'}")
    with pytest.raises(StorageUnavailable, match="not a database"):
        initialise(database)
    database.close()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match="cannot be made"):
        Database(f"sqlite:///{tmp_path / 'file' / 'tuner.db'}", create=True)


def test_opening_an_sqlite_file_to_read_makes_none(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'tuner.db'}")
    assert not database.exists()
    assert list(tmp_path.iterdir()) == []
    database.close()


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("sqlite:////home/me/.tuner/tuner.db", "sqlite:////home/me/.tuner/tuner.db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql://host:5432/db?application_name=a@b", "postgresql://host:5432/db?application_name=a@b"),
        ("postgresql+psycopg://me:secret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("http://me:sec:ret@host", "http://me:***@host"),
        ("http://:secret@host/a", "http://:***@host/a"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec/ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@company:secret@host/db", "postgresql://me@company:***@host/db"),
        ("of http://me:secret@a/ and http://you:secret@b/", "of http://me:***@a/ and http://you:***@b/"),
    ],
)
def test_a_url_is_shown_without_its_password_and_otherwise_as_it_is(url: str, printed: str) -> None:
    assert shown(url) == printed


def test_a_password_among_the_options_of_a_url_is_not_shown_either() -> None:
    assert "secret" not in shown("postgresql+psycopg://host/db?user=me&password=secret")
