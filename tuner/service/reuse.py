"""A best from wherever it lies: a study, a folder, a file, MLflow's registry; and its test split, used once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuner.best.best import Best
from tuner.best.folder import read_best
from tuner.errors import BestUnusable, Problem, SpecError, StudyNotFound, TestSplitUsed
from tuner.home import Home, silence_telemetry

REGISTERED = "models:/"


@dataclass(frozen=True)
class Tested:
    """What the test split says of a best.

    Attributes:
        trial: the number of the trial that was scored.
        at: when, in UTC.
        metrics: on the test split.
        before: whether that was an earlier call, so that nothing was scored now.
    """

    study: str
    trial: int
    at: str
    metrics: Mapping[str, float]
    before: bool


def load(source: str | Path, home: Home | None = None) -> Best:
    """Load a best.

    Args:
        source: a study's name; a folder of `tuner export`; a YAML file with a configuration; `models:/NAME@champion` or
            `models:/NAME/VERSION`. Only a name reads the storage, only `models:/` asks MLflow.
        home: where they are; by default as the environment says.

    Raises:
        StudyNotFound: there is no such thing.
        NoBest: none of the study's trials has succeeded.
        SpecError: the file has problems.
        BestUnusable: a file was changed since it was exported.
    """
    silence_telemetry()
    home = home or Home.from_environment()
    if str(source).startswith(REGISTERED):
        from tuner.tracking.registry import Registry  # with MLflow, which takes seconds to import

        return read_best(Registry(home.tracking, home.artifacts).fetch(str(source), home.folder / "registered"))
    path = Path(source).expanduser()
    if isinstance(source, Path) or "/" in source or path.suffix in (".yaml", ".yml", ".json"):
        return read_best(path)
    from tuner.service.entry import open_storage
    from tuner.service.result import best_of

    try:
        with open_storage(home) as store:
            return best_of(store, source, home)
    except StudyNotFound:
        if path.is_dir():
            return read_best(path)
        raise


def score(name: str, home: Home, *, again: bool = False) -> Tested:
    """Score the best of a study on the test split, once; a second time, tell what the first has found.

    Args:
        name: the study's.
        home: where its storage and its weights are.
        again: score also if the split was used for another trial of the study; that, too, is remembered.

    Raises:
        TestSplitUsed: it was used for another trial: whoever chooses by it makes it a validation split.
        SpecError: the study is running.
        BestUnusable: the data are not those of the study.
        TunerError: there is no `test_step`, or there are no test data.
    """
    from tuner.service.entry import open_storage
    from tuner.service.result import best_of

    with open_storage(home) as store:
        row, best = store.study(name), best_of(store, name, home)
        uses = row.facts.get("test", [])
        if (known := scored(row.facts, best)) is not None:
            return known
        if row.state == "running":
            rule = "must have ended, but it is running: its best may change. Wait, or stop it: tuner stop " + name
            raise SpecError(f"tuner test {name}", [Problem("the study", rule)])
        if uses and not again:
            figures = "; ".join(f"trial {u['trial']} at {u['at']}: {_told(u['metrics'])}" for u in uses)
            raise TestSplitUsed(
                f"the test split of {name} was used already ({figures}), and the best is now trial {best.trial}. "
                "Whoever chooses by the test split makes it a validation split. To score it all the same, which is "
                f"recorded: tuner test {name} --again"
            )
        from tuner.training.outright import score_test

        data = best.datamodule()
        check_data(row.facts, data, name)
        metrics = score_test(best.trained_module(), data, best.config)
        use: dict[str, Any] = {
            "trial": best.trial,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": metrics,
        }
        store.add_facts(row.id, {"test": [*store.study(name).facts.get("test", []), use]})
    return Tested(name, use["trial"], use["at"], metrics, before=False)


def scored(facts: Mapping[str, Any], best: Best) -> Tested | None:
    """What an earlier call of `score` has found for this best, if there was one."""
    uses = [use for use in facts.get("test", []) if use["trial"] == best.trial]
    return Tested(best.study, uses[0]["trial"], uses[0]["at"], uses[0]["metrics"], before=True) if uses else None


def check_data(facts: Mapping[str, Any], datamodule: Any, name: str) -> None:
    """Check that the data are those the study was run on, where the data module can say.

    Raises:
        BestUnusable: they are not.
    """
    known, fingerprint = facts.get("data_hash"), getattr(datamodule, "fingerprint", None)
    if known and fingerprint and (found := fingerprint()) != known:
        raise BestUnusable(
            f"the data must be those that study {name!r} was run on (hash {known[:12]}…), but they are others "
            f"({found[:12]}…). Put the old ones back."
        )


def _told(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
