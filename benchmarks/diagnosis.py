"""Is the diagnosis right? Studies that are built to be ill in a known way, or well, and what the diagnosis says.

Half of them were held out: the thresholds of tuner/insight/verdict.py were chosen by looking at the others only.

    python benchmarks/diagnosis.py            # all of them, a few minutes
    python benchmarks/diagnosis.py --quick    # one of each kind
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tuner
from tuner.data import Digits, InMemory, SklearnTable
from tuner.data.in_memory import Splits
from tuner.home import Home
from tuner.insight import Diagnosis, diagnose
from tuner.service.diagnosing import diagnosis_of
from tuner.service.entry import open_storage
from tuner.spec import read_study
from tuner.trial import Report, Trial, TrialResult, TrialState


class Altered(InMemory):
    """One of scikit-learn's bundled data sets with something done to its training part.

    Args:
        source: `digits`, `images` (digits as such), `breast_cancer`, `wine`, `iris` or `diabetes`.
        batch_size: samples a training batch.
        samples: so many training samples are kept; by default all.
        shuffled: whose targets are shuffled: of none, of `train`, or of `all` parts.
        share: the share of the targets that is shuffled.
    """

    def __init__(
        self,
        source: str,
        batch_size: int | str = 32,
        samples: int | None = None,
        shuffled: str = "none",
        share: float = 1.0,
    ) -> None:
        super().__init__(batch_size)
        inner = Digits(flat=source == "digits") if source in ("digits", "images") else SklearnTable(source)
        self._splits = _altered(source, samples, shuffled, share)
        self.input_shape = tuple(self._splits.train[0].shape[1:])
        self.num_classes = inner.num_classes
        if self.num_classes is None:
            target = self._splits.train[1]
            self.target_mean, self.target_std = target.mean().item(), target.std(correction=0).item()

    def splits(self) -> Splits:
        """The three splits."""
        return self._splits


@lru_cache
def _altered(source: str, samples: int | None, shuffled: str, share: float) -> Splits:
    inner = Digits(flat=source == "digits") if source in ("digits", "images") else SklearnTable(source)
    splits, draw = inner.splits(), torch.Generator().manual_seed(0)
    (x, y), val, test = splits.train, splits.val, splits.test
    if samples is not None:
        kept = torch.randperm(len(y), generator=draw)[:samples]
        x, y = x[kept], y[kept]
    y = _mixed(y, share, draw) if shuffled in ("train", "all") else y
    if shuffled == "all":
        val, test = (val[0], _mixed(val[1], share, draw)), (test[0], _mixed(test[1], share, draw))
    return Splits((x, y), val, test, splits.moments)


def _mixed(y: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Targets of which a share has been shuffled."""
    chosen = torch.randperm(len(y), generator=draw)[: round(share * len(y))]
    mixed = y.clone()
    mixed[chosen] = y[chosen[torch.randperm(len(chosen), generator=draw)]]
    return mixed


RATE = {"float": {"low": 1e-2, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1}
SMALL = {"hidden_units": 32, "depth": 2, "batch_size": None}


def rates(low: float, high: float) -> dict[str, Any]:
    """A space of learning rates."""
    return {
        "model.learning_rate": {
            "float": {"low": low, "high": high, "scale": "log", "default": (low * high) ** 0.5},
            "priority": 1,
        }
    }


@dataclass(frozen=True)
class Labelled:
    """A study of which it is known what ails it.

    Attributes:
        name: what it is.
        verdict: what is right.
        source: its data.
        epochs: of a trial.
        model: arguments of the network.
        space: what is searched.
        data: arguments of `Altered`.
        network: its class.
        look: 1 if thresholds were chosen by it from the beginning; 2 and 3 if it was held out and looked at once, when
            12 of 16 and then 14 of 16 were right, and the errors changed rules; 4 if it is held out.
    """

    name: str
    verdict: str
    source: str
    epochs: int
    model: Mapping[str, Any]
    space: Mapping[str, Any] = field(default_factory=lambda: rates(1e-2, 1.0))
    data: Mapping[str, Any] = field(default_factory=dict)
    network: str = "MLP"
    look: int = 1
    trials: int = 6
    statistics: bool = False
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The study file."""
        trainer: dict[str, Any] = {"max_epochs": self.epochs, "accelerator": "cpu"}
        if self.statistics:
            trainer["callbacks"] = [{"class_path": "tuner.models.LayerStatistics", "init_args": {"every": 4}}]
        return {
            "study": self.name,
            "model": {"class_path": f"tuner.models.{self.network}", "init_args": dict(self.model)},
            "data": {"class_path": "diagnosis.Altered", "init_args": {"source": self.source, **self.data}},
            "trainer": trainer,
            "seed_everything": 0,
            "space": dict(self.space),
            "search": {"trials": self.trials, "confirm": 0, **self.search},
        }


def units(low: int, high: int) -> dict[str, Any]:
    """A space of learning rates and hidden units."""
    return rates(1e-2, 1.0) | {"model.hidden_units": {"int": {"low": low, "high": high, "scale": "log"}, "priority": 3}}


HELD_OUT = 4
RECORD = Path(__file__).parent / "results" / "diagnosis.json.gz"
BAR = 0.9
"""The share on which the diagnosis must be right."""

BAR_OF_FEW, MANY = 0.8, 20

PLAIN: Mapping[str, Any] = {"norm": "none", "dropout": 0.0}
DEEP: Mapping[str, Any] = {"activation": "sigmoid", "norm": "none", "dropout": 0.0, "depth": 10, "hidden_units": 32}

STUDIES = [
    # Underfitting: too small, too short, too slow.
    Labelled("underfit-digits-two-units", "underfitting", "digits", 15, {**PLAIN, "hidden_units": 2, "depth": 1}),
    Labelled("underfit-digits-slow", "underfitting", "digits", 8, {"hidden_units": 64}, rates(1e-5, 1e-4)),
    Labelled("underfit-wine-short", "underfitting", "wine", 3, {**PLAIN, "hidden_units": 16}, rates(3e-3, 1e-2)),
    Labelled(
        "underfit-cancer-slow",
        "underfitting",
        "breast_cancer",
        10,
        {**PLAIN, "hidden_units": 16},
        rates(1e-5, 1e-4),
        look=2,
    ),
    Labelled(
        "underfit-images-one-channel",
        "underfitting",
        "images",
        6,
        {"channels": 1, "hidden_units": 2, "depth": 1, "norm": "none", "dropout": 0.0, "optimizer": "sgd"},
        network="LeNet",
        look=2,
    ),
    Labelled(
        "underfit-digits-few-units",
        "underfitting",
        "digits",
        12,
        {**PLAIN, "depth": 1},
        units(1, 4),
        trials=8,
        look=2,
    ),
    Labelled(
        "underfit-diabetes-slow",
        "underfitting",
        "diabetes",
        8,
        {**PLAIN, "hidden_units": 16},
        rates(1e-5, 1e-4),
        network="MLPRegressor",
        look=2,
    ),
    # Overfitting: few samples, wrong labels in training.
    Labelled(
        "overfit-digits-40",
        "overfitting",
        "digits",
        20,
        {**PLAIN, "hidden_units": 256},
        data={"samples": 40, "batch_size": 8},
    ),
    Labelled(
        "overfit-digits-shuffled-train",
        "overfitting",
        "digits",
        25,
        {**PLAIN, "hidden_units": 512, "depth": 2},
        rates(0.1, 1.0),
        data={"shuffled": "train", "batch_size": 16},
        search={"patience": None},  # stopped early, it would not get to know its training data
    ),
    Labelled(
        "overfit-diabetes-40",
        "overfitting",
        "diabetes",
        30,
        {**PLAIN, "hidden_units": 128},
        rates(1e-2, 0.2),
        data={"samples": 40, "batch_size": 8},
        network="MLPRegressor",
    ),
    Labelled(
        "overfit-images-30",
        "overfitting",
        "images",
        12,
        {"channels": 8, "dropout": 0.0, "norm": "none"},
        data={"samples": 30, "batch_size": 8},
        network="LeNet",
        look=2,
    ),
    Labelled(
        "overfit-cancer-noisy",
        "overfitting",
        "breast_cancer",
        30,
        {**PLAIN, "hidden_units": 256, "depth": 3},
        data={"shuffled": "train", "share": 0.6, "batch_size": 16},
        look=2,
    ),
    Labelled(
        "overfit-digits-noisy",
        "overfitting",
        "digits",
        25,
        {"hidden_units": 512, "dropout": 0.0},
        data={"shuffled": "train", "share": 0.5, "batch_size": 16},
        look=2,
    ),
    # Diverging: steps that are far too long.
    Labelled("diverge-digits", "diverging", "digits", 5, {**PLAIN, "hidden_units": 64}, rates(50, 200)),
    Labelled(
        "diverge-diabetes",
        "diverging",
        "diabetes",
        5,
        {**PLAIN, "hidden_units": 64},
        rates(50, 200),
        network="MLPRegressor",
    ),
    Labelled(
        "diverge-cancer-batch-norm",
        "diverging",
        "breast_cancer",
        8,
        {"hidden_units": 64},
        rates(50, 200),
        look=2,
    ),
    Labelled(
        "diverge-images-adam",
        "diverging",
        "images",
        4,
        {"channels": 4, "optimizer": "adam"},
        rates(50, 200),
        network="LeNet",
        look=2,
    ),
    # Vanishing: ten sigmoid layers.
    Labelled("vanish-digits", "vanishing", "digits", 6, DEEP, statistics=True, trials=4),
    Labelled("vanish-wine-unmeasured", "vanishing", "wine", 10, DEEP),
    Labelled("vanish-cancer", "vanishing", "breast_cancer", 6, {**DEEP, "depth": 8}, statistics=True, trials=4, look=2),
    Labelled("vanish-iris-unmeasured", "vanishing", "iris", 10, {**DEEP, "hidden_units": 64}, look=2),
    # Nothing to learn: labels shuffled everywhere.
    Labelled("nothing-digits", "learned_nothing", "digits", 10, {"hidden_units": 64}, data={"shuffled": "all"}),
    Labelled("nothing-wine", "learned_nothing", "wine", 15, {"hidden_units": 16}, data={"shuffled": "all"}),
    Labelled(
        "nothing-cancer",
        "learned_nothing",
        "breast_cancer",
        15,
        {"hidden_units": 32},
        data={"shuffled": "all"},
        look=2,
    ),
    Labelled(
        "nothing-diabetes",
        "learned_nothing",
        "diabetes",
        15,
        {"hidden_units": 16},
        rates(1e-2, 0.3),
        data={"shuffled": "all"},
        network="MLPRegressor",
        look=2,
    ),
    # Well.
    Labelled("fine-digits", "fine", "digits", 12, {"hidden_units": 128}),
    Labelled("fine-wine", "fine", "wine", 20, {"hidden_units": 32}, data={"batch_size": 16}),
    Labelled(
        "fine-diabetes",
        "fine",
        "diabetes",
        25,
        {"dropout": 0.2},
        units(4, 128) | rates(1e-3, 0.3),
        trials=12,
        network="MLPRegressor",
    ),
    Labelled("fine-cancer", "fine", "breast_cancer", 20, {"hidden_units": 32}, data={"batch_size": 16}, look=2),
    Labelled("fine-iris", "fine", "iris", 30, {"hidden_units": 16}, data={"batch_size": 8}, look=2),
    Labelled("fine-images", "fine", "images", 10, {"channels": 8}, network="LeNet", look=2),
    # Held out: written after the thresholds, and looked at once.
    Labelled("underfit-iris-slow", "underfitting", "iris", 8, {"hidden_units": 16}, rates(1e-4, 1e-3), look=3),
    Labelled(
        "underfit-images-slow",
        "underfitting",
        "images",
        4,
        {"channels": 8, "norm": "none"},
        rates(1e-4, 1e-3),
        network="LeNet",
        look=3,
    ),
    Labelled(
        "underfit-digits-three-units", "underfitting", "digits", 10, {**PLAIN, "hidden_units": 3, "depth": 2}, look=3
    ),
    Labelled(
        "overfit-digits-60-normalised",
        "overfitting",
        "digits",
        15,
        {"hidden_units": 512},
        data={"samples": 60, "batch_size": 16},
        look=3,
    ),
    Labelled(
        "overfit-images-noisy",
        "overfitting",
        "images",
        16,
        {"channels": 16, "dropout": 0.0},
        rates(0.05, 0.5),
        data={"shuffled": "train", "share": 0.4, "samples": 400, "batch_size": 16},
        network="LeNet",
        look=3,
    ),
    Labelled(
        "overfit-diabetes-60-deep",
        "overfitting",
        "diabetes",
        40,
        {**PLAIN, "hidden_units": 256, "depth": 3},
        rates(1e-2, 0.2),
        data={"samples": 60, "batch_size": 8},
        network="MLPRegressor",
        look=3,
    ),
    Labelled("diverge-wine", "diverging", "wine", 8, {"hidden_units": 32}, rates(50, 200), look=3),
    Labelled(
        "diverge-diabetes-adam",
        "diverging",
        "diabetes",
        6,
        {**PLAIN, "optimizer": "adam"},
        rates(50, 200),
        network="MLPRegressor",
        look=3,
    ),
    Labelled("diverge-iris-plain", "diverging", "iris", 8, {**PLAIN, "hidden_units": 16}, rates(50, 200), look=3),
    Labelled("vanish-iris-measured", "vanishing", "iris", 8, {**DEEP, "depth": 12}, statistics=True, trials=4, look=3),
    Labelled(
        "vanish-diabetes-unmeasured",
        "vanishing",
        "diabetes",
        10,
        DEEP,
        rates(1e-2, 0.2),
        network="MLPRegressor",
        look=3,
    ),
    Labelled("nothing-iris", "learned_nothing", "iris", 15, {"hidden_units": 16}, data={"shuffled": "all"}, look=3),
    Labelled(
        "nothing-images",
        "learned_nothing",
        "images",
        6,
        {"channels": 4, "hidden_units": 32},
        data={"shuffled": "all"},
        network="LeNet",
        look=3,
    ),
    Labelled(
        "fine-digits-adam", "fine", "digits", 10, {"hidden_units": 64, "optimizer": "adam"}, rates(1e-3, 1e-2), look=3
    ),
    Labelled("fine-wine-layer-norm", "fine", "wine", 20, {"hidden_units": 16, "norm": "layer"}, look=3),
    Labelled("fine-cancer-plain", "fine", "breast_cancer", 15, {**PLAIN, "hidden_units": 16}, look=3),
    # Held out.
    Labelled(
        "underfit-cancer-short",
        "underfitting",
        "breast_cancer",
        2,
        {**PLAIN, "hidden_units": 8},
        rates(1e-3, 3e-3),
        look=4,
    ),
    Labelled(
        "underfit-diabetes-short",
        "underfitting",
        "diabetes",
        2,
        {**PLAIN, "hidden_units": 32},
        rates(1e-3, 5e-3),
        network="MLPRegressor",
        look=4,
    ),
    Labelled(
        "overfit-wine-noisy",
        "overfitting",
        "wine",
        40,
        {**PLAIN, "hidden_units": 256},
        rates(0.05, 0.5),
        data={"shuffled": "train", "share": 0.6, "batch_size": 8},
        look=4,
    ),
    Labelled(
        "overfit-images-50",
        "overfitting",
        "images",
        12,
        {"channels": 8},
        data={"samples": 50, "batch_size": 8},
        network="LeNet",
        look=4,
    ),
    Labelled(
        "diverge-digits-adam",
        "diverging",
        "digits",
        5,
        {"hidden_units": 64, "optimizer": "adam"},
        rates(20, 100),
        look=4,
    ),
    Labelled("vanish-wine-measured", "vanishing", "wine", 8, {**DEEP, "depth": 9}, statistics=True, trials=4, look=4),
    Labelled(
        "nothing-wine-plain",
        "learned_nothing",
        "wine",
        15,
        {**PLAIN, "hidden_units": 16},
        data={"shuffled": "all"},
        look=4,
    ),
    Labelled(
        "nothing-cancer-adam",
        "learned_nothing",
        "breast_cancer",
        10,
        {"hidden_units": 64, "optimizer": "adam"},
        rates(1e-3, 1e-2),
        data={"shuffled": "all"},
        look=4,
    ),
    Labelled("fine-iris-plain", "fine", "iris", 20, {**PLAIN, "hidden_units": 16}, data={"batch_size": 8}, look=4),
    Labelled("fine-images-group", "fine", "images", 8, {"channels": 8, "norm": "group"}, network="LeNet", look=4),
]
QUICK = (
    "underfit-digits-slow",
    "overfit-digits-40",
    "diverge-digits",
    "vanish-wine-unmeasured",
    "nothing-wine",
    "fine-wine",
)


def diagnosed(study: Labelled, record: dict[str, Any] | None = None) -> Diagnosis:
    """Run the study in TUNER_HOME and diagnose it."""
    tuner.run(study.document)
    with open_storage(Home.from_environment()) as store:
        row = store.study(study.name)
        if record is not None:
            record[study.name] = recorded(study, row.document, store.trials(row.id), store.curves(row.id))
        return diagnosis_of(store, row)


def recorded(
    study: Labelled, document: Mapping[str, Any], trials: Sequence[Trial], curves: Mapping[int, Sequence[Report]]
) -> dict[str, Any]:
    """What a diagnosis reads of a study, as plain values, so that tests need not train."""
    told = [
        {
            "number": t.number,
            "params": t.params,
            "state": t.outcome.state.value,
            "value": t.value,
            "best_epoch": t.outcome.best_epoch,
            "epochs": t.outcome.epochs,
            "reason": t.outcome.reason,
            "infeasible": t.outcome.infeasible,
            "model": (t.outcome.config or {}).get("model"),
            "curve": [
                {name: float(f"{value:.4g}") for name, value in report.metrics.items()}
                for report in curves.get(t.number, ())
            ],
        }
        for t in trials
    ]
    return {"verdict": study.verdict, "held_out": study.look == HELD_OUT, "document": dict(document), "trials": told}


def replayed(record: Mapping[str, Any]) -> Diagnosis:
    """The diagnosis of a recorded study."""
    trials, curves = [], {}
    for told in record["trials"]:
        state = TrialState(told["state"])
        known = {key: told[key] for key in ("value", "best_epoch", "epochs", "reason", "infeasible")}
        result = TrialResult(state, **known, config={"model": told["model"]}, seconds={"train": told["epochs"]})
        trials.append(Trial(told["number"], told["params"], seed=0, state=state, result=result))
        metric = record["document"]["objective"]["metric"]
        curves[told["number"]] = [Report(i, m, m[metric]) for i, m in enumerate(told["curve"], 1)]
    return diagnose(read_study(record["document"], stored=True), trials, curves)


def right(studies: Sequence[Labelled], found: Mapping[str, Diagnosis]) -> float:
    """The share of the studies on which the diagnosis is right."""
    return sum(found[s.name].verdict == s.verdict for s in studies) / len(studies) if studies else 0.0


def main() -> None:
    """Train, diagnose, print the table, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one of each kind")
    parser.add_argument("--verbose", action="store_true", help="also what is said of each")
    parser.add_argument("--only", default="", help="those whose names contain this")
    parser.add_argument(
        "--record", action="store_true", help=f"keep what is read of them in {RECORD.name}, for the tests"
    )
    parser.add_argument("--seen", action="store_true", help="leave out those that were held out")
    given = parser.parse_args()
    logging.getLogger("tuner").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # these networks are too small to share between threads
    studies = [s for s in STUDIES if given.only in s.name and (not given.quick or s.name in QUICK)]
    studies = [s for s in studies if not (given.seen and s.look == HELD_OUT)]
    found: dict[str, Diagnosis] = {}
    record: dict[str, Any] = {}
    print(f"{'study':<32} {'is':<16} {'said':<16} {'confidence':<10} {'seconds':>7}")
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNER_HOME"] = home
        for study in studies:
            began = time.perf_counter()
            found[study.name] = said = diagnosed(study, record)
            mark = "" if said.verdict == study.verdict else "  wrong"
            mark = f"{'  held out' if study.look == HELD_OUT else ''}{mark}"
            took = time.perf_counter() - began
            print(
                f"{study.name:<32} {study.verdict:<16} {said.verdict:<16} {said.confidence:<10} {took:>7.1f}{mark}",
                flush=True,
            )
            if given.verbose:
                print("    " + "\n    ".join(said.lines), flush=True)
    seen, held = [s for s in studies if s.look != HELD_OUT], [s for s in studies if s.look == HELD_OUT]
    figures = {
        "studies": len(studies),
        "right": round(right(studies, found), 3),
        "right on those seen": round(right(seen, found), 3),
    }
    if held:
        figures |= {"held out": len(held), "right on those held out": round(right(held, found), 3)}
    if given.record:
        RECORD.write_bytes(gzip.compress(json.dumps(record).encode(), mtime=0))
    print(json.dumps(figures))
    sys.exit(0 if figures["right"] >= (BAR if len(studies) > MANY else BAR_OF_FEW) else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    importlib.import_module("diagnosis").main()  # by the name under which the studies name `Altered`
