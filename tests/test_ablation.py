"""With and without: the comparison on made-up runs, what is refused, and one small ablation from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import scipy.stats
from typer.testing import CliRunner

import tuner
from tuner.cli import app as cli
from tuner.engine import ablate
from tuner.engine.local import inspect_here
from tuner.errors import NoBest, SpecError, StudyChanged
from tuner.home import Home
from tuner.insight import Ablation, Advice, compare, draw, page
from tuner.insight.ablation import curves_of
from tuner.service.ablating import plan_ablation, read_over
from tuner.service.diagnosing import diagnosis_of, next_study
from tuner.service.entry import open_storage
from tuner.space.yaml import read_yaml
from tuner.trial import Objective, Report, Trial, TrialResult, TrialState

LOSS = Objective("val_loss")
Study = dict[str, Any]


def runs(values: dict[Any, list[float | None]], over: str = "model.norm") -> list[Trial]:
    """Runs of each value, one a seed; None diverged."""
    trials = []
    for value, scores in values.items():
        for seed, score in enumerate(scores):
            state = TrialState.PRUNED if score is None else TrialState.COMPLETE
            result = TrialResult(state, value=score, infeasible=score is None)
            trials.append(Trial(len(trials), {over: value}, seed=seed, state=state, result=result))
    return trials


def compared(values: dict[Any, list[float | None]], objective: Objective = LOSS) -> Ablation:
    return compare("made", "model.norm", list(values), objective, runs(values))


def test_p_is_that_of_scipys_paired_t_test() -> None:
    one, other = [0.10, 0.12, 0.09, 0.11, 0.13], [0.12, 0.15, 0.10, 0.12, 0.17]
    pair = compared({"batch": one, "none": other}).pairs[0]
    theirs = scipy.stats.ttest_rel(other, one)
    interval = theirs.confidence_interval(0.95)
    assert pair.p == pytest.approx(theirs.pvalue)
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high))
    assert pair.corrected == pair.p, "a single pair needs no correction"
    assert (pair.better, pair.worse, pair.apart) == ("batch", "none", theirs.pvalue < 0.05)


def test_pairs_share_their_seeds_so_a_small_steady_difference_is_told() -> None:
    seeds = [0.1, 0.5, 0.3, 0.9, 0.7]
    found = compared({"a": seeds, "b": [s + 0.01 + 0.001 * i for i, s in enumerate(seeds)]})
    assert found.pairs[0].apart
    assert scipy.stats.ttest_ind(seeds, [s + 0.012 for s in seeds]).pvalue > 0.9


def test_several_values_are_corrected_by_holm() -> None:
    found = compared({"a": [1.0, 1.1, 1.2, 1.05], "b": [1.1, 1.3, 1.25, 1.2], "c": [1.5, 1.45, 1.8, 1.6]})
    plain = sorted(p.p or 0.0 for p in found.pairs)
    expected = [3 * plain[0], max(3 * plain[0], 2 * plain[1]), max(3 * plain[0], 2 * plain[1], plain[2])]
    assert sorted(p.corrected or 0.0 for p in found.pairs) == pytest.approx([min(1.0, p) for p in expected])


def test_the_best_comes_first_also_where_more_is_better() -> None:
    found = compared({"a": [0.7, 0.8], "b": [0.9, 0.95], "c": [None, None]}, Objective("val_acc", "maximize"))
    assert [level.value for level in found.levels] == ["b", "a", "c"]
    assert found.pairs[0].difference == pytest.approx(0.175)
    assert found.lines[0].startswith("norm = b has the best mean")
    assert any(line.startswith("c: 2 of 2 runs diverged or failed") for line in found.lines)


def test_what_cannot_be_told_apart_is_not_called_the_best() -> None:
    found = compared({"a": [0.1, 0.2, 0.15], "b": [0.12, 0.17, 0.17]})
    assert "is not told apart from every other" in found.lines[0]
    assert "not told apart by 3 seeds" in found.lines[1]
    clear = compared({"a": [0.1, 0.2, 0.15], "b": [1.12, 1.21, 1.16]})
    assert clear.lines[0].startswith("norm = a is the best: val_loss 0.15 ± 0.05 over 3 seeds.")


def test_one_seed_says_nothing_about_chance_and_equal_runs_are_not_apart() -> None:
    assert "one seed says nothing about chance" in compared({"a": [0.1], "b": [0.2]}).lines[1]
    assert compared({"a": [0.1, 0.2], "b": [0.1, 0.2]}).pairs[0].corrected == 1.0


def test_true_and_one_are_different_values() -> None:
    one, other = runs({True: [0.1, 0.1]}, "model.x"), runs({1: [0.5, 0.5]}, "model.x")
    trials = [*one, *(replace(t, number=t.number + 2) for t in other)]
    found = compare("made", "model.x", [True, 1], LOSS, trials)
    assert [level.mean for level in found.levels] == [0.1, 0.5]


def test_the_picture_has_a_curve_and_a_band_for_each_value() -> None:
    found = compared({"batch": [0.1, 0.2], "<none>": [0.3, 0.5]})
    curves = {
        n: [Report(e, {"val_loss": v / e, "train_loss": v / 2}, v / e) for e in (1, 2)]
        for n, v in enumerate((0.1, 0.2, 0.3, 0.5))
    }
    assert curves_of(found, curves, "val_loss")["batch"][1] == pytest.approx((2, 0.075, 0.05 / 2**0.5))
    svg = draw(found, curves)
    assert svg.count("FillBetweenPolyCollection") >= 2
    html = page(found, svg)
    assert "<svg" in html
    assert "&lt;none&gt;" in html
    assert "src=" not in html, "it needs nothing else"


# What is asked for.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("model.norm=none,batch", ["none", "batch"]),
        ("model.init_args.dropout=0, 0.5", [0, 0.5]),
        ("trainer.gradient_clip_val=null,1e-1", [None, 0.1]),
    ],
)
def test_a_choice_is_a_path_and_yaml_values(text: str, values: list[Any]) -> None:
    path, found = read_over(text)
    assert found == values
    assert "init_args" not in path


@pytest.mark.parametrize(
    "text", ["model.norm", "norm=a,b", "model.norm=a", "model.norm=a,a", "model.norm=[a],[b]", "=a,b"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_over(text)


def test_everything_else_is_fixed_at_the_defaults_that_go_with_each_value(home: Home) -> None:
    plan = plan_ablation("digits-mlp", "model.optimizer=sgd,adam", 2, home)
    assert plan.base == "the defaults of digits-mlp"
    assert plan.document["model"]["init_args"]["hidden_units"] == 256
    assert [p["model.learning_rate"] for p, _ in plan.runs] == [0.3, 0.005, 0.3, 0.005]
    assert [seed for _, seed in plan.runs][0::2] == [seed for _, seed in plan.runs][1::2], "the same seeds for both"
    assert "model.momentum" in plan.runs[0][0]
    assert "model.momentum" not in plan.runs[1][0]
    assert plan.document["search"]["trials"] == 4


def test_what_the_space_does_not_have_can_be_varied_too(home: Home) -> None:
    plan = plan_ablation("digits-mlp", "trainer.gradient_clip_val=null,1.0", 3, home, [("trainer.max_epochs", 2)])
    assert set(plan.document["space"]) == {"trainer.gradient_clip_val"}
    assert plan.document["trainer"]["max_epochs"] == 2
    assert plan.document["study"] == "digits-mlp-gradient_clip_val"


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ("model.nrom=none,batch", "Did you mean 'norm'"),
        ("model.norm=none,bach", "bach"),
        ("model.dropout=0.1,2.0", "dropout"),
    ],
)
def test_bad_paths_and_values_are_refused_before_anything_runs(home: Home, study: Study, over: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        ablate(study, over, 2, workers=0, home=home)
    assert not (home.folder / "tuner.db").exists()


# From end to end.


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Ablation, str]:
    """A small ablation of a stored study, run in this process."""
    folder = tmp_path_factory.mktemp("ablation")
    patch = pytest.MonkeyPatch()
    patch.setenv("TUNER_HOME", str(folder))
    patch.delenv("TUNER_STORAGE", raising=False)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    document = {
        "study": "small",
        "model": {"class_path": "tuner.models.MLP", "init_args": {"hidden_units": 16, "depth": 1}},
        "data": {"class_path": "tuner.data.SklearnTable", "init_args": {"name": "wine"}},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "space": {"model.learning_rate": {"float": {"low": 0.1, "high": 0.5, "scale": "log"}}},
        "search": {"trials": 2, "confirm": 0},
    }
    tuner.run(document)
    found = ablate("small", "model.norm=none,batch", 2, workers=0)
    home = Home.from_environment()
    yield home, found.ablation, found.base
    patch.undo()


def test_an_ablation_is_a_study_of_its_own_at_the_best_of_the_other(done: tuple[Home, Ablation, str]) -> None:
    home, found, base = done
    assert base.startswith("the best of small (trial ")
    with open_storage(home) as store:
        row = store.study("small-norm")
        trials = store.trials(row.id)
        best = min(store.trials(store.study("small").id), key=lambda t: t.value or 9.0)
    assert row.state == "complete"
    assert row.document["model"]["init_args"]["learning_rate"] == (best.params or {})["model.learning_rate"]
    assert [(t.params, t.outcome.epochs) for t in trials] == [
        ({"model.norm": "none"}, 3),
        ({"model.norm": "batch"}, 3),
    ] * 2
    assert len({t.seed for t in trials}) == 2
    assert {level.value: len(level.seeds) for level in found.levels} == {"none": 2, "batch": 2}


def test_its_picture_is_an_artifact_of_its_run_in_mlflow(done: tuple[Home, Ablation, str], tmp_path: Path) -> None:
    home, _, _ = done
    with open_storage(home) as store:
        run = store.study("small-norm").tracked["run_id"]
    client = mlflow.MlflowClient(tracking_uri=home.tracking)
    assert "ablation.svg" in [file.path for file in client.list_artifacts(run)]


def test_asked_again_with_more_seeds_only_the_new_ones_are_trained(done: tuple[Home, Ablation, str]) -> None:
    home, before, _ = done
    again = ablate("small", "model.norm=none,batch", 3, workers=0, home=home).ablation
    with open_storage(home) as store:
        assert len(store.trials(store.study("small-norm").id)) == 6
    for level in before.levels:
        other = next(one for one in again.levels if one.value == level.value)
        assert set(level.seeds) < set(other.seeds)


def test_other_values_under_the_same_name_are_refused(done: tuple[Home, Ablation, str]) -> None:
    home, _, _ = done
    with pytest.raises(StudyChanged, match="study=small-norm-2"):
        ablate("small", "model.norm=none,layer", 2, workers=0, home=home)


def test_a_stored_study_without_a_best_cannot_be_ablated(done: tuple[Home, Ablation, str]) -> None:
    home, _, _ = done
    with open_storage(home) as store:
        store.create("empty", store.study("small").document | {"study": "empty"}, 0)
    with pytest.raises(NoBest):
        plan_ablation("empty", "model.norm=none,batch", 2, home)


def test_a_stored_study_is_diagnosed_and_followed_by_one_that_is_sound(done: tuple[Home, Ablation, str]) -> None:
    home, _, _ = done
    with open_storage(home) as store:
        row = store.study("small")
        found = diagnosis_of(store, row)
        text = next_study(store, row, found, inspect_here)
        assert diagnosis_of(store, row, trial=1).headline.startswith("Trial 1 of small")
    document, problems = read_yaml(text)
    assert problems == []
    began = tuner.run(document, trials=0)
    assert (began.study, began.state) == ("small-2", "complete")
    with open_storage(home) as store:
        assert store.study("small-2").facts["start"], "it begins with this best"


def test_a_range_widened_into_what_the_model_refuses_is_left_as_it_was(done: tuple[Home, Ablation, str]) -> None:
    home, _, _ = done
    advice = Advice("model.learning_rate", "no", "none", {"float": {"low": -1.0, "high": 0.5, "default": 0.2}})
    with open_storage(home) as store:
        row = store.study("small")
        found = replace(diagnosis_of(store, row), advice=(advice,))
        document, _ = read_yaml(next_study(store, row, found, inspect_here))
    assert document["space"]["model.learning_rate"]["float"]["low"] == 0.1


def test_the_commands_refuse_what_does_not_go_together(done: tuple[Home, Ablation, str], tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.touch()
    for arguments in (
        ["diagnose", "small", "--next", str(there)],
        ["diagnose", "small", "--next", str(tmp_path / "nowhere" / "new.yaml")],
        ["diagnose", "small", "--trial", "1", "--next", str(tmp_path / "new.yaml")],
        ["ablate", "small", "--over", "model.norm=none,batch", "--to", "picture.png"],
        ["ablate", "small", "--over", "model.norm=none,batch", "--seeds", "0"],
        ["ablate", "small"],
    ):
        assert CliRunner().invoke(cli.app, arguments).exit_code == 2, arguments


def test_diagnose_says_how_to_run_the_next_study_and_how_to_see_what_it_brought(
    done: tuple[Home, Ablation, str], tmp_path: Path
) -> None:
    file = tmp_path / "next.yaml"
    said = CliRunner().invoke(cli.app, ["diagnose", "small", "--next", str(file)])
    assert said.exit_code == 0, said.output
    document, _ = read_yaml(file.read_text("utf-8"))
    assert said.stdout.splitlines()[-2].endswith(f"Run it: tuner run {file}")
    assert said.stdout.splitlines()[-1].endswith(f"tuner compare small {document['study']}")


def test_diagnose_prints_one_json_object(done: tuple[Home, Ablation, str]) -> None:
    said = CliRunner().invoke(cli.app, ["diagnose", "small", "--json"])
    told = json.loads(said.stdout)
    assert told["study"] == "small"
    assert told["verdict"] in ("underfitting", "overfitting", "diverging", "vanishing", "learned_nothing", "fine")
