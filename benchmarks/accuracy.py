"""What the default configuration of every shipped network reaches, before any search.

Each row is the first trial of a shipped study, which trains the defaults: the metric at the epoch that was best by the
study's objective, the median over seeds, and the seconds of training on one thread.

    python benchmarks/accuracy.py            # digits with five seeds each, text with one: ten minutes
    python benchmarks/accuracy.py --quick    # digits-mlp with one seed
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
from dataclasses import dataclass, field

import torch

import tuner


@dataclass(frozen=True)
class Row:
    """One shipped study, and the figure that its defaults must reach."""

    study: str
    metric: str
    bar: float
    seeds: int
    fixed: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The study and what was fixed in it."""
        return " ".join([self.study, *self.fixed.values()])

    def reached(self, value: float) -> bool:
        """An accuracy must be at least the bar, a perplexity below it."""
        return value < self.bar if self.metric == "val_perplexity" else value >= self.bar


ROWS = [
    Row("digits-mlp", "val_acc", 0.97, seeds=5),
    Row("digits-lenet", "val_acc", 0.98, seeds=5),
    Row("digits-resnet", "val_acc", 0.985, seeds=5),
    Row("digits-densenet", "val_acc", 0.985, seeds=5),
    Row("breast-cancer-mlp", "val_acc", 0.96, seeds=5),
    Row("iris-csv", "val_acc", 0.93, seeds=5),
    Row("pytopics-rnn", "val_perplexity", 6.0, seeds=1),
    Row("pytopics-rnn", "val_perplexity", 5.0, seeds=1, fixed={"model.init_args.cell": "gru"}),
]


def main() -> None:
    """Train, print the table, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits-mlp with one seed")
    quick = parser.parse_args().quick
    logging.getLogger("tuner").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # these networks are too small to share between threads
    print(f"{'defaults of':<20} {'metric':<15} {'median':>8} {'worst':>8} {'bar':>6} {'seconds':>8}")
    figures: dict[str, float] = {}
    for row in ROWS[:1] if quick else ROWS:
        values, seconds = zip(*(first_trial(row, seed) for seed in range(1 if quick else row.seeds)), strict=True)
        median = statistics.median(values)
        worst = max(values) if row.metric == "val_perplexity" else min(values)
        took = statistics.median(seconds)
        told = f"{row.name:<20} {row.metric:<15} {median:>8.4f} {worst:>8.4f} {row.bar:>6} {took:>8.1f}"
        print(told if row.reached(median) else f"{told}  missed", flush=True)
        figures[row.name] = round(median, 4)
        figures[f"{row.name} s"] = round(took, 1)
    print(json.dumps(figures))


def first_trial(row: Row, seed: int) -> tuple[float, float]:
    """The metric of the default configuration, and how long it trained."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNER_HOME"] = home
        once = {"search.trials": 1, "search.confirm": 0, "search.patience": None, "seed_everything": seed}
        result = tuner.run(row.study, set={**once, **row.fixed})
    assert result.best is not None
    return result.best.metrics[row.metric], result.cost["seconds"]


if __name__ == "__main__":
    main()
