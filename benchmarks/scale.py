"""How many trials a second the service carries: worker processes whose training costs nothing, beside plain Optuna.

A study of 8 parameters already holds some finished trials of 10 reports each, written straight into the tables, the
same on both sides; then so many workers, each a process with its own connection, work on a number of further trials.
What training says is made up, so all that is measured is the service. A pruner (the median) is asked at every report
and never obeyed, so that every trial has its 10 reports.

- `tuner`: `tuner.study.Work`, the loop of every `tuner worker`: claim a trial, propose its values (priority sampler),
  write them, write each report and ask the pruner, write how the trial ended; leases and the heartbeat thread included.
- `optuna`: `study.ask` and `suggest_*` (TPE), `trial.report` and `should_prune`, `study.tell`, RDBStorage with
  `pool_pre_ping`.

Workers have read the study before the clock starts; it stops when the last trial is finished. `ask` is from wanting a
trial to having its values in the database, `report` one report with the pruner's answer, `tell` the writing of the end.
`first ask` is that of one more process, from opening the storage of a study which it has not read; its imports are not
counted. CPU is the workers'; statements and commits are counted where SQLAlchemy sends them. Afterwards every trial is
read back: `lost` counts those that are missing, counted twice, unfinished or without all their reports.

Both sides run on the database named by --url or TUNER_TEST_POSTGRES, in databases of their own, dropped afterwards.

    python benchmarks/scale.py                                  # an hour, most of it Optuna's, on two idle cores
    python benchmarks/scale.py --sizes 10000 --workers 8        # the comparison that matters
    python benchmarks/scale.py --report                         # runs nothing: the table of what is kept
    python benchmarks/scale.py --quick                          # 100 trials, 2 workers; an SQLite file without a --url
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from tuner.errors import TrialInterrupted
from tuner.search import Search, create_optuna_tables, search_space
from tuner.service.identity import gone, identity
from tuner.service.leases import Leases
from tuner.spec import StudySpec, read_study, trial_config
from tuner.storage import Database, Lease, Store, initialise
from tuner.storage.database import share_safely
from tuner.storage.tables import ReportTable, TrialTable
from tuner.study import Work
from tuner.trial import Report, TrialResult, TrialState, Verdict, trial_seed

RESULTS = Path(__file__).parent / "results" / "scale.jsonl"
SIDES = ("tuner", "optuna")
REPORTS = 10
NAME = "scale"

Row = dict[str, Any]


def number(low: float, high: float, scale: str = "linear") -> dict[str, Any]:
    """A searched number."""
    return {"float": {"low": low, "high": high, "scale": scale}}


SPACE: dict[str, Any] = {
    "model.learning_rate": number(1e-4, 1.0, "log"),
    "model.momentum": number(0.5, 0.99),
    "model.weight_decay": number(1e-7, 1e-2, "log"),
    "model.dropout": number(0.0, 0.5),
    "model.lr_decay": number(0.8, 1.0),
    "model.hidden_units": {"int": {"low": 16, "high": 512, "scale": "log"}},
    "model.depth": {"int": {"low": 1, "high": 6}},
    "model.activation": {"choice": {"values": ["relu", "tanh", "gelu"]}},
}


def document(trials: int) -> dict[str, Any]:
    """The study file."""
    return {
        "study": NAME,
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {"max_epochs": REPORTS, "accelerator": "cpu", "devices": 1},
        "seed_everything": 7,
        "space": SPACE,
        "search": {"sampler": "priority", "trials": trials, "pruner": "median", "patience": None, "confirm": 0},
    }


def course(params: Mapping[str, Any], seed: int) -> list[float]:
    """What a trial of these values says after each epoch: a valley in some of them, an approach, and noise."""
    far = (np.log10(params["model.learning_rate"]) + 1.5) ** 2 / 4
    far += (params["model.momentum"] - 0.9) ** 2 * 5 + (params["model.dropout"] - 0.2) ** 2 * 2
    far += 0.1 * (params["model.activation"] != "relu")
    noise = np.random.default_rng(seed).normal(scale=0.02, size=REPORTS)
    return [float(0.1 + far + 1.0 / epoch + n) for epoch, n in enumerate(noise, start=1)]


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        side: `tuner` or `optuna`.
        finished: trials that the study already holds.
        workers: processes.
        trials: how many further trials they work on.
        url: the server, or "" for an SQLite file.
    """

    side: str
    finished: int
    workers: int
    trials: int
    url: str = field(compare=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells rows apart."""
        return self.side, self.finished, self.workers, bool(self.url)


@dataclass
class Clock:
    """What a worker has spent: seconds of each ask, report and tell, what it sent to the database, when it ended."""

    asks: list[float] = field(default_factory=list)
    reports: list[float] = field(default_factory=list)
    tells: list[float] = field(default_factory=list)
    statements: int = 0
    commits: int = 0
    ended: float = 0.0

    def tell(self, began: float) -> None:
        """A trial is finished."""
        self.tells.append(time.perf_counter() - began)
        self.ended = time.time()

    def count(self, engine: sa.Engine) -> None:
        """Count what this engine sends from now on."""

        @sa.event.listens_for(engine, "before_cursor_execute")
        def _statement(*_: Any) -> None:
            self.statements += 1

        @sa.event.listens_for(engine, "commit")
        def _commit(*_: Any) -> None:
            self.commits += 1

    def forget(self) -> None:
        """Begin anew."""
        self.asks, self.reports, self.tells = [], [], []
        self.statements = self.commits = 0


# ---- tuner ---------------------------------------------------------------------------------------------------------


class NoTraining:
    """Training that takes no time and says what `course` makes up; one trial at a time."""

    size = 1
    shape: frozenset[str] = frozenset()

    def train(self, jobs: Sequence[Any], judge: Callable[..., list[Verdict]], more: Any) -> Iterator[Any]:
        """Report ten epochs of each trial, whatever the pruner says."""
        for job in jobs:
            params = {f"model.{name}": value for name, value in job.config["model"]["init_args"].items()}
            values = course(params, job.config["seed_everything"])
            for epoch, value in enumerate(values, start=1):
                judge([(job, Report(epoch, {"val_loss": value, "train_loss": value / 2}, value))])
            result = TrialResult(
                TrialState.COMPLETE,
                min(values),
                {"val_loss": min(values), "train_loss": min(values) / 2},
                best_epoch=int(np.argmin(values)) + 1,
                epochs=REPORTS,
                config=job.config,
                seconds={"build": 0.0, "train": 0.0, "report": 0.0},
                trained="not at all",
            )
            job.keep_weights(result)
            yield job, result


class NeverTraining(NoTraining):
    """Training that gives its first trial back."""

    def train(self, jobs: Sequence[Any], judge: Callable[..., list[Verdict]], more: Any) -> Iterator[Any]:
        """Nothing is trained."""
        raise TrialInterrupted("only the values were wanted")
        yield  # a generator


class TimedWork(Work):
    """The service's own loop, with a clock."""

    clock: Clock

    def _next(self) -> list[Lease]:
        self._wanted = time.perf_counter()
        return super()._next()

    def _taken(self, *arguments: Any, **options: Any) -> list[Any]:
        taken = super()._taken(*arguments, **options)
        self.clock.asks.append(time.perf_counter() - self._wanted)
        return taken

    def _judge(self, said: Any) -> list[Verdict]:
        began = time.perf_counter()
        verdicts = super()._judge(said)
        self.clock.reports.append(time.perf_counter() - began)
        return verdicts

    def _finish(self, job: Any, result: TrialResult) -> None:
        began = time.perf_counter()
        super()._finish(job, result)
        self.clock.tell(began)


def tuner_work(url: str, training: NoTraining, clock: Clock) -> tuple[TimedWork, Callable[[], None]]:
    """A worker as `tuner.service.worker` builds it, but for the training; and what closes it."""
    database = Database(url)
    clock.count(database.engine)
    store = Store(database)
    row = store.study(NAME)
    spec: StudySpec = read_study(row.document, stored=True)
    leases = Leases(store)
    work = TimedWork(
        spec=spec,
        store=store,
        study_id=row.id,
        owner=identity(),
        search=Search(
            spec.searched, spec.goal, spec.sampler.name, spec.pruner.name, spec.seed_everything, spec.max_epochs
        ),
        training=training,  # type: ignore[arg-type]
        checkpoints=Path(tempfile.gettempdir()) / "no-such-folder",
        stopped=lambda: False,
        pause=time.sleep,
        holding=leases.hold,
        gone=gone,
    )
    work.clock = clock
    gc.freeze()

    def close() -> None:
        gc.unfreeze()
        leases.close()
        database.close()

    return work, close


def tuner_worker(_asked: Asked, url: str, ready: Any, _left: Any) -> Row:
    """Work until the budget is spent."""
    clock = Clock()
    work, close = tuner_work(url, NoTraining(), clock)
    work._look_around()
    ready.wait()
    clock.forget()
    began, cpu = time.time(), time.process_time()
    work.run()
    cpu = time.process_time() - cpu
    close()
    return vars(clock) | {"began": began, "cpu": cpu}


def tuner_joins(url: str) -> float:
    """Seconds until a process that knows nothing of the study has its first values."""
    began, clock = time.perf_counter(), Clock()
    work, close = tuner_work(url, NeverTraining(), clock)
    seconds = time.perf_counter() - began
    work.run()
    close()
    return seconds + clock.asks[0]


def tuner_fill(asked: Asked, url: str) -> None:
    """Write the finished trials."""
    database = Database(url, create=True)
    initialise(database)
    spec = read_study(document(asked.finished + asked.trials))
    study = Store(database).create(NAME, spec.document(), spec.seed_everything)
    trials, reports = [], []
    now = time.time()
    for params, values, n in drawn(asked.finished):
        seed = trial_seed(spec.seed_everything, n)
        trials.append(
            {
                "study_id": study.id,
                "number": n,
                "seed": seed,
                "params": params,
                "state": TrialState.COMPLETE,
                "revision": 3 + REPORTS,
                "token": 1,
                "attempt": 1,
                "value": min(values),
                "metrics": {"val_loss": min(values), "train_loss": min(values) / 2},
                "best_epoch": int(np.argmin(values)) + 1,
                "epochs": REPORTS,
                "config": trial_config(spec.base_config, params, seed),
                "seconds": {"ask": 0.1, "build": 0.1, "train": 60.0, "report": 0.1},
                "trained": "lean",
                "started_at": now,
                "finished_at": now,
                "tracked_revision": 3 + REPORTS,
            }
        )
        reports += [
            {"epoch": epoch, "value": v, "metrics": {"val_loss": v, "train_loss": v / 2}, "at": now}
            for epoch, v in enumerate(values, start=1)
        ]
    with database.connection() as connection:
        if trials:
            connection.execute(sa.insert(TrialTable), trials)
            listed = sa.select(TrialTable.id).order_by(TrialTable.number)
            each = iter(reports)
            for identity_ in connection.execute(listed).scalars():
                for _ in range(REPORTS):
                    next(each)["trial_id"] = identity_
            connection.execute(sa.insert(ReportTable), reports)
    settle(database.engine)
    database.close()


def tuner_lost(asked: Asked, url: str) -> int:
    """Trials that are missing, counted twice, unfinished or without all their reports."""
    database = Database(url)
    with database.read() as session:
        rows = session.execute(
            sa.select(TrialTable.number, TrialTable.state, sa.func.count(ReportTable.epoch))
            .join(ReportTable, ReportTable.trial_id == TrialTable.id, isouter=True)
            .group_by(TrialTable.id)
        ).all()
    database.close()
    return lost_among(asked, [(n, state == "complete", reports) for n, state, reports in rows])


# ---- Optuna --------------------------------------------------------------------------------------------------------


def optuna_storage(url: str) -> RDBStorage:
    """Optuna's storage as its users should open it."""
    options = {} if url.startswith("sqlite") else {"pool_pre_ping": True}
    storage = RDBStorage(url, engine_kwargs=options, skip_table_creation=True)
    share_safely(storage.engine)
    return storage


def optuna_study(url: str) -> optuna.Study:
    """The study as a worker opens it."""
    seed = os.getpid()  # Optuna's own advice: another one for each worker
    return optuna.load_study(
        study_name=NAME,
        storage=optuna_storage(url),
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )


def suggested(trial: optuna.Trial) -> dict[str, Any]:
    """The values of a trial."""
    params: dict[str, Any] = {}
    for name, d in DISTRIBUTIONS.items():
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            params[name] = trial.suggest_categorical(name, d.choices)
        elif isinstance(d, optuna.distributions.IntDistribution):
            params[name] = trial.suggest_int(name, d.low, d.high, log=d.log)
        elif isinstance(d, optuna.distributions.FloatDistribution):
            params[name] = trial.suggest_float(name, d.low, d.high, log=d.log)
    return params


def optuna_worker(_asked: Asked, url: str, ready: Any, left: Any) -> Row:
    """Work until nothing is left."""
    clock, study = Clock(), optuna_study(url)
    clock.count(study._storage._backend.engine)  # type: ignore[attr-defined]
    study.get_trials(deepcopy=False)
    ready.wait()
    clock.forget()
    began, cpu = time.time(), time.process_time()
    while True:
        with left.get_lock():
            if left.value == 0:
                break
            left.value -= 1
        moment = time.perf_counter()
        trial = study.ask()
        params = suggested(trial)
        clock.asks.append(time.perf_counter() - moment)
        values = course(params, trial.number)
        for epoch, value in enumerate(values, start=1):
            moment = time.perf_counter()
            trial.report(value, epoch)
            trial.should_prune()
            clock.reports.append(time.perf_counter() - moment)
        moment = time.perf_counter()
        study.tell(trial, min(values))
        clock.tell(moment)
    return vars(clock) | {"began": began, "cpu": time.process_time() - cpu}


def optuna_joins(url: str) -> float:
    """Seconds until a process that knows nothing of the study has its first values."""
    began = time.perf_counter()
    study = optuna_study(url)
    trial = study.ask()
    suggested(trial)
    seconds = time.perf_counter() - began
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return seconds


def optuna_fill(asked: Asked, url: str) -> None:
    """Write the finished trials."""
    create_optuna_tables(url)
    storage = optuna_storage(url)
    optuna.create_study(storage=storage, study_name=NAME)
    told = {name: optuna.distributions.distribution_to_json(d) for name, d in DISTRIBUTIONS.items()}
    now = datetime.now()
    trials, params, finals, reports = [], [], [], []
    for found, values, n in drawn(asked.finished):
        trial = {"trial_id": n + 1, "number": n, "study_id": 1, "state": optuna.trial.TrialState.COMPLETE}
        trials.append(trial | {"_datetime_start_utc": now, "_datetime_complete_utc": now})
        own = {"trial_id": n + 1}
        params += [
            own | {"param_name": k, "param_value": DISTRIBUTIONS[k].to_internal_repr(v), "distribution_json": told[k]}
            for k, v in found.items()
        ]
        finite = models.TrialValueModel.TrialValueType.FINITE
        finals.append(own | {"objective": 0, "value": min(values), "value_type": finite})
        kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
        reports += [
            own | {"step": epoch, "intermediate_value": v, "intermediate_value_type": kind}
            for epoch, v in enumerate(values, start=1)
        ]
    with storage.engine.begin() as connection:
        for model, rows in (
            (models.TrialModel, trials),
            (models.TrialParamModel, params),
            (models.TrialValueModel, finals),
            (models.TrialIntermediateValueModel, reports),
        ):
            if rows:
                connection.execute(sa.insert(model), rows)
        if trials and connection.dialect.name == "postgresql":
            connection.execute(sa.text("select setval('trials_trial_id_seq', (select max(trial_id) from trials))"))
    settle(storage.engine)
    storage.engine.dispose()


def optuna_lost(asked: Asked, url: str) -> int:
    """Trials that are missing, counted twice, unfinished or without all their reports."""
    storage = optuna_storage(url)
    study = optuna.load_study(study_name=NAME, storage=storage)
    done = optuna.trial.TrialState.COMPLETE
    rows = [(t.number, t.state is done, len(t.intermediate_values)) for t in study.get_trials(deepcopy=False)]
    storage.engine.dispose()
    return lost_among(asked, rows)


# ---- both sides ----------------------------------------------------------------------------------------------------

DISTRIBUTIONS = search_space(SPACE).distributions()
FILL = {"tuner": tuner_fill, "optuna": optuna_fill}
WORKER = {"tuner": tuner_worker, "optuna": optuna_worker}
JOINS = {"tuner": tuner_joins, "optuna": optuna_joins}
LOST = {"tuner": tuner_lost, "optuna": optuna_lost}


def drawn(count: int) -> Iterator[tuple[dict[str, Any], list[float], int]]:
    """Finished trials: values drawn evenly, what was said of them, the number."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for n in range(count):
        params = {k: study.sampler.sample_independent(study, None, k, d) for k, d in DISTRIBUTIONS.items()}  # type: ignore[arg-type]
        yield params, course(params, n), n


def lost_among(asked: Asked, rows: Iterable[tuple[int, bool, int]]) -> int:
    """How many trials are not there once, finished, with all their reports; and how many are there in excess."""
    good = [n for n, finished, reports in rows if finished and reports == REPORTS]
    wanted = set(range(asked.finished + asked.trials))
    return len(wanted - set(good)) + len(good) - len(set(good) & wanted)


def settle(engine: sa.Engine) -> None:
    """What the server would have done by itself while these trials were trained: statistics and free space."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("vacuum analyze"))
            connection.execute(sa.text("checkpoint"))


@contextmanager
def database(asked: Asked) -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    if not asked.url:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/{asked.side}.db"
        return
    server = sa.make_url(asked.url)
    name = f"scale_{os.getpid()}_{asked.side}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'create database "{name}"'))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f'drop database "{name}" with (force)'))
        engine.dispose()


def working(asked: Asked, url: str, ready: Any, left: Any) -> Row:
    """A worker; one that fails lets the others not wait for it."""
    try:
        return WORKER[asked.side](asked, url, ready, left)
    except BaseException:
        ready.abort()
        raise


def in_process(task: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Start a task in a process forked from this one; the answer waits for its result."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def run() -> None:
        try:
            send.send((task(*arguments), None))
        except BaseException:
            send.send((None, traceback.format_exc()))
            raise

    process = context.Process(target=run, daemon=True)
    process.start()
    send.close()

    def result() -> Any:
        try:
            found, error = receive.recv()
        except EOFError:
            found, error = None, "it died"
        process.join()
        if error is not None:
            raise RuntimeError(f"a worker failed: {error}")
        return found

    return result


def run(asked: Asked) -> Row:
    """Fill a database, work on it, let one more process join, and count."""
    load = os.getloadavg()[0]
    with database(asked) as url:
        in_process(FILL[asked.side], asked, url)()
        context = multiprocessing.get_context("fork")
        ready, left = context.Barrier(asked.workers), context.Value("i", asked.trials)
        running = [in_process(working, asked, url, ready, left) for _ in range(asked.workers)]
        found = [result() for result in running]
        lost = in_process(LOST[asked.side], asked, url)()
        joins = in_process(JOINS[asked.side], url)() if asked.side == "optuna" else in_process(late, url)()
    seconds = max(one["ended"] for one in found) - min(one["began"] for one in found)
    spent = {name: [s for one in found for s in one[f"{name}s"]] for name in ("ask", "report", "tell")}
    kept = {name: value for name, value in vars(asked).items() if name != "url"}
    return kept | {
        "database": sa.make_url(asked.url or "sqlite://").get_backend_name(),
        "when": time.strftime("%F %T"),
        "load": round(load, 2),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(seconds, 3),
        "rate": asked.trials / seconds,
        **{name: quantiles(values) for name, values in spent.items()},
        "first_ask": joins,
        "cpu": sum(one["cpu"] for one in found) / asked.trials,
        "statements": sum(one["statements"] for one in found) / asked.trials,
        "commits": sum(one["commits"] for one in found) / asked.trials,
        "lost": lost,
    }


def late(url: str) -> float:
    """A late joiner's first ask; the study is given one more trial for it."""
    opened = Database(url)
    store = Store(opened)
    row = store.study(NAME)
    search = row.document["search"] | {"trials": row.document["search"]["trials"] + 1}
    store.go_on(row.id, row.document | {"search": search})
    opened.close()
    return tuner_joins(url)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile."""
    return {"p50": float(np.quantile(seconds, 0.5)), "p95": float(np.quantile(seconds, 0.95))}


# ---- figures -------------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row]) -> dict[str, float]:
    """Print the table; the figures by name."""
    head = ("finished", "workers", "side", "trials/s", "ask p50", "p95", "report p50", "p95", "tell p50", "p95")
    print(("{:>8} {:>7} {:<7}" + "{:>11}" * 12).format(*head, "first ask", "CPU", "stmts", "commits", "lost")[:-11])
    figures: dict[str, float] = {}
    for row in sorted(rows, key=lambda r: (r["finished"], r["workers"], SIDES.index(r["side"]))):
        ms = [1000 * row[what][q] for what in ("ask", "report", "tell") for q in ("p50", "p95")]
        ms += [1000 * row["first_ask"], 1000 * row["cpu"]]
        told = "".join(f"{x:>11.1f}" for x in (row["rate"], *ms, row["statements"], row["commits"]))
        print(
            f"{row['finished']:>8} {row['workers']:>7} {row['side']:<7}{told}" + f"{row['lost']:>6}" * (row["lost"] > 0)
        )
        figures |= {
            f"{row['side']} {row['finished']}/{row['workers']} trials a second": round(row["rate"], 2),
            f"{row['side']} {row['finished']}/{row['workers']} ask p95 ms": round(1000 * row["ask"]["p95"], 1),
        }
    by = {(row["side"], row["finished"], row["workers"]): row for row in rows}
    for (side, finished, workers), own in sorted(by.items()):
        if side != "tuner":
            continue
        figures[f"first ask {finished}/{workers} s"] = round(own["first_ask"], 3)
        other = by.get(("optuna", finished, workers))
        if other:
            ratio = own["rate"] / other["rate"]
            figures[f"x optuna {finished}/{workers}"] = round(ratio, 2)
            for what in ("ask", "tell"):
                share = own[what]["p95"] / other[what]["p95"]
                figures[f"{what} p95 / optuna's {finished}/{workers}"] = round(share, 3)
    figures["lost"] = sum(row["lost"] for row in rows)
    return figures


def main() -> None:
    """Run what is asked for, print the table, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 finished trials, 2 workers, nothing kept")
    parser.add_argument("--url", default=os.environ.get("TUNER_TEST_POSTGRES", ""), help="of a PostgreSQL server")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 1000, 10_000], help="finished trials")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--trials", type=int, help="further ones; at least 100, and 8 for each worker")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="run nothing, only print what is kept")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.quick:
        given.sizes, given.workers, given.trials, given.results = [100], [2], 16, None
    elif not given.url:
        parser.error("needs a PostgreSQL server: --url postgresql+psycopg://user@host/database, or TUNER_TEST_POSTGRES")
    if given.report:
        kept = [json.loads(line) for line in given.results.read_text().splitlines()]
        rows = list({(row["side"], row["finished"], row["workers"]): row for row in kept}.values())
    else:
        rows = []
        for finished in given.sizes:
            for workers in given.workers:
                for side in given.sides:
                    trials = given.trials or max(100, 8 * workers)
                    row = run(Asked(side, finished, workers, trials, given.url))
                    print(f"{side} {finished}/{workers}: {row['seconds']:.1f} s", file=sys.stderr, flush=True)
                    rows.append(row)
                    if given.results is not None:
                        given.results.parent.mkdir(exist_ok=True)
                        with given.results.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    figures = report(rows)
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
