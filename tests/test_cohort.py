"""Cohorts: a trial gets the numbers that it gets alone, whatever the others of its cohort do, or is trained alone."""

from __future__ import annotations

import io
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fusable
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort import CohortTraining, Job, formulas
from tuner.cohort.cohort import Cohort
from tuner.cohort.errors import NotFusable
from tuner.cohort.loading import batches_of
from tuner.cohort.recording import Recordings
from tuner.cohort.size import FIRST, MOST, Sizes
from tuner.cohort.step import Batches, Outcome, Step
from tuner.cohort.template import copied
from tuner.errors import MissingMetric, StorageUnavailable, TrialInterrupted
from tuner.home import Home
from tuner.models import MLP
from tuner.service.entry import enter, open_storage
from tuner.service.worker import work_on
from tuner.space import Space
from tuner.space.grammar import Parameter
from tuner.spec import read_study
from tuner.storage import Store
from tuner.training import Blueprint, Bookmark, NotLean, SingleTraining
from tuner.trial import Objective, Report, Trial, TrialResult, TrialState, Verdict

K, EPOCHS = 8, 4
LOSS = Objective("val_loss")

pytestmark = pytest.mark.usefixtures("one_thread", "trusted", "seldom_recorded")


@lru_cache
def blueprint() -> Blueprint:
    """One for all tests: it parses any configuration."""
    return Blueprint(config())


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lean loop is believed to give the Trainer's numbers, as its own tests show."""
    monkeypatch.setattr("tuner.training.single.disagreement", lambda *_: None)
    monkeypatch.setattr("tuner.training.single.Blueprint", lambda _: blueprint())


class Unrecorded(Recordings):
    """Never records: for so few steps that does not pay."""

    def __init__(self, checked: set[str] | None = None) -> None:
        super().__init__(checked)
        self.frozen = True


class RecordedOnce(Recordings):
    """Records every form at its second call, and does not compare it with another recording."""

    def __init__(self, checked: set[str] | None = None) -> None:
        super().__init__({"training_step", "validation_step"})

    @property
    def seconds(self) -> float:
        return 0.0

    @seconds.setter
    def seconds(self, _: float) -> None:
        pass


@pytest.fixture
def seldom_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.cohort.training.Recordings", Unrecorded)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, seldom_recorded: None) -> None:
    monkeypatch.setattr("tuner.cohort.training.Recordings", RecordedOnce)


# What is trained, and what is heard of it


def config(
    model: str = "fusable.Net", seed: int = 0, data: Any = None, trainer: Any = None, **arguments: Any
) -> dict[str, Any]:
    """A trial's configuration; `data` are arguments of `fusable.Data`, or the class of other data."""
    source = {"class_path": data} if isinstance(data, str) else {"class_path": "fusable.Data", "init_args": data or {}}
    return {
        "seed_everything": seed,
        "model": {"class_path": model, "init_args": arguments},
        "data": source,
        "trainer": {"accelerator": "cpu", "max_epochs": EPOCHS, **(trainer or {})},
    }


def jobs(configs: Iterable[Mapping[str, Any]], keep: Path | None = None, first: int = 0) -> list[Job]:
    """A job of each, with another seed than the others; `keep` is where weights go."""
    made = []
    for number, each in enumerate(configs, first):
        path = None if keep is None else keep / f"trial-{number}.ckpt"
        made.append(Job(number, {**each, "seed_everything": 100 + number}, lambda _, path=path: path))
    return made


def nets(
    model: str = "fusable.Net", count: int = K, of: Sequence[Mapping[str, Any]] = (), **arguments: Any
) -> list[Job]:
    """Jobs of one class with other learning rates; `of` has other arguments of some of them."""
    own = [*of, *({} for _ in range(count - len(of)))]
    return jobs(config(model, **{"lr": 0.05 * (k + 1), **arguments, **own[k]}) for k in range(count))


def changed(job: Job, **arguments: Any) -> Job:
    """The job with other arguments of its model."""
    model = dict(job.config["model"])
    model["init_args"] = {**model["init_args"], **arguments}
    return replace(job, config={**job.config, "model": model})


@dataclass
class Told:
    """What trials have said and what became of them, by number.

    Attributes:
        answers: what to say to a trial's report, by (trial, epoch).
        order: the numbers as the results came.
        asked: how many reports came together, each time.
    """

    answers: Mapping[tuple[int, int], Verdict] = field(default_factory=dict)
    reports: dict[int, list[Report]] = field(default_factory=dict)
    results: dict[int, TrialResult] = field(default_factory=dict)
    weights: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def judge(self, said: Sequence[tuple[Job, Report]]) -> list[Verdict]:
        self.asked.append(len(said))
        for job, report in said:
            self.reports.setdefault(job.number, []).append(report)
        return [self.answers.get((job.number, report.epoch), Verdict.GO_ON) for job, report in said]

    def hear(self, job: Job, result: TrialResult) -> None:
        assert job.number not in self.results, "it has ended twice"
        self.order.append(job.number)
        self.results[job.number] = result
        if fusable.ENDED:
            self.weights[job.number] = fusable.ENDED.pop()

    def trained(self) -> list[str | None]:
        return [self.results[number].trained for number in sorted(self.results)]


def space(*floats: str, **choices: list[Any]) -> Space:
    """A space of these hyperparameters of the model."""
    known = {f"model.{name}": Parameter.model_validate({"float": {"low": 0.0, "high": 1.0}}) for name in floats}
    return Space(known | {f"model.{n}": Parameter.model_validate({"choice": v}) for n, v in choices.items()})


SEARCHED = space("lr", "momentum", "learning_rate")


def single(
    example: Job, objective: Objective = LOSS, patience: int | None = None, stop: Callable[[], bool] = lambda: False
) -> SingleTraining:
    return SingleTraining(example.config, objective, patience, stop)


def together(
    given: Sequence[Job],
    answers: Mapping[tuple[int, int], Verdict] | None = None,
    more: Iterable[Job] = (),
    training: CohortTraining | None = None,
    **settings: Any,
) -> Told:
    """Train jobs in cohorts; `more` follow as places become free."""
    told, waiting = Told(answers or {}), list(more)
    training = training or CohortTraining(single(given[0], **settings), SEARCHED, "cohort", K)

    def refill(like: Job, count: int) -> list[Job]:
        taken, waiting[:] = waiting[:count], waiting[count:]
        return taken

    fusable.ENDED.clear()
    for job, result in training.train(given, told.judge, refill):
        told.hear(job, result)
    return told


def alone(given: Sequence[Job], answers: Mapping[tuple[int, int], Verdict] | None = None, **settings: Any) -> Told:
    """Train jobs one by one."""
    told, training = Told(answers or {}), single(given[0], **settings)
    fusable.ENDED.clear()
    for job in given:
        try:
            told.hear(job, training.train(job.config, lambda r, job=job: told.judge([(job, r)])[0], job.keep_weights))
        except TrialInterrupted:
            assert (job.number, told.reports[job.number][-1].epoch) in told.answers
    return told


def assert_same(ours: Told, theirs: Told, within: float = 1e-9, weights: bool = True) -> None:
    """Every metric of every epoch, how each trial ended, and its last weights."""
    assert TrialState.COMPLETE in {result.state for result in theirs.results.values()}
    assert ours.results.keys() == theirs.results.keys()
    for number, reports in theirs.reports.items():
        assert [r.epoch for r in ours.reports[number]] == [r.epoch for r in reports]
        for mine, report in zip(ours.reports[number], reports, strict=True):
            assert dict(mine.metrics) == pytest.approx(dict(report.metrics), rel=within, abs=within), (
                number,
                mine.epoch,
            )
            assert mine.value == mine.metrics.get("val_loss", mine.value)
    for number, result in theirs.results.items():
        mine = ours.results[number]
        assert ended(mine) == ended(result)
        assert (mine.value is None) is (result.value is None)
        assert mine.value is None or mine.value == pytest.approx(result.value, rel=within, abs=within)
        assert mine.config == result.config
    assert not weights or ours.weights.keys() == theirs.weights.keys()
    for number, state in theirs.weights.items() if weights else ():
        for name, tensor in state.items():
            assert torch.allclose(ours.weights[number][name], tensor, rtol=0, atol=within), (number, name)


def ended(result: TrialResult) -> tuple[Any, ...]:
    return result.state, result.best_epoch, result.epochs, result.infeasible, result.reason


def assert_in_one_cohort(told: Told, size: int = K) -> None:
    assert told.trained() == [f"cohort of {size}"] * len(told.results)


# The same numbers

IMAGES = {"kind": "images"}
FAMILIES: dict[str, dict[str, Any]] = {
    "MLP, layer norm": {"model": "MLP", "norm": "layer", "hidden_units": 6, "depth": 1},
    "MLP, none norm": {"model": "MLP", "norm": "none", "hidden_units": 6, "depth": 1},
    "MLP, batch norm": {"model": "MLP", "norm": "batch", "hidden_units": 6, "depth": 2},
    "MLP, maxout": {"model": "MLP", "activation": "maxout", "hidden_units": 6, "depth": 1},
    "MLP, prelu": {"model": "MLP", "activation": "prelu", "norm": "none", "hidden_units": 6, "depth": 1},
    "MLPRegressor": {"model": "MLPRegressor", "data": {"kind": "numbers"}, "hidden_units": 6, "depth": 1},
    "LeNet": {"model": "LeNet", "data": IMAGES, "channels": 2, "hidden_units": 4},
    "ResNet": {"model": "ResNet", "data": IMAGES, "hidden_units": 2, "stages": 1},
    "DenseNet": {"model": "DenseNet", "data": IMAGES, "hidden_units": 2, "depth": 2, "blocks": 1},
    **{
        f"RNNLanguageModel, {cell}": {
            "model": "RNNLanguageModel", "data": "fusable.Symbols", "cell": cell, "hidden_units": 4,
        }
        for cell in ("rnn", "gru", "lstm")
    },
}  # fmt: skip


def differing(k: int) -> dict[str, Any]:
    """Hyperparameters of slice k: all of them differ."""
    return {
        "learning_rate": 0.02 * (k + 1),
        "momentum": 0.11 * k,
        "weight_decay": 1e-3 * k,
        "penalty": 1e-3 * (k % 3),
        "penalty_p": 1 + k / 8,
        "clip_norm": None if k == 3 else 0.1 + 0.2 * k,
        "lr_schedule": "exponential",
        "lr_decay": 0.8 + 0.02 * k,
        "dropout": 0.0,
    }


def family(name: str, package: str, **others: Any) -> list[Job]:
    """K trials of a family."""
    arguments = dict(FAMILIES[name])
    model = package + arguments.pop("model")
    return jobs(config(model, trainer={"max_epochs": 5}, **{**arguments, **differing(k), **others}) for k in range(K))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_in_a_cohort_what_it_learns_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording of every family's step has tests of its own."""
    if name in ("MLP, batch norm", "LeNet"):
        monkeypatch.setattr("tuner.cohort.training.Recordings", RecordedOnce)
    given = family(name, "fusable.Double")
    ours = together(given)
    assert_in_one_cohort(ours)
    assert_same(ours, alone(given))


@pytest.mark.parametrize("name", FAMILIES)
def test_in_single_precision_every_metric_of_every_epoch_has_the_same_three_digits(name: str) -> None:
    given = family(name, "tuner.models.")
    ours = together(given)
    assert_in_one_cohort(ours)
    assert_same(ours, alone(given), within=1e-3, weights=False)


OPTIMISERS: dict[str, Callable[[int], dict[str, Any]]] = {
    **{name: lambda k: {} for name in ("sgd", "adagrad", "rmsprop", "adam", "adamw")},
    "sgd, all ahead": lambda k: {"nesterov": True},
    "sgd, some ahead": lambda k: {"nesterov": k % 2 == 0},
    "adam, on other schedules": lambda k: {"lr_schedule": ("step", "sqrt", "none")[k % 3], "lr_step": k + 1},
}


@pytest.fixture(params=["formula", "kernels"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are changed: by a formula for all of them, or by torch's fused kernels."""
    for kind in formulas.LONG:
        monkeypatch.setitem(formulas.LONG, kind, 0 if request.param == "kernels" else 10**9)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_makes_the_steps_that_it_makes_alone(name: str) -> None:
    def own(k: int) -> dict[str, Any]:
        adam = {"adam_beta1": 0.8 + k / 50, "adam_beta2": 0.9 + k / 100, "adam_eps": 10.0 ** (k - 9)}
        return {**differing(k), **adam, **OPTIMISERS[name](k), "optimizer": name.partition(",")[0]}

    given = jobs(config("fusable.DoubleMLP", hidden_units=5, depth=1, norm="none", **own(k)) for k in range(K))
    ours = together(given)
    assert_in_one_cohort(ours)
    assert_same(ours, alone(given))


UNUSUAL = (
    "NAdam",
    "Adadelta",
    "groups",
    "amsgrad",
    "centred",
    "RMSprop with momentum",
    "maximising",
    "torch's momentum",
    "own",
)


@pytest.mark.parametrize("word", UNUSUAL)
def test_an_optimiser_of_any_other_kind_makes_the_steps_that_it_makes_alone(word: str) -> None:
    given = nets("fusable.Optimised", count=3, word=word)
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


@pytest.mark.parametrize("word", ["LBFGS", "twice", "ahead", "hooked"])
def test_an_optimiser_that_does_more_than_to_follow_one_gradient_is_left_alone(word: str) -> None:
    given = nets("fusable.Optimised", count=2, word=word, trainer={"max_epochs": 1})
    ours = together(given)
    assert_same(ours, alone(given))
    reason = "has hooks" if word == "hooked" else "computes gradients more than once, or not first"
    assert ours.trained() == [f"lean; not in a cohort: its optimiser {reason}"] * 2


@pytest.mark.parametrize("loader", ["indexed", "torch", "plain", "named"])
@pytest.mark.parametrize(("batch_size", "shuffled"), [(10, False), (7, True)])
def test_every_slice_gets_its_own_batches_in_its_own_order(loader: str, batch_size: int, shuffled: bool) -> None:
    given = nets(count=3, data={"loader": loader, "batch_size": batch_size, "shuffled": shuffled})
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


@pytest.mark.parametrize("loader", ["indexed", "plain"])
def test_slices_of_one_seed_see_the_same_batches(loader: str) -> None:
    data = {"loader": loader}
    given = [replace(job, config={**job.config, "seed_everything": 1}) for job in nets(count=3, data=data)]
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


def test_slices_whose_data_have_an_order_of_their_own_share_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[bool] = []

    def noted(*arguments: Any) -> Iterator[Batches]:
        for batches in batches_of(*arguments):
            shared.append(batches.shared)
            yield batches

    monkeypatch.setattr("tuner.cohort.cohort.batches_of", noted)
    data = {"class_path": "tuner.data.Digits", "init_args": {"batch_size": 200, "order_seed": 7}}
    network = {"hidden_units": 4, "depth": 1, "norm": "none", "dropout": 0.0}
    given = jobs({**config("tuner.models.MLP", learning_rate=0.02 * k, **network), "data": data} for k in range(1, 4))
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert shared
    assert all(shared)
    assert_same(ours, alone(given), within=1e-5)


def test_batches_of_another_size_make_another_cohort() -> None:
    given = jobs(config(data={"batch_size": (5, 10)[k % 2]}, lr=0.1 * (k + 1)) for k in range(4))
    ours = together(given)
    assert_in_one_cohort(ours, 2)
    assert_same(ours, alone(given))


@pytest.mark.parametrize("word", ["frozen", "in no group", "unused"])
def test_parameters_that_are_not_trained_stay_as_they_are(word: str) -> None:
    given = nets("fusable.Partial", count=3, word=word)
    ours = together(given)
    assert_same(ours, alone(given))
    trained = "lean; not in a cohort: no gradient reaches spare.weight" if word == "unused" else "cohort of 3"
    assert ours.trained() == [trained] * 3


def test_a_loss_may_have_dimensions_and_a_validation_may_return_anything() -> None:
    given = nets("fusable.Losses", count=3, word="one")
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


def test_a_loss_of_two_values_fails_as_alone() -> None:
    given = nets("fusable.Losses", count=3, word="two")
    ours, theirs = together(given), alone(given)
    assert [r.state for r in theirs.results.values()] == [TrialState.FAILED] * 3
    assert list(map(ended, ours.results.values())) == list(map(ended, theirs.results.values()))


@pytest.mark.parametrize(
    ("trainer", "loader"),
    [
        ({"gradient_clip_val": 0.05}, "indexed"),
        ({"check_val_every_n_epoch": 2}, "indexed"),
        ({"limit_train_batches": 2, "limit_val_batches": 0.7}, "plain"),
        ({"limit_train_batches": 1, "limit_val_batches": 1}, "indexed"),
    ],
)
def test_what_the_trainer_is_asked_for_is_done(trainer: dict[str, Any], loader: str) -> None:
    given = nets(count=3, trainer=trainer, data={"loader": loader, "shuffled": True})
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


def test_gradients_are_clipped_by_value_too_and_to_another_value_in_each_slice() -> None:
    clips = [{"gradient_clip_val": 0.01 * (k + 1), "gradient_clip_algorithm": "value"} for k in range(3)]
    given = jobs(
        config("fusable.DoubleMLP", hidden_units=5, depth=1, clip_norm=0.1, dropout=0.0, trainer=c) for c in clips
    )
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


@pytest.mark.usefixtures("recorded")
def test_everything_that_is_logged_is_logged_as_alone() -> None:
    given = nets("fusable.Logs", count=3)
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given), within=1e-6)
    assert {"train_loss_step", "train_loss_epoch", "whole", "number", "count", "weighted", "twice", "epoch"} <= set(
        ours.reports[0][-1].metrics
    )


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("word", ["by epoch", "every second step", "one cycle, by step", "on plateau"])
def test_a_schedule_moves_every_learning_rate_as_alone(word: str) -> None:
    given = nets("fusable.Scheduled", count=3, word=word)
    ours, constant = together(given), alone(nets("fusable.Scheduled", count=3, word="none"))
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))
    assert any(abs((ours.results[n].value or 0) - (constant.results[n].value or 0)) > 1e-3 for n in range(3)), (
        "it does something"
    )


def test_a_schedule_of_somebodys_own_sees_the_step_that_it_is_at() -> None:
    given = nets("fusable.Scheduling", count=3)
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


def test_dropout_at_other_rates_gives_losses_of_the_same_distribution() -> None:
    rates, seeds = (0.0, 0.8), 16
    given = [changed(job, dropout=rates[job.number % 2]) for job in nets(count=2 * seeds, lr=0.2, width=16)]
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", 2 * seeds)
    ours, theirs = together(given, training=training), alone(given)
    assert_in_one_cohort(ours, 2 * seeds)
    spreads = {}
    for metric in ("train_loss", "val_loss"):
        for rate in (0, 1):
            samples = [
                torch.tensor([told.reports[n][-1].metrics[metric] for n in range(rate, 2 * seeds, 2)])
                for told in (ours, theirs)
            ]
            error = (samples[0].var() / seeds + samples[1].var() / seeds).sqrt()
            assert abs(samples[0].mean() - samples[1].mean()) < 3 * error
            spreads[metric, rate] = samples[0].mean(), error
    gap = spreads["train_loss", 1][0] - spreads["train_loss", 0][0]
    assert gap > 4 * spreads["train_loss", 1][1], "and another rate would have been noticed"
    assert len({tuple(r.value for r in reports) for reports in ours.reports.values()}) == 2 * seeds


@pytest.mark.usefixtures("recorded")
def test_the_same_trials_give_the_same_numbers_to_the_last_bit_recorded_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [changed(job, dropout=0.1 * job.number) for job in nets()]
    first, again = together(given), together(given)
    monkeypatch.setattr("tuner.cohort.training.Recordings", Unrecorded)
    assert first.reports == again.reports == together(given).reports


# Ends


def turning(*at: int, **arguments: Any) -> list[Job]:
    """Trials whose loss is smallest in these epochs."""
    return nets("fusable.Turning", len(at), [{"at": epoch} for epoch in at], **arguments)


@pytest.mark.usefixtures("recorded")
def test_every_slice_stops_when_its_own_patience_has_run_out() -> None:
    given = turning(1, 3, 2, 9, 1, 5, trainer={"max_epochs": 7})
    ours = together(given, patience=2)
    assert_same(ours, alone(given, patience=2))
    assert [ours.results[n].epochs for n in range(6)] == [3, 5, 4, 7, 3, 7]
    assert ours.order == [0, 4, 2, 1, 3, 5]


@pytest.mark.parametrize("verdict", [Verdict.PRUNE, Verdict.HALT, Verdict.GIVE_BACK])
def test_a_verdict_on_one_slice_ends_that_one_and_no_other(verdict: Verdict) -> None:
    given, answers = nets(count=4), {(2, 2): verdict, (0, 3): verdict}
    ours = together(given, answers)
    assert_same(ours, alone(given, answers))
    assert [len(ours.reports[n]) for n in range(4)] == [3, 4, 2, 4]
    if verdict is Verdict.GIVE_BACK:
        assert ours.order == [1, 3]
    else:
        assert ours.results[2].state is (TrialState.PRUNED if verdict is Verdict.PRUNE else TrialState.COMPLETE)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_slice_that_diverges_is_infeasible_and_harms_no_other(place: int) -> None:
    of: list[dict[str, Any]] = [{} for _ in range(4)]
    of[place] = {"at": 3}
    given = nets("fusable.Diverging", 4, of)
    ours = together(given)
    assert_same(ours, alone(given), weights=False)
    result = ours.results[place]
    assert (result.state, result.infeasible) == (TrialState.PRUNED, True)
    assert result.reason == "diverged: val_loss is nan at epoch 3"
    assert [r.state for n, r in ours.results.items() if n != place] == [TrialState.COMPLETE] * 3


HOOKS = ("on_train_epoch_start", "on_train_epoch_end", "on_validation_epoch_start", "on_validation_epoch_end")


@pytest.mark.parametrize(("place", "at"), [(0, 1), (2, 3)])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_slice_whose_hook_raises_is_failed_with_its_traceback_and_the_others_go_on(
    hook: str, at: int, place: int
) -> None:
    of: list[dict[str, Any]] = [{} for _ in range(3)]
    of[place] = {"word": hook, "at": at}
    given = nets("fusable.Raising", 3, of)
    ours = together(given)
    assert_same(ours, alone(given), weights=False)
    result = ours.results[place]
    assert result.state is TrialState.FAILED
    assert f"ValueError: raised in {hook} (" in (result.reason or "")
    assert f"in {hook}" in (result.detail or "")
    assert [r.state for n, r in ours.results.items() if n != place] == [TrialState.COMPLETE] * 2


def test_slices_may_all_raise_at_once() -> None:
    given = nets("fusable.Raising", 3, word="on_train_epoch_start", at=2)
    ours, theirs = together(given), alone(given)
    assert list(map(ended, ours.results.values())) == list(map(ended, theirs.results.values()))
    assert [(r.state, r.epochs) for r in ours.results.values()] == [(TrialState.FAILED, 1)] * 3


def test_a_hook_that_raises_at_the_very_end_fails_that_trial_only() -> None:
    given = nets("fusable.Raising", 3, [{}, {"word": "on_fit_end", "at": EPOCHS + 1}])
    ours = together(given)
    assert_same(ours, alone(given), weights=False)
    assert [ours.results[n].state for n in range(3)] == [TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE]


def test_a_metric_that_is_not_logged_stops_the_study() -> None:
    with pytest.raises(MissingMetric, match="got 'val_los'"):
        together(nets(count=3), objective=Objective("val_los"))


def test_whoever_judges_may_raise_and_no_trial_is_blamed() -> None:
    training = CohortTraining(single(nets()[0]), SEARCHED, "cohort", K)

    def judge(_: Any) -> list[Verdict]:
        raise StorageUnavailable("database is locked")

    with pytest.raises(StorageUnavailable):
        list(training.train(nets(), judge))


@pytest.mark.parametrize("after", [0, 4, 7])
def test_an_interruption_is_noticed_before_a_step(after: int) -> None:
    calls: list[bool] = []

    def stop() -> bool:
        calls.append(len(calls) == after)
        return calls[-1]

    told, training = Told(), CohortTraining(single(nets()[0], stop=stop), SEARCHED, "cohort", K)
    with pytest.raises(TrialInterrupted):
        list(training.train(nets(), told.judge))
    assert len(calls) == after + 1
    assert {len(reports) for reports in told.reports.values()} == ({after // 3} if after >= 3 else set())


def test_all_slices_report_in_one_go() -> None:
    assert together(nets()).asked == [K] * EPOCHS


def test_the_seconds_of_a_cohort_are_shared_by_its_slices_and_told_as_they_pass() -> None:
    import time

    started = time.perf_counter()
    told = together(nets())
    passed = time.perf_counter() - started
    trained = [result.seconds["train"] for result in told.results.values()]
    assert all(0 < seconds < passed / 4 for seconds in trained)
    assert sum(trained) < passed
    for reports in told.reports.values():
        seconds = [report.seconds for report in reports]
        assert 0 < seconds[0] < seconds[-1] < passed
        assert seconds == sorted(seconds)


# Places that become free


@pytest.mark.usefixtures("recorded")
def test_free_places_are_taken_by_new_trials_with_the_numbers_that_they_get_alone() -> None:
    given = turning(1, 9, 2, 9, 1, 4, 3, 9, 2, 9, 1, 1, 9, 3)
    ours = together(given[:K], more=given[K:], patience=1)
    assert_in_one_cohort(ours)
    assert_same(ours, alone(given, patience=1))


@pytest.mark.usefixtures("way")
def test_a_free_place_is_taken_although_the_optimiser_and_its_state_are_new() -> None:
    own = [{**differing(k), "optimizer": "adam", "lr_schedule": "exponential"} for k in range(6)]
    given = jobs(config("fusable.DoubleMLP", hidden_units=5, depth=1, **each) for each in own)
    answers = {(0, 2): Verdict.HALT, (2, 3): Verdict.PRUNE}
    ours = together(given[:4], answers, more=given[4:])
    assert_in_one_cohort(ours, 4)
    assert_same(ours, alone(given, answers))


def test_new_trials_of_another_shape_are_trained_alone_afterwards() -> None:
    given = nets(count=6, of=[{}, {}, {}, {"width": 7}, {}, {"width": 5}])
    answers = {(0, 1): Verdict.HALT, (1, 1): Verdict.HALT, (2, 2): Verdict.HALT}
    ours = together(given[:3], answers, more=given[3:])
    assert_same(ours, alone(given, answers))
    assert [trained == "lean" for trained in ours.trained()] == [False, False, False, True, False, True]


def test_a_new_trial_that_differs_in_what_the_step_reads_is_trained_alone_afterwards() -> None:
    given = nets("fusable.ReadsHyperparameter", 4, [{}, {}, {}, {"word": "much"}])
    answers = {(1, 2): Verdict.HALT}
    ours = together(given[:3], answers, more=given[3:])
    assert_same(ours, alone(given, answers))
    assert "not in a cohort: it differs in what its step reads" in str(ours.results[3].trained)


def test_a_new_trial_without_a_number_that_the_others_have_is_trained_alone_afterwards() -> None:
    own = [{**differing(k), "clip_norm": None if k == 3 else 0.1} for k in range(4)]
    given = jobs(config("fusable.DoubleMLP", hidden_units=5, depth=1, **each) for each in own)
    answers = {(1, 2): Verdict.HALT}
    training = CohortTraining(single(given[0]), space("clip_norm"), "cohort", K)
    ours = together(given[:3], answers, more=given[3:], training=training)
    assert_same(ours, alone(given, answers))
    assert str(ours.results[3].trained).startswith("lean; not in a cohort")


@pytest.mark.usefixtures("recorded")
def test_slices_may_be_in_different_epochs_and_validated_at_different_times() -> None:
    of = [{"word": "on_train_epoch_start", "at": 2}, {}, {}, {}]
    given = nets("fusable.Raising", 4, of, trainer={"check_val_every_n_epoch": 2, "max_epochs": 6})
    ours = together(given[:3], more=given[3:])
    assert_same(ours, alone(given), weights=False)
    assert_in_one_cohort(ours, 3)


def test_a_new_trial_that_cannot_be_built_fails_and_the_others_go_on() -> None:
    given = nets(count=5, of=[{}, {}, {}, {"width": -1}])
    answers = {(1, 2): Verdict.HALT, (2, 2): Verdict.HALT}
    ours = together(given[:3], answers, more=given[3:])
    assert_same(ours, alone(given, answers))
    assert ours.results[3].state is TrialState.FAILED


@pytest.mark.usefixtures("recorded", "way")
@pytest.mark.parametrize(("closing", "optimizer"), [(True, "adam"), (False, "sgd")])
def test_slices_that_are_left_do_not_notice_whether_the_ranks_are_closed(
    closing: bool, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cohort, "_closing_pays", lambda _: closing)
    own = [{**differing(k), "optimizer": optimizer} for k in range(5)]
    given = jobs(config("fusable.DoubleMLP", hidden_units=5, depth=1, **each) for each in own)
    answers = {(0, 1): Verdict.HALT, (2, 3): Verdict.PRUNE, (3, 3): Verdict.PRUNE}
    ours = together(given, answers)
    assert_same(ours, alone(given, answers))
    assert ours.results[4].trained == ("cohort of 2" if closing else "cohort of 5")


def test_ranks_are_closed_where_many_epochs_are_left_and_most_places_are_empty() -> None:
    given = nets(count=6, trainer={"max_epochs": 1000})
    answers = {(n, 1): Verdict.HALT for n in range(4)} | {(n, 3): Verdict.HALT for n in (4, 5)}
    assert together(given, answers).results[5].trained == "cohort of 2"
    given = nets(count=6, trainer={"max_epochs": 3})
    assert together(given, answers).results[5].trained == "cohort of 6"


# Weights


@pytest.mark.parametrize("patience", [None, 2])
def test_the_weights_that_are_kept_are_those_of_the_best_epoch(tmp_path: Path, patience: int | None) -> None:
    own = [{**differing(k), "learning_rate": 0.5 * (k + 1)} for k in range(4)]
    configs = [config("fusable.DoubleMLP", hidden_units=5, depth=1, **each) for each in own]
    ours = together(jobs(configs, tmp_path / "ours"), patience=patience)
    theirs = alone(jobs(configs, tmp_path / "theirs"), patience=patience)
    assert_same(ours, theirs)
    assert len({result.best_epoch for result in ours.results.values()}) > 1
    for number in range(4):
        kept, expected = (
            fusable.DoubleMLP.load_from_checkpoint(tmp_path / which / f"trial-{number}.ckpt", weights_only=True)
            for which in ("ours", "theirs")
        )
        assert kept.hparams == expected.hparams
        for name, tensor in expected.state_dict().items():
            assert torch.allclose(kept.state_dict()[name], tensor, rtol=0, atol=1e-9)


def test_nothing_is_written_of_trials_whose_weights_are_not_wanted(tmp_path: Path) -> None:
    asked: list[int] = []

    def wanted(number: int) -> Callable[[TrialResult], Path | None]:
        def keep(result: TrialResult) -> Path | None:
            asked.append(number)
            return tmp_path / "one.ckpt" if number == 1 else None

        return keep

    given = [replace(job, keep_weights=wanted(job.number)) for job in nets(count=3)]
    together(given, {(2, 1): Verdict.PRUNE})
    assert asked == [0, 1], "a pruned trial's weights are nothing to keep"
    assert [path.name for path in tmp_path.iterdir()] == ["one.ckpt"]


def test_a_module_that_has_left_its_cohort_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, Any] = {}
    original = SingleTraining.ended

    def ended(self: Any, begun: Any, *args: Any) -> TrialResult:
        found[len(found)] = (begun.module, {n: t.clone() for n, t in begun.module.state_dict().items()})
        return original(self, begun, *args)

    monkeypatch.setattr(SingleTraining, "ended", ended)
    given = nets("fusable.Optimised", 5, word="NAdam")
    together(given[:3], {(0, 1): Verdict.HALT, (1, 3): Verdict.HALT}, more=given[3:])
    assert len(found) == 5
    for module, then in found.values():
        assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in then.items())


# What a cohort does not do


@pytest.mark.parametrize(
    ("model", "trainer", "trained"),
    [
        ("ReadsEpoch", {}, "lean; not in a cohort: its step reads self.trainer.current_epoch"),
        ("ReadsStep", {}, "lean; not in a cohort: its step reads self.trainer.global_step"),
        ("ReadsTrainer", {}, "lean; not in a cohort: its step reads self.trainer.max_epochs"),
        ("ReadsNumber", {}, "lean; not in a cohort: its step looks at batch_idx"),
        ("Asks", {}, "lean; not in a cohort: RuntimeError in all slices at once"),
        ("Watches", {}, "lean; not in a cohort: it has a hook at every batch, on_train_batch_end"),
        ("Measuring", {}, "lean; not in a cohort: it calls MulticlassAccuracy, which keeps what it has seen"),
        ("Keeps", {}, "lean; not in a cohort: training_step changes what is in self.told"),
        ("Clips", {}, "lean; not in a cohort: it has a hook at every batch, configure_gradient_clipping"),
        ("Plateau", {}, "lean; not in a cohort: a schedule of its follows a metric from step to step"),
        ("Net", {"max_steps": 4}, "lean; not in a cohort: trainer.max_steps is set"),
        ("Net", {"val_check_interval": 0.5}, "lean; not in a cohort: trainer.val_check_interval is set"),
        ("Net", {"callbacks": [{"class_path": "fusable.Diary"}]}, "lightning: trainer.callbacks is"),
        ("Manual", {}, "lightning: it optimises manually"),
    ],
)
def test_what_a_cohort_does_not_do_is_trained_alone_and_says_why(
    model: str, trainer: dict[str, Any], trained: str
) -> None:
    given = nets(f"fusable.{model}", count=3, trainer=trainer)
    ours = together(given)
    assert_same(ours, alone(given))
    assert [str(told)[: len(trained)] for told in ours.trained()] == [trained] * 3


def test_a_hook_that_brings_batches_is_called_alone() -> None:
    given = nets(count=3, data="fusable.Noisy")
    ours = together(given)
    assert_same(ours, alone(given))
    assert ours.trained() == ["lean; not in a cohort: it has a hook that brings batches to the device"] * 3


@pytest.mark.parametrize("model", ["ReadsEpoch", "Watches", "Manual"])
def test_once_it_is_known_that_nothing_can_be_trained_together_trials_come_one_by_one(model: str) -> None:
    given = nets(f"fusable.{model}", count=4)
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", "auto")
    assert training.size == K
    together(given[:2], training=training)
    assert training.size == 1
    later = together(given[2:], training=training)
    assert [str(t).startswith(("lean", "lightning")) for t in later.trained()] == [True, True]


def test_one_trial_that_cannot_be_among_others_does_not_keep_them_apart() -> None:
    given = nets(count=4)
    given[0] = replace(given[0], config={**given[0].config, "trainer": {**given[0].config["trainer"], "max_steps": 3}})
    training = CohortTraining(single(given[1]), SEARCHED, "cohort", "auto")
    ours = together(given, training=training)
    assert_same(ours, alone(given))
    assert ours.trained()[1:] == ["cohort of 3"] * 3
    assert training.size == K


@pytest.mark.parametrize("model", ["ReadsWord", "ReadsHyperparameter"])
def test_trials_that_differ_in_what_a_step_reads_are_sorted_by_it(model: str) -> None:
    words = ["much", "", "", "much", "", "much", "little"]
    given = nets(f"fusable.{model}", 7, [{"word": word} for word in words])
    training = CohortTraining(single(given[0]), space("lr"), "cohort", K)
    assert "model.word" not in training.shape
    ours = together(given, training=training)
    assert_same(ours, alone(given))
    assert ours.trained() == [*["cohort of 3"] * 6, "lean"]
    assert "model.word" in training.shape
    again = together(given, training=training)
    assert again.trained() == ours.trained()


def test_words_that_no_step_reads_may_differ() -> None:
    ours = together(nets(of=[{"word": str(k), "at": k} for k in range(K)]))
    assert_in_one_cohort(ours)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Measures", "it calls MulticlassAccuracy, which keeps what it has seen"),
        ("Collects", "validation_step changes what is in self.outputs"),
        ("AsksInValidation", "RuntimeError in all slices at once"),
        ("ReadsEpochInValidation", "its step reads self.trainer.current_epoch"),
        ("TwoLoaders", "it validates on several loaders"),
        ("Ends", "it has a hook at every batch, on_validation_batch_end"),
    ],
)
def test_a_validation_that_cannot_be_made_together_is_made_alone(model: str, reason: str) -> None:
    data = {"loader": "torch", "shuffled": True, "validations": 2 if model == "TwoLoaders" else 1}
    given = nets(f"fusable.{model}", count=3, data=data)
    ours = together(given)
    assert_same(ours, alone(given))
    assert [str(told).partition(": ")[0] for told in ours.trained()] == ["cohort of 3; validated alone"] * 3, (
        ours.trained()
    )
    assert reason in str(ours.trained()[0])


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("word", "trained"),
    [
        ("a number in which all agree", "lean; not in a cohort: it reads self.times"),
        ("a number in which they differ", "cohort of 3"),
        ("a hyperparameter", "cohort of 3"),
        ("a buffer, assigned", "cohort of 3"),
        ("weights, assigned", "cohort of 3"),
        ("what is trained", "lean; not in a cohort: it changes which of its parameters are trained"),
        ("a layer", "lean; not in a cohort: it changes its layers"),
        ("a list that no step reads", "cohort of 3"),
    ],
)
def test_what_hooks_change_between_epochs_is_heeded(word: str, trained: str) -> None:
    of = [{"strength": 0.1 * (k + 1)} for k in range(3)]
    given = nets("fusable.Hooked", 3, of, word=word, trainer={"max_epochs": 3})
    ours = together(given)
    assert_same(ours, alone(given))
    assert [str(told)[: len(trained)] for told in ours.trained()] == [trained] * 3


@pytest.mark.usefixtures("recorded")
def test_a_dropout_rate_that_hooks_change_is_heeded() -> None:
    """From the first epoch on there is no dropout, so that the numbers are those of training alone."""
    given = nets("fusable.Dropping", 3)
    ours = together(given)
    assert_in_one_cohort(ours, 3)
    assert_same(ours, alone(given))


@pytest.mark.usefixtures("recorded")
def test_a_list_that_a_step_reads_and_hooks_change_is_heeded() -> None:
    given = nets("fusable.Lists", 3, word="a list that no step reads")
    ours = together(given)
    assert_same(ours, alone(given))
    assert all("it reads self.told" in str(told) for told in ours.trained())


def test_a_trial_that_asks_for_more_than_is_known_is_trained_by_the_trainer_and_reports_no_epoch_twice() -> None:
    given = nets("fusable.AsksLate", 3, [{}, {"at": 3}])
    ours = together(given)
    assert_same(ours, alone(given))
    assert [str(t).split(":")[0] for t in ours.trained()] == ["cohort of 3", "lightning", "cohort of 3"]


def test_streams_of_other_widths_are_other_shapes() -> None:
    def one(rows: int) -> dict[str, Any]:
        made = config("fusable.DoubleRNNLanguageModel", hidden_units=4, data="fusable.Symbols")
        made["data"]["init_args"] = {"rows": rows}
        return made

    given = jobs(one(rows) for rows in (12, 13, 12, 13))
    ours = together(given)
    assert ours.trained() == ["cohort of 2"] * 4
    assert_same(ours, alone(given))


# The gates


@pytest.mark.parametrize("place", [0, K - 1])
@pytest.mark.parametrize("what", ["gradients", "loss", "logged"])
def test_a_step_that_is_not_what_it_is_alone_is_never_trusted(
    what: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Step._unpacked

    def slightly_wrong(self: Step, *args: Any) -> Outcome:
        out = original(self, *args)
        if not self.trains:
            return out
        if what == "logged":
            values = [(call, value + 0.01 * (torch.arange(K) == place)) for call, value in out.logged]
            return replace(out, logged=values)
        tensor = getattr(out, what).clone()
        tensor[(place, 0) if what == "gradients" else place] += 0.01
        return replace(out, **{what: tensor})

    given = nets()
    expected = alone(given)
    monkeypatch.setattr(Step, "_unpacked", slightly_wrong)
    ours = together(given)
    assert_same(ours, expected)
    name = {"gradients": "the gradient of layers.0.weight", "loss": "the loss", "logged": "train_loss"}[what]
    assert ours.trained() == [f"lean; not in a cohort: {name} is another in a cohort than alone"] * K


def test_a_buffer_that_is_not_what_it_is_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import tuner.cohort.rows

    given = nets()
    expected = alone(given)
    monkeypatch.setattr(tuner.cohort.rows.Rows, "update", lambda *_: None)
    ours = together(nets("fusable.Counting"))
    assert all("the buffer seen is another in a cohort than alone" in str(told) for told in ours.trained())
    assert_same(together(given), expected)


@pytest.mark.usefixtures("recorded")
def test_what_goes_wrong_late_sends_all_to_train_alone_and_no_epoch_is_reported_twice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tuner.cohort.recording import Recording

    original, calls = Recording.replay, iter(range(100))

    def fails(self: Recording, given: Any) -> Any:
        if next(calls) == 6:
            raise IndexError("index 9 is out of range")
        return original(self, given)

    monkeypatch.setattr(Recording, "replay", fails)
    given = nets(count=3)
    ours = together(given)
    assert ours.trained() == ["lean; not in a cohort: IndexError in all slices at once: index 9 is out of range"] * 3
    assert_same(ours, alone(given))
    assert "trials [0, 1, 2] begin again, one by one" in caplog.text


# Memory, size and time


class Memory:
    """Room for so many slices; asks for more fail as torch's allocator does.

    Args:
        room: how many.
        spared: how many calls go well.
    """

    def __init__(self, room: int, spared: int = 0) -> None:
        self.room, self.spared, self.sizes = room, spared, []  # type: ignore[var-annotated]
        self._original = Step.__call__

    def __call__(self, step: Step, *args: Any, **kwargs: Any) -> Outcome:
        if len(step.rows) > self.room:
            self.spared -= 1
            if self.spared < 0:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        if step.trains and len(step.rows) not in self.sizes:
            self.sizes.append(len(step.rows))
        return self._original(step, *args, **kwargs)


def test_a_cohort_that_does_not_fit_into_memory_becomes_two_and_that_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory(room=4)
    monkeypatch.setattr(Step, "__call__", lambda step, *a, **k: memory(step, *a, **k))
    given = nets()
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", "auto")
    ours = together(given, training=training)
    assert_in_one_cohort(ours, 4)
    assert memory.sizes == [4]
    assert training.size == 4
    assert_same(ours, alone(given))
    together(given, training=training)
    assert memory.sizes == [4], "it is not tried again"


def test_trials_that_have_reported_go_back_to_the_queue_when_memory_runs_out_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory(room=4, spared=2 * 5 + 3)
    monkeypatch.setattr(Step, "__call__", lambda step, *a, **k: memory(step, *a, **k))
    given = nets()
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", "auto")
    assert together(given, training=training).results == {}
    assert training.size == 4
    ours = together(given, training=training)
    assert_in_one_cohort(ours, 4)


def test_there_may_be_no_room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(room=1)
    monkeypatch.setattr(Step, "__call__", lambda step, *a, **k: memory(step, *a, **k))
    given = nets()
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", "auto")
    ours = together(given, training=training)
    assert [str(told).startswith("lean") for told in ours.trained()] == [True] * K
    assert training.size == 1


def measured(**seconds: float) -> Sizes:
    sizes = Sizes()
    for size, one in seconds.items():
        sizes.measured(int(size[1:]), one)
    return sizes


@pytest.mark.parametrize(
    ("sizes", "best"),
    [
        (measured(), FIRST),
        (measured(_8=1.0), 16),
        (measured(_8=1.0, _16=1.1), 32),
        (measured(_8=1.0, _16=1.9), 8),
        (measured(_8=1.0, _16=1.1, _32=1.2), MOST),
        (measured(_8=1.0, _16=1.1, _32=2.1), 16),
        (measured(_4=1.0), FIRST),
    ],
)
def test_cohorts_grow_as_long_as_that_makes_every_trial_cheaper(sizes: Sizes, best: int) -> None:
    assert sizes.best == best


def test_the_fastest_of_several_measurements_counts() -> None:
    sizes = measured(_8=1.0, _16=1.9)
    sizes.measured(16, 1.1)
    sizes.measured(16, None)
    sizes.measured(16, 5.0)
    assert sizes.best == 32


def test_a_size_that_did_not_fit_is_halved_and_never_exceeded() -> None:
    sizes = measured(_8=1.0, _16=1.1)
    sizes.too_many(32)
    assert (sizes.limit, sizes.best) == (16, 16)
    sizes.too_many(5)
    assert (sizes.limit, sizes.best) == (2, 2)
    sizes.too_many(16)
    assert sizes.limit == 2
    sizes.too_many(1)
    assert sizes.limit == 1


@pytest.mark.parametrize(
    ("mode", "size", "trials", "expected"),
    [
        ("auto", "auto", None, FIRST),
        ("cohort", "auto", None, FIRST),
        ("auto", "auto", 12, 3),
        ("auto", "auto", 3, 1),
        ("cohort", 5, 12, 5),
        ("auto", 1, None, 1),
        ("lean", "auto", None, 1),
        ("lightning", "auto", None, 1),
        ("lean", 8, None, 1),
        ("lightning", 8, None, 1),
    ],
)
def test_how_many_trials_are_asked_for_at_once(mode: Any, size: Any, trials: int | None, expected: int) -> None:
    assert CohortTraining(single(nets()[0]), SEARCHED, mode, size, trials).size == expected


@pytest.mark.parametrize("mode", ["lean", "lightning"])
def test_whoever_asks_for_one_by_one_gets_no_cohort(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cohort, "__init__", lambda *_: pytest.fail("a cohort was made"))
    given = nets(count=2)
    how = SingleTraining(given[0].config, LOSS, mode="lightning" if mode == "lightning" else "auto")
    ours = together(given, training=CohortTraining(how, SEARCHED, mode))
    assert ours.trained() == [mode] * 2
    assert_same(ours, alone(given))


class Clock:
    """Every step takes so long together, and so long alone."""

    def __init__(self, together: float, alone: float) -> None:
        self.together, self.alone, self.now, self._looked = together, alone, 0.0, False

    def of_cohort(self) -> float:
        self._looked = not self._looked
        self.now += 0.0 if self._looked else self.together
        return self.now

    def of_check(self) -> float:
        self._looked = not self._looked
        self.now += 0.0 if self._looked else self.alone
        return self.now


def timed(monkeypatch: pytest.MonkeyPatch, together: float, alone: float) -> None:
    clock = Clock(together, alone)
    monkeypatch.setattr("tuner.cohort.cohort.clock", clock.of_cohort)
    monkeypatch.setattr("tuner.cohort.check.clock", clock.of_check)


MANY = {"batch_size": 3}
"""Ten steps an epoch, so that the decision falls in the first."""


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("together_", "alone_", "trained"),
    [
        (0.008, 0.002, "cohort of 4"),
        (0.008, 0.0021, "lean; not in a cohort: a step takes 2.00 ms a trial in a cohort of 4 and 2.10 ms alone"),
        (0.008, 0.0023, "cohort of 4"),
        (0.001, 0.5, "lean; not in a cohort: a step takes 500.0 ms alone, which is arithmetic, not overhead"),
    ],
)
def test_by_itself_it_trains_together_only_what_is_faster_so(
    together_: float, alone_: float, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trained == "cohort of 4" and alone_ == 0.002:
        together_ = 0.004
    given = nets(count=4, data=MANY)
    expected = alone(given)
    timed(monkeypatch, together_, alone_)
    training = CohortTraining(single(given[0]), SEARCHED, "auto", 4)
    ours = together(given, training=training)
    assert ours.trained() == [trained] * 4
    assert_same(ours, expected)
    assert ours.asked == ([4] * EPOCHS if trained == "cohort of 4" else [1] * 4 * EPOCHS)


@pytest.mark.usefixtures("recorded")
def test_who_asks_for_cohorts_gets_them_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 0.5, 0.001)
    assert_in_one_cohort(together(nets(data=MANY)))


# Going on


class Kept(Bookmark):
    """A bookmark in memory: what was written after each epoch."""

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {}

    def write(self, snapshot: Mapping[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(snapshot, file)
        self.written[snapshot["epoch"]] = file.getvalue()

    def discard(self) -> None:
        self.written.clear()

    def after(self, epoch: int) -> Any:
        return torch.load(io.BytesIO(self.written[epoch]), weights_only=True)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is written down."""
    monkeypatch.setattr("tuner.training.pace.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("tuner.training.pace.SHARE", 1e9)


def bookmarked(given: Sequence[Job]) -> list[Job]:
    return [replace(job, bookmark=Kept()) for job in given]


def going_on(given: Sequence[Job], epoch: int) -> list[Job]:
    """The jobs of a worker that takes them up after an epoch."""
    return [replace(job, snapshot=job.bookmark.after(epoch)) for job in given if isinstance(job.bookmark, Kept)]


def of_later(told: Told, epoch: int) -> Told:
    """What was said after an epoch."""
    later = {number: [r for r in reports if r.epoch > epoch] for number, reports in told.reports.items()}
    return replace(told, reports=later)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["SGD", "torch's momentum", "Adam", "AdamW", "RMSprop", "Adagrad", "groups", "own"])
def test_a_trial_of_a_cohort_goes_on_in_another_cohort_or_alone(name: str) -> None:
    given = bookmarked(nets("fusable.Optimised", count=4, word=name))
    whole = together(given)
    assert all(sorted(job.bookmark.written) == [1, 2, 3] for job in given if isinstance(job.bookmark, Kept))
    again = together(going_on(given, 2))
    assert again.trained() == ["cohort of 4"] * 4
    assert_same(again, of_later(whole, 2))
    one_by_one = together(going_on(given, 3), training=CohortTraining(single(given[0]), SEARCHED, "lean"))
    assert one_by_one.trained() == ["lean; up to epoch 3: cohort of 4"] * 4
    assert_same(one_by_one, of_later(whole, 3))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("model", ["fusable.Scheduled", "fusable.Counting"])
def test_a_trial_that_was_trained_alone_goes_on_beside_others_that_begin(model: str) -> None:
    first, *others = bookmarked(nets(model, count=4))
    whole = alone([first, *others])
    together([first], training=CohortTraining(single(first), SEARCHED, "lean"))
    ours = together([*going_on([first], 2), *others])
    assert ours.trained() == ["cohort of 4; up to epoch 2: lean", *["cohort of 4"] * 3]
    assert_same(ours, replace(whole, reports={**whole.reports, 0: whole.reports[0][2:]}))


@pytest.mark.usefixtures("eager")
def test_what_is_written_of_a_slice_is_its_own_and_not_its_cohort() -> None:
    [first, *_] = given = bookmarked(nets("fusable.Optimised", word="Adam"))
    together(given)
    assert isinstance(first.bookmark, Kept)
    written = first.bookmark.after(1)
    tensors = [t for t in pytree.tree_leaves(written) if isinstance(t, Tensor)]
    tensors += [*written["checkpoint"]["state_dict"].values(), *written["observer"]["weights"].values()]
    assert {tensor.untyped_storage().nbytes() - tensor.nbytes for tensor in tensors} == {0}
    assert written["optimizer"]["state"][0]["step"] > 0


@pytest.mark.usefixtures("eager")
def test_a_slice_that_goes_on_keeps_its_patience_and_its_seconds() -> None:
    given = bookmarked(turning(1, 1, 1, 1))
    whole = together(given, patience=2)
    ours = together(going_on(given, 2), patience=2)
    assert_same(ours, of_later(whole, 2))
    for job in given:
        assert isinstance(job.bookmark, Kept)
        before = job.bookmark.after(2)["observer"]["seconds"]
        assert ours.results[job.number].seconds["train"] > before > 0


def test_a_stop_writes_down_every_slice_after_its_epoch_and_ends_those_that_are_over() -> None:
    given = bookmarked(nets(count=4))
    given[1] = replace(given[1], config={**given[1].config, "trainer": {"accelerator": "cpu", "max_epochs": 2}})
    answers = {(number, 2): Verdict.STOP for number in range(4)}
    told = Told(answers)
    training = CohortTraining(single(given[0]), SEARCHED, "cohort", K)
    others = [job for job in given if job.number != 1]
    with pytest.raises(TrialInterrupted, match="being stopped"):
        list(training.train(others, told.judge, lambda *_: pytest.fail("no new trials any more")))
    assert all(sorted(job.bookmark.written) == [2] for job in others if isinstance(job.bookmark, Kept))
    last = Told({(1, 2): Verdict.STOP})
    for job, result in training.train([given[1]], last.judge):
        last.hear(job, result)
    assert last.results[1].state is TrialState.COMPLETE, "it was its last epoch"


@pytest.mark.parametrize("size", [1, 4])
def test_a_trial_whose_snapshot_does_not_fit_is_not_trained_and_what_was_written_is_deleted(size: int) -> None:
    given = bookmarked(nets(count=size))
    spoilt = {"format": 0, "trained": "lean", "epoch": 1, "observer": {"last": None, "seconds": 0.0}}
    kept = given[0].bookmark
    assert isinstance(kept, Kept)
    kept.written[1] = b""
    told = together([replace(given[0], snapshot=spoilt), *given[1:]])
    assert sorted(told.results) == [1, 2, 3][: size - 1]
    assert kept.written == {}


# Whole studies


@pytest.fixture
def study() -> dict[str, Any]:
    """A study of seconds, in cohorts of four."""
    return {
        "study": "small",
        "model": {"class_path": "fusable.Net", "init_args": {"dropout": 0.2}},
        "data": {"class_path": "fusable.Data"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "seed_everything": 7,
        "space": {
            "model.lr": {"float": {"low": 1e-3, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1},
            "model.momentum": {"float": {"low": 0.0, "high": 0.9, "default": 0.5}, "priority": 2},
        },
        "search": {"trials": 12, "confirm": 0, "training": "cohort", "cohort": 4, "pruner": "none", "patience": None},
    }


class Studied:
    """A study in a storage of its own, and a worker on it."""

    def __init__(self, home: Home, study: dict[str, Any]) -> None:
        self.home, self.stop = home, threading.Event()
        with open_storage(home, create=True) as store:
            enter(store, read_study(study))

    def work(self) -> list[Trial]:
        work_on("small", self.home, self.stop)
        return self.trials()

    def trials(self) -> list[Trial]:
        with open_storage(self.home) as store:
            return store.trials(store.study("small").id)

    def write(self, statement: str) -> None:
        """Change the storage behind everybody's back."""
        with sqlite3.connect(self.home.folder / "tuner.db") as connection:
            connection.execute(statement)
        connection.close()


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of trials whose end was written, each time that it was."""
    numbers: list[int] = []
    original = Store.finish

    def finish(self: Store, lease: Any, result: TrialResult) -> None:
        original(self, lease, result)
        numbers.append(lease.trial.number)

    monkeypatch.setattr(Store, "finish", finish)
    return numbers


def on_report(monkeypatch: pytest.MonkeyPatch, count: int, act: Callable[[], None]) -> None:
    """Do something before the reports are written for the n-th time."""
    original, calls = Store.report_together, iter(range(1, 10**6))

    def report(self: Store, said: Any, again: bool = False) -> Any:
        if next(calls) == count:
            act()
        return original(self, said, again)

    monkeypatch.setattr(Store, "report_together", report)


def test_a_study_trains_in_cohorts_and_every_trial_ends_once(
    home: Home, study: dict[str, Any], finished: list[int]
) -> None:
    import time

    started = time.perf_counter()
    trials = Studied(home, study).work()
    passed = time.perf_counter() - started
    assert sorted(finished) == list(range(12))
    assert [t.number for t in trials] == list(range(12))
    for trial in trials:
        assert trial.state is TrialState.COMPLETE
        assert sorted(trial.values) == [1, 2, 3]
        assert trial.outcome.trained == "cohort of 4"
        assert trial.value == min(trial.values.values())
        assert set(trial.outcome.seconds) == {"ask", "build", "train", "report"}
    assert sum(t.train_seconds for t in trials) < passed
    assert len({repr(t.params) for t in trials}) == 12
    assert len(list(home.checkpoints("small").glob("*.ckpt"))) == 3


def test_two_runs_of_a_study_give_the_same_trials_and_values(
    home: Home, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def tried(home: Home) -> list[Any]:
        return [(t.number, t.seed, t.params, t.state, dict(t.values)) for t in Studied(home, study).work()]

    study["search"] |= {"pruner": "median", "patience": 2, "trials": 14}
    study["trainer"]["max_epochs"] = 6
    first = tried(home)
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "again"))
    monkeypatch.setattr("tuner.study.LOOK_SECONDS", 0.0)  # whenever it looks around
    assert tried(Home.from_environment()) == first
    assert {state for _, _, _, state, _ in first} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_budget_of_epochs_is_not_exceeded(home: Home, study: dict[str, Any]) -> None:
    study["search"] |= {"trials": None, "epochs": 26}
    trials = Studied(home, study).work()
    assert 22 < sum(t.outcome.epochs for t in trials) <= 26
    assert all(t.state is TrialState.COMPLETE for t in trials)


def test_a_trial_s_own_time_ends_it_at_an_epoch(home: Home, study: dict[str, Any]) -> None:
    study["search"] |= {"trials": 4, "trial_time": 0.001}
    assert [t.outcome.epochs for t in Studied(home, study).work()] == [1] * 4


def test_free_places_are_taken_by_new_proposals_of_the_study(home: Home, study: dict[str, Any]) -> None:
    study["model"]["class_path"] = "fusable.Single"
    study["model"]["init_args"] = {}
    study["search"] |= {"patience": 1, "trials": 11}
    study["trainer"]["max_epochs"] = 12
    study["space"]["model.lr"]["float"]["high"] = 50.0
    trials = Studied(home, study).work()
    assert {t.outcome.trained for t in trials} == {"cohort of 4"}, "never fewer, since places do not stay empty"
    assert len({t.outcome.epochs for t in trials}) > 2


def test_confirming_runs_are_trained_in_cohorts_too(home: Home, study: dict[str, Any]) -> None:
    study["search"] |= {"confirm": 3, "trials": 4}
    trials = Studied(home, study).work()
    confirming = [t for t in trials if t.confirms is not None]
    assert len(confirming) >= 3
    assert any("cohort of" in str(t.outcome.trained) for t in confirming)
    assert len({t.seed for t in confirming if t.confirms == confirming[0].confirms}) >= 3


def test_a_trial_that_another_worker_has_taken_is_dropped_and_no_other(
    home: Home, study: dict[str, Any], finished: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one finishes it at once."""
    studied = Studied(home, study)
    taken = "update tuner_trial set token = token + 1, revision = revision + 1, state = 'complete', value = 0.5, "
    on_report(monkeypatch, 2, lambda: studied.write(taken + "best_epoch = 1, epochs = 1 where number = 2"))
    trials = studied.work()
    assert sorted(finished) == [n for n in range(12) if n != 2]
    assert trials[2].value == 0.5
    assert all(sorted(t.values) == [1, 2, 3] for t in trials if t.number != 2)
    assert {t.outcome.trained for t in trials if t.number != 2} == {"cohort of 4"}, "its place is taken"


@pytest.mark.parametrize("by_state", [False, True])
def test_a_stop_gives_all_back_and_nothing_is_lost_or_done_twice(
    by_state: bool,
    home: Home,
    study: dict[str, Any],
    finished: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    study["model"]["init_args"]["dropout"] = 0.0  # a cohort that goes on draws others
    studied = Studied(home, study)
    stopped = "update tuner_study set state = 'stopped'"
    on_report(monkeypatch, 5, (lambda: studied.write(stopped)) if by_state else studied.stop.set)
    trials = studied.work()
    assert finished == [0, 1, 2, 3]
    assert [t.state for t in trials] == [*[TrialState.COMPLETE] * 4, *[TrialState.WAITING] * 4]
    assert all(sorted(t.values) == [1, 2] for t in trials[4:])
    assert len(list(home.checkpoints("small").glob("*.resume.pt"))) == 4
    studied.stop.clear()
    with open_storage(home) as store:
        enter(store, read_study(study))
    trials = studied.work()
    assert sorted(finished) == list(range(12))
    assert [t.began_after for t in trials] == [*[0] * 4, *[2] * 4, *[0] * 4]
    assert not list(home.checkpoints("small").glob("*.resume.*"))
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "undisturbed"))
    undisturbed = Studied(Home.from_environment(), study).work()
    assert [t.params for t in trials[:8]] == [t.params for t in undisturbed[:8]]
    for trial, other in zip(trials[:8], undisturbed, strict=False):
        assert trial.values == pytest.approx(other.values, rel=1e-9)


@pytest.mark.parametrize(
    ("model", "arguments"),
    [("AsksLate", {"at": 2}), ("Hooked", {"word": "a number in which all agree"})],
)
def test_trials_that_leave_their_cohort_late_report_every_epoch_once(
    model: str, arguments: dict[str, Any], home: Home, study: dict[str, Any], finished: list[int]
) -> None:
    study["model"] = {"class_path": f"fusable.{model}", "init_args": arguments}
    del study["space"]["model.momentum"]
    study["search"]["trials"] = 6
    trials = Studied(home, study).work()
    assert sorted(finished) == list(range(6))
    assert [sorted(t.values) for t in trials] == [[1, 2, 3]] * 6
    assert not any("cohort of" in str(t.outcome.trained) for t in trials)


def test_trials_that_memory_has_sent_back_to_the_queue_are_trained_in_smaller_cohorts(
    home: Home, study: dict[str, Any], finished: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(room=2, spared=12)
    monkeypatch.setattr(Step, "__call__", lambda step, *a, **k: memory(step, *a, **k))
    trials = Studied(home, study).work()
    assert sorted(finished) == list(range(12))
    assert [sorted(t.values) for t in trials] == [[1, 2, 3]] * 12
    assert {t.outcome.trained for t in trials} == {"cohort of 2"}


def test_a_stop_is_a_stop_for_trials_that_wait_to_be_trained_alone(
    home: Home, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study["model"]["class_path"] = "fusable.ReadsEpoch"
    studied = Studied(home, study)
    on_report(monkeypatch, 2, lambda: studied.write("update tuner_study set state = 'stopped'"))
    on_report(monkeypatch, 3, lambda: pytest.fail("a trial has trained on"))
    trials = studied.work()
    assert [t.state for t in trials] == [TrialState.WAITING] * 4
    assert [sorted(t.values) for t in trials] == [[1, 2], [], [], []]


def test_trials_of_other_shapes_and_modules_that_do_not_fuse_are_still_a_study(
    home: Home, study: dict[str, Any]
) -> None:
    study["space"]["model.width"] = {"choice": [3, 4, 5], "priority": 3}
    study["search"]["trials"] = 9
    trials = Studied(home, study).work()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 9
    assert [sorted(t.values) for t in trials] == [[1, 2, 3]] * 9
    assert any("cohort of" in str(t.outcome.trained) for t in trials)


def test_a_module_that_does_not_fuse_is_proposed_one_by_one_after_the_first_cohort(
    home: Home, study: dict[str, Any]
) -> None:
    study["model"]["class_path"] = "fusable.ReadsEpoch"
    study["search"]["trials"] = 6
    trials = Studied(home, study).work()
    assert [str(t.outcome.trained).partition(":")[0] for t in trials] == ["lean; not in a cohort"] * 6


class Uncopied:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotLean("it copies or pickles itself")


def test_a_module_that_holds_what_is_not_copied_is_trained_alone() -> None:
    module = MLP(input_shape=[4], num_classes=2)
    module.held = Uncopied()  # type: ignore[assignment]
    with pytest.raises(NotFusable, match="it cannot be copied: it copies or pickles itself"):
        copied(module)
