"""The table of leading trials fits where it is printed, and no value in it is cut."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from tuner.cli.leaders import Leaders, leaders_json
from tuner.report.words import number
from tuner.trial import Objective, Trial, TrialResult, TrialState

NAMES = [
    *("learning_rate", "batch_size", "hidden_units", "momentum", "depth", "lr_decay", "adam_beta1", "adam_beta2"),
    *("adam_eps", "optimizer", "norm", "activation", "nesterov", "weight_decay", "gradient_clip_val"),
]
SPACE = {f"model.{name}": {"priority": place} for place, name in enumerate(NAMES, start=1)}


def leaders(moving: int) -> list[Trial]:
    """Ten trials that differ in so many parameters, some of them words."""
    draw, trials = np.random.default_rng(moving), []
    for index in range(10):
        params = {path: float(10 ** draw.uniform(-8, 0)) for path in list(SPACE)[:moving]}
        if "model.optimizer" in params:
            params["model.optimizer"] = ["torch.optim.AdamW", "sgd"][draw.integers(2)]
        params["model.depth"] = 2  # of all of them, so not worth a column
        outcome = TrialResult(TrialState.COMPLETE, 0.1 + index / 7, {}, best_epoch=3, epochs=4)
        trials.append(Trial(index * 11, params, 0, TrialState.COMPLETE, result=outcome))
    return trials


def printed(trials: list[Trial], width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(Leaders("digits", trials, Objective("val_loss"), SPACE))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("moving", range(2, 16))
def test_values_are_whole_and_every_parameter_has_a_column_or_is_named(moving: int, width: int) -> None:
    trials = leaders(moving)
    lines = printed(trials, width)
    assert max(map(len, lines)) <= width
    first = next(index for index, line in enumerate(lines) if line.split()[0] == "0")
    rows, heading = [line.split() for line in lines[first : first + 10]], lines[:first]
    named = " ".join(lines[first + 10 : -1])
    varied = [path for path in list(SPACE)[:moving] if path != "model.depth"]
    left_out = re.findall(r"\w+", named)
    shown = [path for path in varied if path.removeprefix("model.") not in left_out]
    for trial, row in zip(trials, rows, strict=True):
        told = [number((trial.params or {})[path]) for path in shown]
        assert row == [str(trial.number), number(trial.score), "3", *told]
    endings = [path.removeprefix("model.").rpartition("_")[2] for path in shown]
    assert [name.rpartition("_")[2] for name in heading[-1].split()[3:]] == endings, "in the order of the priorities"
    assert bool(named) == (shown != varied)
    assert not named or lines[-1] == "all of them: tuner show digits --json"


def test_what_fits_has_its_headings_on_one_line_and_what_does_not_is_folded_at_underscores() -> None:
    assert len(printed(leaders(4), 120)) == 11
    narrow = printed(leaders(4), 60)
    assert narrow[0].split() == ["val_", "learning_", "hidden_"]
    assert narrow[1].split() == ["trial", "loss", "epoch", "rate", "batch_size", "units"]


def test_json_has_all_parameters_of_the_leaders() -> None:
    trials = leaders(15)
    assert [line["params"] for line in leaders_json(trials)] == [trial.params for trial in trials]
    assert leaders_json(trials)[1] == {"trial": 11, "value": trials[1].value, "epoch": 3, "params": trials[1].params}
