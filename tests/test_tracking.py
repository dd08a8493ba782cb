"""MLflow on an SQLite store: a study is a parent run, its trials are children, and writing twice changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from tuner.errors import TrackingUnavailable
from tuner.tracking import MLflowTracker, TrackedReport
from tuner.tracking.experiments import newest_pages
from tuner.trial import Objective, Trial, TrialResult, TrialState

LOSS = Objective("val_loss")
START = 1_700_000_000.0


class Server:
    """An MLflow store and a place for artifacts."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.artifacts = folder / "a folder" / "artifacts"
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)

    def tracker(self, study: str, objective: Objective = LOSS) -> MLflowTracker:
        return MLflowTracker(self.uri, self.artifacts, study, objective)

    def runs(self, study: str) -> list[Run]:
        """All runs of a study, oldest first."""
        experiment = self.client.get_experiment_by_name(study)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    def children(self, study: str) -> dict[int, Run]:
        """The runs of a study's trials by number; no number twice."""
        runs = [run for run in self.runs(study) if "tuner.trial" in run.data.tags]
        children = {int(run.data.tags["tuner.trial"]): run for run in runs}
        assert len(children) == len(runs), "a trial has two runs"
        return children

    def history(self, run: Run, metric: str) -> list[tuple[int, int, float]]:
        """(step, milliseconds since 1970, value) of a metric, by step."""
        points = self.client.get_metric_history(run.info.run_id, metric)
        return sorted((point.step, point.timestamp, point.value) for point in points)

    def everything(self, study: str) -> dict[str, Any]:
        """All that a study's trials have in MLflow, with every point of every metric."""
        return {
            run.info.run_id: (
                run.info.status,
                run.info.run_name,
                run.info.start_time,
                run.info.end_time,
                run.data.params,
                run.data.tags,
                {name: self.history(run, name) for name in run.data.metrics},
            )
            for run in self.children(study).values()
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One MLflow store for all tests: making its tables takes seconds. Each test has a study of its own."""
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.client.search_experiments()
    yield server
    _store_of(server.uri).engine.dispose()


def _store_of(uri: str) -> Any:
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(uri)


@pytest.fixture
def study(request: pytest.FixtureRequest) -> str:
    """A study's name that no other test has."""
    return str(request.node.name).replace("[", "-").replace("]", "")[:100]


@pytest.fixture
def tracker(server: Server, study: str) -> MLflowTracker:
    """A tracker whose parent run is open."""
    tracker = server.tracker(study)
    tracker.open({"tuner.sampler": "priority"}, {"model": "tuner.models.MLP"})
    return tracker


def trial(number: int, result: TrialResult | None = None, **more: Any) -> Trial:
    state = result.state if result else TrialState.RUNNING
    return Trial(
        number,
        more.pop("params", {"model.learning_rate": 0.1, "model.norm": "batch"}),
        seed=40 + number,
        state=more.pop("state", state),
        attempt=more.pop("attempt", 1),
        result=result,
        started=START + number,
        finished=START + number + 9.5 if result else None,
        **more,
    )


def complete(value: float = 0.25) -> TrialResult:
    return TrialResult(
        TrialState.COMPLETE,
        value=value,
        metrics={"val_loss": value, "val_acc": 0.875, "train_loss": 0.1, "val_norm/net.1": 1.0},
        best_epoch=2,
        epochs=3,
        seconds={"ask": 0.5, "train": 8.0},
    )


def reports(*values: float) -> list[TrackedReport]:
    return [
        (epoch, START + epoch, {"val_loss": value, "train_loss": value + 1}) for epoch, value in enumerate(values, 1)
    ]


# Runs


def test_a_study_is_one_run_and_its_trials_are_children_of_it(server: Server, study: str) -> None:
    tracker = server.tracker(study)
    parent = tracker.open({"tuner.sampler": "priority"}, {"model": "tuner.models.MLP", "seed_everything": 7})
    ids = [tracker.write(trial(number), [], None) for number in (0, 1)]
    children = server.children(study)
    assert {run.info.run_id for run in server.runs(study)} == {parent, *ids}
    assert [children[number].info.run_id for number in (0, 1)] == ids
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent}
    found = server.client.get_run(parent)
    assert (found.info.run_name, found.info.status) == (study, "RUNNING")
    assert found.data.params == {"model": "tuner.models.MLP", "seed_everything": "7"}
    assert found.data.tags["tuner.sampler"] == "priority"
    assert "mlflow.parentRunId" not in found.data.tags


def test_a_child_has_the_trials_values_seed_times_and_name(server: Server, study: str, tracker: MLflowTracker) -> None:
    tracker.write(trial(3, complete()), [], None)
    run = server.children(study)[3]
    assert run.data.params == {"model.learning_rate": "0.1", "model.norm": "batch", "seed_everything": "43"}
    assert run.info.run_name == "trial-0003"
    assert (run.info.start_time, run.info.end_time) == ((START + 3) * 1000, (START + 12.5) * 1000)
    assert run.data.tags["tuner.objective"] == "minimize val_loss"


def test_every_epoch_is_a_step_of_every_metric(server: Server, study: str, tracker: MLflowTracker) -> None:
    tracker.write(trial(0), reports(0.5, 0.25, 0.375), None)
    run = server.children(study)[0]
    moments = [int((START + epoch) * 1000) for epoch in (1, 2, 3)]
    assert server.history(run, "val_loss") == [(1, moments[0], 0.5), (2, moments[1], 0.25), (3, moments[2], 0.375)]
    assert [value for _, _, value in server.history(run, "train_loss")] == [1.5, 1.25, 1.375]


def test_a_running_trial_grows_by_what_is_new(server: Server, study: str, tracker: MLflowTracker) -> None:
    run_id = tracker.write(trial(0), reports(0.5), None)
    assert server.children(study)[0].info.status == "RUNNING"
    assert tracker.write(trial(0, complete()), reports(0.5, 0.25, 0.375), run_id) == run_id
    run = server.children(study)[0]
    assert run.info.status == "FINISHED"
    assert [value for _, _, value in server.history(run, "val_loss")] == [0.5, 0.25, 0.375]


def test_a_complete_trial_has_its_best_epoch_and_its_cost(server: Server, study: str, tracker: MLflowTracker) -> None:
    tracker.write(trial(0, complete()), reports(0.5, 0.25, 0.375), None)
    run = server.children(study)[0]
    assert {name: value for name, value in run.data.metrics.items() if name not in ("val_loss", "train_loss")} == {
        "best_val_loss": 0.25,
        "best_val_acc": 0.875,
        "best_epoch": 2.0,
        "epochs": 3.0,
        "seconds": 8.5,
    }
    assert run.data.tags["tuner.seconds"] == "ask 0.5, train 8"


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (complete(), "FINISHED", None),
        (TrialResult(TrialState.PRUNED, value=0.5, reason="pruned at epoch 2"), "KILLED", "pruned at epoch 2"),
        (TrialResult(TrialState.PRUNED, reason="diverged", infeasible=True), "KILLED", "diverged"),
        (TrialResult(TrialState.FAILED, reason="ValueError: no", detail="Traceback"), "FAILED", "ValueError: no"),
    ],
    ids=["complete", "pruned", "infeasible", "failed"],
)
def test_how_a_trial_ended_is_its_runs_status_with_the_reason_as_a_tag(
    server: Server, study: str, tracker: MLflowTracker, result: TrialResult, status: str, reason: str | None
) -> None:
    tracker.write(trial(0, result), [], None)
    run = server.children(study)[0]
    assert run.info.status == status
    assert run.data.tags["tuner.state"] == result.state.value
    assert run.data.tags.get("tuner.reason") == reason
    assert run.data.tags.get("tuner.traceback") == result.detail


def test_a_trial_that_was_started_again_says_how_often(server: Server, study: str, tracker: MLflowTracker) -> None:
    tracker.write(trial(0, complete(), attempt=2), [], None)
    tracker.write(trial(1, complete()), [], None)
    children = server.children(study)
    assert children[0].data.tags["tuner.attempts"] == "2"
    assert "tuner.attempts" not in children[1].data.tags


def test_a_trial_that_waits_again_is_no_longer_called_running(
    server: Server, study: str, tracker: MLflowTracker
) -> None:
    run_id = tracker.write(trial(0, token=1), reports(0.5), None)
    assert tracker.write(trial(0, token=2, state=TrialState.WAITING), [], run_id) == run_id
    run = server.children(study)[0]
    assert run.data.tags["tuner.state"] == "waiting"
    assert run.info.status == "KILLED"


def test_a_trial_that_waits_before_it_ever_ran_has_no_run(server: Server, study: str, tracker: MLflowTracker) -> None:
    assert tracker.write(trial(0, state=TrialState.WAITING), [], None) is None
    assert server.children(study) == {}


@pytest.mark.parametrize("who", ["the same tracker", "another tracker"])
def test_a_trial_that_starts_again_has_one_run_with_the_metrics_of_that_start_only(
    server: Server, study: str, tracker: MLflowTracker, who: str
) -> None:
    first = tracker.write(trial(0, token=1), reports(0.875, 0.75), None)
    if who == "another tracker":
        tracker = server.tracker(study)
        tracker.open({}, {})
    second = tracker.write(trial(0, complete(), token=3), reports(0.5), first)
    run = server.children(study)[0]
    assert run.info.run_id == second
    assert [value for _, _, value in server.history(run, "val_loss")] == [0.5]


@pytest.mark.parametrize("who", ["the same tracker", "another tracker"])
def test_a_new_start_that_could_not_be_remembered_is_found_again(
    server: Server, study: str, tracker: MLflowTracker, who: str
) -> None:
    """The courier died after it had made the new run and before the storage knew of it."""
    first = tracker.write(trial(0, token=1), reports(0.875), None)
    second = tracker.write(trial(0, complete(), token=3), reports(0.5), first)
    if who == "another tracker":
        tracker = server.tracker(study)
        tracker.open({}, {})
    assert tracker.write(trial(0, complete(), token=3), reports(0.5), first) == second
    assert server.children(study)[0].info.run_id == second


def test_a_confirming_run_is_a_child_of_the_run_that_it_confirms(
    server: Server, study: str, tracker: MLflowTracker
) -> None:
    confirmed = tracker.write(trial(0, complete()), [], None)
    tracker.write(trial(1, complete(0.375), confirms=0), [], None)
    server_side = server.children(study)[1]
    assert server_side.data.tags["mlflow.parentRunId"] == confirmed
    assert server_side.info.run_name == "trial-0000-seed-41"
    again = server.tracker(study)  # a tracker that finds the confirmed run in MLflow
    again.open({}, {})
    again.write(trial(2, complete(0.5), confirms=0), [], None)
    assert server.children(study)[2].data.tags["mlflow.parentRunId"] == confirmed


@pytest.mark.parametrize("confirms", [None, 0])
def test_a_trial_that_goes_on_has_one_run_with_the_kept_epochs_and_the_new_ones(
    server: Server, study: str, tracker: MLflowTracker, confirms: int | None
) -> None:
    confirmed = tracker.write(trial(0, complete()), [], None)
    first = tracker.write(trial(1, token=1, confirms=confirms), reports(0.875, 0.75, 0.625), None)
    tracker.write(trial(1, token=2, confirms=confirms, state=TrialState.WAITING), reports(0.875, 0.75, 0.625), first)
    gone_on = trial(1, complete(), token=3, confirms=confirms, attempt=2, began_after=2)
    tracker.write(gone_on, reports(0.875, 0.75, 0.5), first)
    run = server.children(study)[1]
    assert [(step, value) for step, _, value in server.history(run, "val_loss")] == [(1, 0.875), (2, 0.75), (3, 0.5)]
    assert (run.data.tags["tuner.began_after"], run.data.tags["tuner.attempts"]) == ("2", "2")
    assert (run.data.tags["mlflow.parentRunId"] == confirmed) is (confirms is not None)


# Twice


def write_all(tracker: MLflowTracker, known: dict[int, str] | None = None) -> dict[int, str]:
    known = known or {}
    failed = TrialResult(TrialState.FAILED, reason="ValueError: no", detail="Traceback")
    trials = [trial(0, complete()), trial(1, failed), trial(2, complete(0.375), confirms=0)]
    values = [reports(0.5, 0.25, 0.375), [], reports(0.375)]
    written = {t.number: tracker.write(t, r, known.get(t.number)) for t, r in zip(trials, values, strict=True)}
    tracker.progress([(0, START + 9.5, 0.25), (1, START + 10.5, 0.25)])
    return written


@pytest.mark.parametrize("who", ["the same tracker", "one that knows the runs", "one that knows nothing"])
def test_writing_everything_twice_changes_nothing(server: Server, study: str, who: str) -> None:
    first = server.tracker(study)
    parent = first.open({"tuner.sampler": "tpe"}, {"model": "a.B"})
    known = write_all(first)
    before = server.everything(study)
    progress = server.history(server.client.get_run(parent), "best_val_loss")
    assert [(step, value) for step, _, value in progress] == [(0, 0.25), (1, 0.25)]
    if who == "the same tracker":
        again = write_all(first)
    else:
        second = server.tracker(study)
        knows = who == "one that knows the runs"
        assert second.open({"tuner.sampler": "tpe"}, {"model": "a.B"}, parent if knows else None) == parent
        again = write_all(second, known if knows else None)
    assert again == known
    assert server.everything(study) == before
    assert server.history(server.client.get_run(parent), "best_val_loss") == progress
    assert len(server.runs(study)) == 4


def test_two_studies_in_one_store_do_not_know_each_others_runs(server: Server, study: str) -> None:
    one, other = server.tracker(f"{study}-1"), server.tracker(f"{study}-2")
    parents = [tracker.open({}, {}) for tracker in (one, other)]
    ids = [tracker.write(trial(0, complete()), [], None) for tracker in (one, other)]
    assert len({*parents, *ids}) == 4
    again = server.tracker(f"{study}-2")
    assert again.open({}, {}) == parents[1]
    assert again.write(trial(0, complete()), [], None) == ids[1]


def test_a_parent_that_is_no_longer_there_is_made_anew(server: Server, study: str) -> None:
    parent = server.tracker(study).open({}, {}, known_run="0123456789abcdef0123456789abcdef")
    assert server.client.get_run(parent).info.run_name == study
    server.client.delete_run(parent)
    assert server.tracker(study).open({}, {}, known_run=parent) != parent


@pytest.mark.parametrize("who", ["the same tracker", "another tracker"])
@pytest.mark.parametrize("lost", ["params", "metrics"])
def test_what_could_not_be_sent_arrives_once_when_it_is_sent_again(
    server: Server, study: str, tracker: MLflowTracker, lost: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow goes down after a child run was made, and before it has its parameters (or its metrics)."""
    send = mlflow.MlflowClient.log_batch

    def fails(self: mlflow.MlflowClient, run_id: str, *arguments: Any, **named: Any) -> Any:
        if named.get(lost):
            raise ConnectionError("connection reset by peer")
        return send(self, run_id, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", fails)
        with pytest.raises(TrackingUnavailable, match="connection reset by peer"):
            tracker.write(trial(0, complete()), reports(0.5, 0.25), None)
    if who == "another tracker":
        tracker = server.tracker(study)
        tracker.open({}, {})
    tracker.write(trial(0, complete()), reports(0.5, 0.25), None)
    run = server.children(study)[0]
    assert run.data.params == {"model.learning_rate": "0.1", "model.norm": "batch", "seed_everything": "40"}
    assert [value for _, _, value in server.history(run, "val_loss")] == [0.5, 0.25]


# Values of every kind


def test_metrics_that_are_not_finite_are_left_out(server: Server, study: str, tracker: MLflowTracker) -> None:
    odd: list[TrackedReport] = [(1, START, {"val_loss": 0.5, "grad": None, "norm": math.inf, "z": math.nan})]
    result = TrialResult(TrialState.COMPLETE, value=0.5, metrics={"val_loss": 0.5, "norm": math.inf})
    tracker.write(trial(0, result), odd, None)
    metrics = server.children(study)[0].data.metrics
    assert metrics["val_loss"] == metrics["best_val_loss"] == 0.5
    assert not {"grad", "norm", "z", "best_norm"} & set(metrics)


@pytest.mark.parametrize("mlflow_cuts", ["true", "false"])
def test_long_values_are_cut_rather_than_refused(
    server: Server, study: str, tracker: MLflowTracker, mlflow_cuts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", mlflow_cuts)
    long = "ä" + "x" * 20_000
    result = TrialResult(TrialState.FAILED, reason=long, detail=long)
    tracker.write(trial(0, result, params={"model.widths": long}), [], None)
    run = server.children(study)[0]
    for kept in (run.data.params["model.widths"], run.data.tags["tuner.reason"], run.data.tags["tuner.traceback"]):
        assert 250 <= len(kept) < len(long)
        assert long.startswith(kept)
    opened = server.tracker(f"{study}-2")
    parent = opened.open({"tuner.note": long}, {"model": long})
    opened.close("FINISHED", {"mlflow.note.content": long}, {})
    tags = server.client.get_run(parent).data.tags
    assert long.startswith(tags["tuner.note"])
    assert long.startswith(tags["mlflow.note.content"])


def test_thousands_of_metrics_arrive(server: Server, study: str, tracker: MLflowTracker) -> None:
    """MLflow takes a thousand at a time."""
    tracker.write(trial(0), reports(*(1 / epoch for epoch in range(1, 1251))), None)
    points = server.history(server.children(study)[0], "val_loss")
    assert [step for step, _, _ in points] == list(range(1, 1251))
    assert points[-1][2] == 1 / 1250


# The study


def test_artifacts_are_attached_to_the_study_and_readable(
    server: Server, study: str, tracker: MLflowTracker, tmp_path: Path
) -> None:
    parent = tracker.open({}, {})
    tracker.attach({"study.yaml": "study: ä\n", "best.yaml": "first\n"})
    tracker.attach({"best.yaml": "second\n"})
    assert {item.path for item in server.client.list_artifacts(parent)} == {"study.yaml", "best.yaml"}
    read = {
        name: Path(server.client.download_artifacts(parent, name, str(tmp_path))).read_text("utf-8")
        for name in ("study.yaml", "best.yaml")
    }
    assert read == {"study.yaml": "study: ä\n", "best.yaml": "second\n"}
    assert {path.name for path in server.artifacts.rglob("*.yaml")} >= {"study.yaml", "best.yaml"}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_of_a_study_is_its_runs_status_and_it_may_go_on(server: Server, study: str, status: str) -> None:
    tracker = server.tracker(study)
    parent = tracker.open({}, {"model": "a.B"})
    tracker.close(status, {"tuner.state": "over"}, {"epochs": 12.0, "seconds": 3.5, "odd": math.nan})
    run = server.client.get_run(parent)
    assert (run.info.status, run.data.tags["tuner.state"]) == (status, "over")
    assert run.data.metrics == {"epochs": 12.0, "seconds": 3.5}
    assert run.info.end_time is not None
    assert server.tracker(study).open({}, {"model": "a.B"}) == parent
    assert server.client.get_run(parent).info.status == "RUNNING"


# When it does not answer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries: the port is closed and stays so."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_does_not_answer_is_reported_whatever_is_asked(tmp_path: Path) -> None:
    tracker = MLflowTracker("http://127.0.0.1:9", tmp_path, "digits", LOSS)
    for act in (
        lambda: tracker.open({}, {}),
        lambda: tracker.open({}, {}, known_run="0123456789abcdef0123456789abcdef"),
        lambda: tracker.write(trial(0, complete()), [], None),
        lambda: tracker.write(trial(0, complete()), [], "0123456789abcdef0123456789abcdef"),
        lambda: tracker.progress([(0, START, 0.5)]),
        lambda: tracker.attach({"best.yaml": "a: 1"}),
        lambda: tracker.close("FINISHED", {}, {}),
    ):
        with pytest.raises(
            TrackingUnavailable, match=r"MLflow at http://127\.0\.0\.1:9 (does not answer|refuses this)"
        ):
            act()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("password", ["secret", "eyJ" + "secret" * 60], ids=["short", "a long token"])
def test_a_server_that_does_not_answer_is_reported_without_the_password(password: str, tmp_path: Path) -> None:
    tracker = MLflowTracker(f"http://user:{password}@127.0.0.1:9", tmp_path, "digits", LOSS)
    with pytest.raises(TrackingUnavailable) as raised:
        tracker.open({}, {})
    assert "http://user:***@127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["oracle://me:secret@host/db", "sqlite:////proc/no/such/folder/mlflow.db"])
def test_a_uri_that_cannot_be_used_is_reported_without_its_password(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingUnavailable) as raised:
        MLflowTracker(uri, tmp_path, "digits", LOSS).open({}, {})
    assert "secret" not in str(raised.value)


def test_an_experiment_that_was_deleted_in_mlflow_is_reported_with_what_to_do(server: Server, study: str) -> None:
    server.tracker(study).open({}, {})
    experiment = server.client.get_experiment_by_name(study)
    assert experiment is not None
    server.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingUnavailable, match=r"was deleted there\. Restore it"):
        server.tracker(study).open({}, {})


def test_two_trackers_that_open_one_new_study_share_its_experiment(
    server: Server, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one makes the experiment between our looking for it and our making it."""
    make = mlflow.MlflowClient.create_experiment

    def both(self: mlflow.MlflowClient, name: str, **named: Any) -> str:
        make(self, name, **named)
        return make(self, name, **named)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_experiment", both)
        parent = server.tracker(study).open({}, {})
    assert [run.info.run_id for run in server.runs(study)] == [parent]


def test_the_ui_is_entered_at_the_studies_that_changed_last(server: Server) -> None:
    for name in ("entered-first", "entered-last"):
        server.tracker(name).open({}, {})
    pages = newest_pages(server.uri, most=2)
    assert [name for name, _ in pages] == ["entered-last", "entered-first"]
    experiment = server.client.get_experiment_by_name("entered-last")
    assert experiment is not None
    assert pages[0][1] == f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert "Default" not in dict(newest_pages(server.uri, most=1000))
