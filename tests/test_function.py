"""`tuner.run(objective, …)`: a plain function of somebody's own, tuned by the same machinery."""

from __future__ import annotations

import functools
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

import tuner
from tuner.api import run
from tuner.errors import BestUnusable, SpecError, StudyStopped, TrialInterrupted
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.spec import read_study
from tuner.spec.function import function_study
from tuner.training import inspect
from tuner.training.function import Reporter, call, find, remember
from tuner.trial import Report, TrialResult, TrialState, Verdict

Rule = Callable[[Report], Verdict]


def never(_: Report) -> Verdict:
    return Verdict.GO_ON


def called(
    function: Callable[..., Any],
    params: dict[str, Any] | None = None,
    on_report: Rule = never,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """The result of one call, smaller being better."""
    described = {"class_path": remember(function), "init_args": params or {}}
    config = {"seed_everything": 3, "model": described, "trainer": {"max_epochs": 10}}
    return call(config, 7, lambda value, than: value < than, on_report, interrupted)


def at(epoch: int, verdict: Verdict) -> Rule:
    return lambda report: verdict if report.epoch == epoch else Verdict.GO_ON


# one call


def test_what_it_returns_is_the_value_and_the_last_report() -> None:
    said: list[Report] = []

    def objective(params: dict[str, Any], report: Reporter) -> float:
        report(3.0, accuracy=0.5)
        report(2.0, epoch=4)
        return float(params["x"])

    result = called(objective, {"x": 1}, lambda report: said.append(report) or Verdict.GO_ON)
    assert (result.state, result.value, result.epochs, result.trained) == (TrialState.COMPLETE, 1.0, 5, "function")
    assert [(report.epoch, dict(report.metrics)) for report in said] == [
        (1, {"value": 3.0, "accuracy": 0.5}),
        (4, {"value": 2.0}),
        (5, {"value": 1.0}),
    ]
    assert result.config == {"seed_everything": 3, "model": {"class_path": find_path(objective), "init_args": {"x": 1}}}


def find_path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def test_it_may_take_the_values_alone_and_need_not_report() -> None:
    said: list[Report] = []
    result = called(lambda params: params["x"], {"x": 0.5}, lambda report: said.append(report) or Verdict.GO_ON)
    assert result.value == 0.5
    assert [report.epoch for report in said] == [1], "so that MLflow has it"
    again = called(lambda params, report: report(2.0) or 2.0, on_report=lambda r: said.append(r) or Verdict.GO_ON)
    assert (again.value, again.epochs) == (2.0, 1), "what was reported last is not reported again"


def test_it_is_seeded_and_knows_its_trial() -> None:
    def objective(params: dict[str, Any], report: Reporter) -> float:
        assert (report.trial, report.seed) == (7, 3)
        return random.random()  # noqa: S311

    assert called(objective).value == called(objective).value


@pytest.mark.parametrize(("verdict", "state"), [(Verdict.PRUNE, "pruned"), (Verdict.HALT, "complete")])
@pytest.mark.parametrize("catches", [False, True])
def test_a_trial_that_is_told_to_end_ends_with_its_best(verdict: Verdict, state: str, catches: bool) -> None:
    done: list[str] = []

    def objective(params: dict[str, Any], report: Reporter) -> float:
        try:
            for value in (3.0, 1.0, 2.0, 0.0):
                report(value)
        except Exception:
            if not catches:
                raise
        finally:
            done.append("tidied up")
        return -1.0

    result = called(objective, on_report=at(3, verdict))
    assert (result.state.value, result.value, result.best_epoch, result.epochs) == (state, 1.0, 2, 3)
    assert done == ["tidied up"]
    assert result.reason is not None
    assert "epoch 3" in result.reason


@pytest.mark.parametrize(
    ("value", "state", "reason"),
    [
        (float("nan"), TrialState.PRUNED, "diverged: it returned nan"),
        (None, TrialState.FAILED, "must be a number, but got None"),
        ("3", TrialState.FAILED, "must be a number, but got '3'"),
        ({"value": 3}, TrialState.FAILED, "must be a number, but got dict"),
    ],
)
def test_what_is_no_number_is_no_result(value: Any, state: TrialState, reason: str) -> None:
    result = called(lambda params: value)
    assert result.state is state
    assert reason in (result.reason or "")
    assert result.infeasible is (state is TrialState.PRUNED)


def test_a_call_that_raises_is_a_failed_trial_with_its_reason() -> None:
    def objective(params: dict[str, Any]) -> float:
        raise KeyError("rows")

    result = called(objective)
    assert result.state is TrialState.FAILED
    assert "KeyError: 'rows'" in (result.reason or "")
    assert "in objective" in (result.reason or "")
    assert "Traceback" in (result.detail or "")
    exhausted = called(lambda params: (_ for _ in ()).throw(MemoryError()))
    assert (exhausted.state, exhausted.infeasible) == (TrialState.PRUNED, True)


def test_optuna_s_own_way_of_pruning_is_understood() -> None:
    def objective(params: dict[str, Any], report: Reporter) -> float:
        report(2.0)
        raise optuna.TrialPruned("enough")

    result = called(objective)
    assert (result.state, result.value) == (TrialState.PRUNED, 2.0)
    assert result.reason == "the function pruned itself: enough"


def test_epochs_go_up() -> None:
    result = called(lambda params, report: report(1.0, 3) or report(1.0, 3))
    assert "must be a whole number above the last one, 3, but got 3" in (result.reason or "")


def test_a_storage_that_is_away_is_no_fault_of_the_function() -> None:
    def away(report: Report) -> Verdict:
        raise OSError("the storage is away")

    def objective(params: dict[str, Any], report: Reporter) -> float:
        try:
            report(1.0)
        except OSError:
            return 0.0
        return 1.0

    with pytest.raises(OSError, match="the storage is away"):
        called(objective, on_report=away)


@pytest.mark.parametrize("verdict", [Verdict.STOP, Verdict.GIVE_BACK])
def test_a_study_that_is_stopped_drops_the_trial(verdict: Verdict) -> None:
    with pytest.raises(TrialInterrupted):
        called(lambda params, report: report(1.0) or 1.0, on_report=at(1, verdict))
    with pytest.raises(TrialInterrupted):
        called(lambda params, report: report(1.0), interrupted=lambda: True)


def test_ctrl_c_ends_a_function_that_never_reports() -> None:
    stopped: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))

    def objective(params: dict[str, Any]) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    try:
        with pytest.raises(TrialInterrupted):
            called(objective)
        assert stopped == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        assert len(stopped) == 2, "the handler is the caller's again"
    finally:
        signal.signal(signal.SIGINT, before)


# finding functions


def at_the_top(params: dict[str, Any], report: Reporter) -> float:
    return 0.0


def test_functions_are_found_here_and_by_import() -> None:
    partial = functools.partial(at_the_top, report=None)
    assert find(remember(partial), "x")[0] is partial
    found, problems = find("tests_or_not.objective", "model.class_path")
    assert found is None
    assert "no module 'tests_or_not'" in problems[0].message
    found, problems = find("os.path.basenam", "model.class_path")
    assert "Did you mean 'basename'?" in problems[0].message
    for path in ("__main__.nowhere", "module.make.<locals>.objective"):
        assert "Call tuner.run again in the program that has it" in find(path, "x")[1][0].message
    assert "LightningModule wants another training" in find("tuner.models.MLP", "x")[1][0].message
    assert find("shutil.get_terminal_size", "x")[1] == [], "what takes one"


def test_others_are_not() -> None:
    (problem,) = find("os.getpid", "model.class_path")[1]
    assert problem.message == "must take (params, report) or (params), but it is os.getpid()."


def test_all_problems_of_a_function_s_study_come_at_once() -> None:
    problems = inspect(
        {
            "model": {"class_path": "os.getpid"},
            "data": {"class_path": "tuner.data.Digits"},
            "trainer": {"devices": 2, "max_epochs": 3},
            "search": {"training": "function"},
        },
        None,
    )
    assert [problem.path for problem in problems] == ["data", "trainer.devices", "model.class_path"]
    (problem,) = inspect({"model": {"class_path": "os.getpid"}}, None)
    assert "A plain function wants search.training: function." in problem.message


# studies


SPACE: dict[str, Any] = {
    "x": {"float": {"low": -4, "high": 4, "default": 0.0}, "priority": 1},
    "kind": {"choice": ["smooth", "rough"], "priority": 2},
    "noise": {"float": {"low": 0, "high": 1, "default": 0.5}, "when": {"kind": "rough"}},
}


def test_the_space_is_named_as_the_function_sees_it() -> None:
    document = function_study("m.f", "f", SPACE, None, None)
    assert list(document["space"]) == ["model.x", "model.kind", "model.noise"]
    assert document["space"]["model.noise"]["when"] == {"model.kind": "rough"}
    documented = function_study("m.f", "f", {"use": "optimiser", "change": {"model.nesterov": None}}, "maximize", 20)
    assert "model.learning_rate" in documented["space"]
    assert "model.nesterov" not in documented["space"]
    assert documented["space"]["model.learning_rate"]["default_when"].keys() == {"model.optimizer"}
    assert "model.batch_size" in function_study("m.f", "f", "mlp", None, None)["space"], "data.batch_size elsewhere"


def test_mistakes_are_told_by_the_names_that_the_space_has(home: Home) -> None:
    with pytest.raises(SpecError) as caught:
        run(at_the_top, space={"x": {"float": {"low": 2, "high": 1}}}, direction="down", set={"space.y.float.low": 1})
    assert {problem.path for problem in caught.value.problems} == {
        "space.x.float",
        "space.y.float.high",
        "objective.direction",
    }
    with pytest.raises(SpecError, match=r"space +is required: what is to be searched"):
        run(at_the_top)
    with pytest.raises(SpecError, match=r"name +is required: the function has none"):
        run(lambda params: 0.0, space=SPACE)
    with pytest.raises(SpecError, match=r"direction +goes with a function; .*set={'objective.direction': …}"):
        run("digits-mlp", direction="maximize")


Calls = list[tuple[dict[str, Any], int]]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tuner.StudyResult, Calls]]:
    """A study of a function that was made here, as it ended, and the calls."""
    calls: Calls = []

    def objective(params: dict[str, Any], report: Reporter) -> float:
        calls.append((dict(params), report.trial))
        if report.trial == 1:
            raise ValueError("not this one")
        for epoch in range(1, 4):
            report(10.0 + params["x"] ** 2 / epoch, epoch)
        return float(params["x"] ** 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_HOME", str(tmp_path_factory.mktemp("functions")))
        patch.delenv("TUNER_STORAGE", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(objective, space=SPACE, trials=3, name="square", epochs=3)
        yield run(objective, space=SPACE, trials=5, name="square", epochs=3), calls


def test_a_function_is_called_once_for_each_trial_and_goes_on_by_name(
    tuned: tuple[tuner.StudyResult, Calls],
) -> None:
    result, calls = tuned
    assert [trial for _, trial in calls] == list(range(5))
    assert calls[0][0] == {"x": 0.0, "kind": "smooth"}, "the defaults come first, and noise does not apply"
    assert all(("noise" in params) is (params["kind"] == "rough") for params, _ in calls)
    assert result.state == "complete"
    assert result.trials == {"complete": 4, "pruned": 0, "failed": 1, "running": 0}
    assert result.best is not None
    assert result.best.params == {"x": 0.0, "kind": "smooth"}
    assert result.best.value == 0.0
    assert result.best.metrics == {"value": 0.0}


def test_it_stands_in_the_storage_like_any_other(tuned: tuple[tuner.StudyResult, Calls]) -> None:
    best = tuner.load_best("square")
    assert (best.params, best.value) == ({"x": 0.0, "kind": "smooth"}, 0.0)
    with pytest.raises(BestUnusable, match=r"tunes a plain function: take its values from .*\.params"):
        best.trained_module()
    with open_storage(Home.from_environment()) as store:
        row = store.study("square")
        trials = store.trials(row.id)
    assert dict(trials[0].values) == {1: 10.0, 2: 10.0, 3: 10.0, 4: 0.0}
    assert trials[0].outcome.trained == "function"
    assert "ValueError: not this one" in (trials[1].outcome.reason or "")


def test_another_program_is_told_where_the_function_is(tuned: tuple[tuner.StudyResult, Calls]) -> None:
    from tuner.engine import run as run_study
    from tuner.training import function

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, "_HERE", {})
        with pytest.raises(SpecError, match=r"Call tuner\.run again in the program that has it"):
            run_study("square", resume=True, overrides=[("search.trials", 9)])
        with pytest.raises(StudyStopped, match="must be a function at the top of a module"):
            call({"seed_everything": 0, "model": {"class_path": "a.<locals>.b"}}, 0, min, never, bool)  # type: ignore[arg-type]
    assert tuner.load_best("square").value == 0.0


# the documentation


def _examples() -> dict[str, str]:
    """The Python programs of docs/reuse.md that stand under these headings."""
    text = (Path(__file__).parent.parent / "docs" / "reuse.md").read_text()
    sections = {section.split("\n")[0]: section for section in text.split("\n## ")}
    return {
        title: section.split("```python\n")[1].split("```")[0]
        for title, section in sections.items()
        if "```python" in section
    }


def test_the_documented_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(tuner, "run", lambda function, **rest: given.update(rest, function=function) or _Result())
    program: dict[str, Any] = {"__name__": "__main__"}
    exec(_examples()["A plain function"], program)  # noqa: S102 - ours
    document = function_study("m.f", "f", given["space"], given["direction"], given["epochs"])
    read_study({**document, "model": "m.f"})
    result = called(given["function"], {"rate": 0.5, "goal": 3})
    assert result.value == pytest.approx(0, abs=1e-3)
    assert result.epochs == given["epochs"]


class _Result:
    best = tuner.Best("f", 0, 0.0, {}, {}, (), None, {})


def test_the_documented_loop_of_one_s_own_begins_with_the_defaults_and_gets_better() -> None:
    program: dict[str, Any] = {}
    exec(_examples()["A loop of your own"], program)  # noqa: S102 - ours
    trials = program["study"].trials
    assert len(trials) == 20
    defaults = program["space"].defaults
    assert trials[0].params["model.learning_rate"] == pytest.approx(defaults["model.learning_rate"])
    assert trials[0].params["data.batch_size"] == defaults["data.batch_size"]
    assert program["study"].best_value < trials[0].value / 4
