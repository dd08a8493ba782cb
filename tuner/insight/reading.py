"""What the learning curves of one trial say, as numbers: how well it fits, where it ends, what flows through it.

Losses are measured against a yardstick, the loss of somebody who knows only how frequent the labels are (or the mean of
the targets): 1 is as bad as that, 0 is perfect. So one threshold serves ten classes and two.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.spec.config import at_path
from tuner.trial import Objective, Report, Trial, TrialState

ENTROPY = "val_label_entropy"
TRAIN, VAL = "train_loss", "val_loss"
GRADIENT, MEAN, DEVIATION = "grad_norm/", "preact_mean/", "preact_std/"
TEXT, CLASSES, NUMBER, UNKNOWN = "text", "classes", "number", "unknown"

LAST_PART = 0.25
"""The share of its epochs over which a trial is asked whether it is still falling."""

MOSTLY = 0.8
"""A loss that fell in so many of its epochs fell steadily."""

BLOWN_UP = 1.5
"""A training loss that ends so many times as high as the yardstick, and not on its way down, has diverged."""

THROWN = 0.2
"""A training loss that rises so much in an epoch, on the average, is thrown about."""

FAR_TOO_HIGH = 5.0
"""And one that begins or ends so high has, on its way down or not: no fresh network is so wrong."""


@dataclass(frozen=True)
class Yardstick:
    """What a loss is measured against.

    Attributes:
        value: the loss of somebody who knows nothing of the inputs; None if no one is known and none can be guessed.
        kind: what is predicted: classes, text, a number, or unknown.
        guessed: whether it is only what untrained networks of the study had.
    """

    value: float | None
    kind: str = UNKNOWN
    guessed: bool = False

    @property
    def in_words(self) -> str:
        """What it is."""
        if self.value is None:
            return "nothing: no loss is known to compare with"
        return {
            CLASSES: "the entropy of the labels",
            TEXT: "the entropy of the symbols",
            NUMBER: "the variance of the target",
        }.get(self.kind, "the first epoch's loss of the trials that had learned least by then")


@dataclass(frozen=True)
class Reading:
    """One trial's curves in numbers. Losses are shares of the yardstick; None is what the curves do not tell.

    Attributes:
        number: of the trial.
        epochs: reported.
        best_epoch: of the lowest validation loss.
        val: the lowest validation loss.
        train: the training loss at that epoch.
        last_val: the last validation loss.
        last_train: the last training loss.
        lowest_train: the lowest training loss.
        jumps: by how much the training loss rose in an epoch, on the average over its epochs.
        fall: by how much the validation loss fell over the last quarter of the epochs, as a share of itself.
        fallen: the same as a share of the yardstick.
        steady: whether it fell to its last epoch, nearly every epoch, and hardly less at the end than at the beginning.
        diverged: it became infinite or NaN, or its training loss ended far above the yardstick.
        gradients: the gradient norm of the first layer as a share of the last layer's, median over the epochs.
        largest_gradient: the largest gradient norm of a layer.
        drift: how far the inputs of an activation moved over training, in their deviations at the first epoch, of the
            layer that moved most.
        cut: whether it ended before its time: pruned, or a budget was spent.
    """

    number: int
    epochs: int
    best_epoch: int = 0
    val: float | None = None
    train: float | None = None
    last_val: float | None = None
    last_train: float | None = None
    lowest_train: float | None = None
    jumps: float = 0.0
    fall: float = 0.0
    fallen: float = 0.0
    steady: bool = False
    diverged: bool = False
    gradients: float | None = None
    largest_gradient: float | None = None
    drift: float | None = None
    cut: bool = False

    @property
    def gap(self) -> float | None:
        """How much higher the validation loss is than the training loss, at the best epoch."""
        return None if self.val is None or self.train is None else self.val - self.train

    @property
    def last_gap(self) -> float | None:
        """The same at the last epoch."""
        return None if self.last_val is None or self.last_train is None else self.last_val - self.last_train

    @property
    def rise(self) -> float:
        """By how much the validation loss rose after its best epoch."""
        return 0.0 if self.val is None or self.last_val is None else max(0.0, self.last_val - self.val)

    @property
    def opening(self) -> float:
        """By how much the two losses moved apart after the best epoch, validation upwards and training downwards."""
        if self.gap is None or self.last_gap is None:
            return 0.0
        return self.last_gap - self.gap

    @property
    def fit(self) -> float | None:
        """How well the training data are fitted, at the best epoch: the lower of the two losses.

        A training loss is the mean over an epoch, with dropout and while the network still changed; one that is above
        the validation loss says less about the fit than that does.
        """
        known = [loss for loss in (self.train, self.val) if loss is not None]
        return min(known, default=None)

    @property
    def best_at_the_end(self) -> bool:
        """Whether the best epoch is among the last tenth of the epochs."""
        return self.best_epoch > 0 and self.best_epoch >= math.floor(0.9 * self.epochs)


def losses(curve: Sequence[Report], objective: Objective) -> tuple[list[float | None], list[float | None]]:
    """The training and the validation loss by epoch; of other metrics what is lower when it is better."""
    first = curve[0].metrics if curve else {}
    if VAL in first:
        return _named(curve, TRAIN), _named(curve, VAL)
    sign = 1.0 if objective.direction == "minimize" else -1.0
    shares = all(0 <= report.value <= 1 for report in curve)
    offset = 1.0 if objective.direction == "maximize" and shares else 0.0  # an accuracy becomes an error rate
    val = [offset + sign * report.value for report in curve]
    name = re.sub(r"^(val|valid|validation)(?=[_/])", "train", objective.metric)
    train = _named(curve, name) if name != objective.metric else [None] * len(curve)
    return [None if value is None else offset + sign * value for value in train], list(val)


def yardstick(trials: Sequence[Trial], curves: Mapping[int, Sequence[Report]], objective: Objective) -> Yardstick:
    """What the losses of a study are measured against.

    The entropy of the labels where the module logs it; 1 for our regressors, whose target has the variance 1; else the
    first validation loss of those trials that had learnt least by then.
    """
    told = [curve for curve in curves.values() if curve]
    entropies = [report.metrics[ENTROPY] for curve in told for report in curve if ENTROPY in report.metrics]
    if entropies and any(VAL in curve[0].metrics for curve in told):
        text = any("val_perplexity" in curve[0].metrics for curve in told)
        return Yardstick(statistics.median(entropies), TEXT if text else CLASSES)
    configs = [trial.result.config for trial in trials if trial.result is not None and trial.result.config]
    absent = object()
    if any(at_path(config, "model.target_std", absent) is not absent for config in configs):
        return Yardstick(1.0, NUMBER)
    firsts = sorted(v for curve in told if (v := losses(curve, objective)[1][0]) is not None and v > 0)
    if not firsts:
        return Yardstick(None)
    return Yardstick(firsts[min(len(firsts) - 1, round(0.75 * (len(firsts) - 1)))], guessed=True)


def read(trial: Trial, curve: Sequence[Report], stick: Yardstick, objective: Objective) -> Reading:
    """Read the curves of a trial."""
    scale = stick.value or 1.0
    train_by_epoch, val_by_epoch = losses(curve, objective)
    train = [value / scale for value in train_by_epoch if value is not None]
    val = [(i, value / scale) for i, value in enumerate(val_by_epoch) if value is not None]
    nan = trial.result is not None and trial.result.infeasible and (trial.result.reason or "").startswith("diverged")
    if not val:
        return Reading(trial.number, len(curve), diverged=nan)
    at, best = min(val, key=lambda pair: pair[1])
    train_there = train_by_epoch[at]
    late = min(math.ceil((1 - LAST_PART) * len(curve)) - 1, len(curve) - 2)
    before = min((v for i, v in val if i <= late), default=best)
    fallen = max(0.0, before - best)
    return Reading(
        number=trial.number,
        epochs=len(curve),
        best_epoch=curve[at].epoch,
        val=best,
        train=None if train_there is None else train_there / scale,
        last_val=val[-1][1],
        last_train=train[-1] if train else None,
        lowest_train=min(train, default=None),
        fall=fallen / before if before > 0 else 0.0,
        fallen=fallen,
        steady=_steady([v for _, v in val], fallen),
        jumps=_jumps(train),
        diverged=nan or _blown_up(train or [v for _, v in val], stick),
        gradients=_first_to_last(curve),
        largest_gradient=max((v for r in curve for k, v in _named_so(r, GRADIENT).items()), default=None),
        drift=_drift(curve),
        cut=_cut(trial),
    )


def _named(curve: Sequence[Report], name: str) -> list[float | None]:
    return [report.metrics.get(name) for report in curve]


def _jumps(train: Sequence[float]) -> float:
    """By how much a loss rises in an epoch, on the average over its epochs."""
    return sum(max(0.0, b - a) for a, b in itertools.pairwise(train)) / max(1, len(train) - 1)


def _blown_up(train: Sequence[float], stick: Yardstick) -> bool:
    """Whether a loss ends far above the yardstick, and not because it began there and falls.

    Where that is only guessed, whether it ends far above its own beginning, or is thrown about.
    """
    if stick.guessed or stick.value is None:
        return train[-1] > BLOWN_UP * train[0] > 0 or _jumps(train) > THROWN
    falling = train[-1] <= min(train) * 1.02 and train[-1] < train[0] <= FAR_TOO_HIGH
    return train[-1] > FAR_TOO_HIGH or (train[-1] > BLOWN_UP and not falling)


def _steady(val: Sequence[float], fallen: float) -> bool:
    """Whether a loss fell nearly every epoch, in the last quarter by a tenth of the whole way at least."""
    whole, steps = val[0] - min(val), list(itertools.pairwise(val))
    down = sum(after < before for before, after in steps)
    return len(val) > 2 and val[-1] == min(val) and down >= MOSTLY * len(steps) and fallen >= 0.1 * whole > 0


def _cut(trial: Trial) -> bool:
    result = trial.result
    if result is None or result.state is not TrialState.COMPLETE:
        return True
    return "budget" in (result.reason or "")


def _named_so(report: Report, prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in report.metrics.items() if k.startswith(prefix)}


def _first_to_last(curve: Sequence[Report]) -> float | None:
    """The gradient norm of the first layer as a share of the last layer's, median over the epochs."""
    ratios = []
    for report in curve:
        norms = _named_so(report, GRADIENT)
        names = sorted(norms, key=_in_order)
        if len(names) > 1 and norms[names[-1]] > 0:
            ratios.append(norms[names[0]] / norms[names[-1]])
    return statistics.median(ratios) if ratios else None


def _in_order(name: str) -> list[tuple[int, int, str]]:
    """A key that puts net.2 before net.10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]


def _drift(curve: Sequence[Report]) -> float | None:
    """How far what arrives at an activation moved, in its first deviations, of the layer that moved most."""
    if not curve:
        return None
    moved = []
    means, deviations = _named_so(curve[0], MEAN), _named_so(curve[0], DEVIATION)
    for name, mean in means.items():
        first = deviations.get(name, 0.0)
        later = [value for report in curve if (value := report.metrics.get(MEAN + name)) is not None]
        if first > 0:
            moved.append(max(abs(value - mean) for value in later) / first)
    return max(moved, default=None)
