"""Whole studies on real data, in this process."""

from __future__ import annotations

import copy
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest

import tuner
from tuner import engine
from tuner.errors import MissingMetric, NoBest, SpecError, StudyChanged, StudyNotFound, StudyStopped
from tuner.home import Home
from tuner.service.entry import open_storage, space_changes
from tuner.trial import Trial

Study = dict[str, Any]


def trials_of(home: Home, name: str = "small") -> list[Trial]:
    with open_storage(home) as store:
        return store.trials(store.study(name).id)


def what_was_tried(home: Home) -> list[tuple[Any, ...]]:
    return [(t.number, t.seed, t.params, t.value, dict(t.values)) for t in trials_of(home)]


def test_a_study_ends_with_its_best(home: Home, study: Study) -> None:
    result = tuner.run(study)
    assert result.state == "complete"
    assert sum(result.trials.values()) == 4
    assert result.best is not None
    values = {t.number: t.value for t in trials_of(home) if t.state == "complete"}
    assert result.best.value == min(values.values())
    assert result.best.trial == min(values, key=lambda number: values[number])
    assert result.best.metrics["val_loss"] == result.best.value
    assert set(result.best.metrics) == {"train_loss", "train_acc", "val_loss", "val_acc", "val_label_entropy"}
    assert result.cost["epochs"] == sum(t.outcome.epochs for t in trials_of(home))


def test_the_same_seed_gives_the_same_study_bit_for_bit(
    home: Home, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.run(study)
    first = what_was_tried(home)
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "again"))
    tuner.run(study)
    assert what_was_tried(Home.from_environment()) == first
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "other"))
    tuner.run(study, seed=8)
    assert what_was_tried(Home.from_environment()) != first


def test_a_study_in_two_parts_equals_one_in_one(
    home: Home, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.run(study, trials=7)
    whole = what_was_tried(home)
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "parts"))
    tuner.run(study, trials=3)
    tuner.run(study, trials=7)
    assert what_was_tried(Home.from_environment()) == whole


def test_a_study_ends_early_when_every_configuration_has_been_tried(home: Home, study: Study) -> None:
    study["space"] = {"data.batch_size": {"choice": [64, 128, 256]}}
    result = tuner.run(study, trials=9)
    assert (result.state, sum(result.trials.values())) == ("complete", 3)
    assert result.reason == "every configuration of the space has been tried"
    assert {(t.params or {})["data.batch_size"] for t in trials_of(home)} == {64, 128, 256}
    again = engine.run(
        study["study"], resume=True, overrides=[("space.data.batch_size.choice.values", [64, 128, 256, 512])]
    )
    assert sum(again.trials.values()) == 4
    with open_storage(home) as store:
        assert space_changes(store.study("small")) == [
            "after 3 trials: data.batch_size.choice.values: [64, 128, 256] → [64, 128, 256, 512]"
        ]


def test_a_study_begins_with_the_best_of_another_and_what_a_file_says(home: Home, study: Study, tmp_path: Path) -> None:
    first = tuner.run(study)
    assert first.best is not None
    (tmp_path / "best.yaml").write_text(
        "model: {init_args: {learning_rate: 0.7}}\ndata: {init_args: {batch_size: 99}}\n"
    )
    study["study"] = "next"
    study["search"] = {"trials": 3, "confirm": 0, "start": ["small", str(tmp_path / "best.yaml")]}
    tuner.run(study, trials=2)
    begun = [t.params for t in trials_of(home, "next")]
    assert begun == [dict(first.best.params), {"model.learning_rate": 0.7, "data.batch_size": 64}]
    tuner.run({**study, "study": "small", "search": {"trials": 9, "confirm": 0}})  # its best may be another one now
    again = tuner.run(study)
    assert sum(again.trials.values()) == 3
    assert [t.params for t in trials_of(home, "next")][:2] == begun


def test_a_study_that_begins_with_nothing_that_exists_is_refused(home: Home, study: Study) -> None:
    study["search"]["start"] = ["smal", "none.yaml"]
    with pytest.raises(SpecError) as caught:
        tuner.run(study)
    assert [problem.path for problem in caught.value.problems] == ["search.start.0", "search.start.1"]
    with open_storage(home) as store:
        assert store.find("small") is None


def test_running_a_finished_study_again_trains_nothing(home: Home, study: Study) -> None:
    tuner.run(study)
    before = what_was_tried(home)
    assert tuner.run(study).state == "complete"
    assert what_was_tried(home) == before


def test_a_changed_study_is_refused_with_the_difference_and_the_remedy(home: Home, study: Study) -> None:
    tuner.run(study, trials=1)
    changed = copy.deepcopy(study)
    changed["trainer"]["max_epochs"] = 3
    changed["space"]["model.learning_rate"]["float"]["high"] = 0.5
    with pytest.raises(StudyChanged) as refused:
        tuner.run(changed)
    message = str(refused.value)
    assert "trainer.max_epochs: 2 → 3" in message
    assert "space.model.learning_rate.float.high: 1.0 → 0.5" in message
    assert "--set study=small-2" in message
    assert len(trials_of(home)) == 1


def test_mlflow_holds_one_parent_and_every_trial_as_its_child(home: Home, study: Study) -> None:
    study["search"]["confirm"] = 2
    tuner.run(study)
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    by_id = {run.info.run_id: run for run in runs}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    parent = parents[0]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 4
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tuner.data_hash"]
    assert {"study.yaml", "space.yaml", "best.yaml"} <= {f.path for f in client.list_artifacts(parent.info.run_id)}
    searching = {int(run.data.tags["tuner.trial"]): run.data.tags["tuner.searching"] for run in children}
    assert searching[0] == "priority 1 in 70% of proposals (±20% of the range), 2 in 35% (±14%)"
    assert searching[3] == "priority 1 in 75% of proposals (±20% of the range), 2 in 38% (±14%)"
    assert parent.data.tags["tuner.searching"] == "priority 1 in 77% of proposals (±34% of the range), 2 in 38% (±24%)"
    assert (parent.data.tags["tuner.sampler"], parent.data.tags["tuner.pruner"]) == (
        "priority",
        "none (auto: trials of 2 epochs are too short to prune)",
    )
    trials = {t.number: t for t in trials_of(home)}
    for run in children:
        trial = trials[int(run.data.tags["tuner.trial"])]
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]
        assert float(run.data.params["model.learning_rate"]) == trial.params["model.learning_rate"]
        history = client.get_metric_history(run.info.run_id, "val_loss")
        assert {m.step: m.value for m in history} == dict(trial.values)
    confirming = [run for run in runs if run.data.tags.get("tuner.kind") == "confirmation"]
    assert confirming
    for run in confirming:
        confirmed = by_id[run.data.tags["mlflow.parentRunId"]]
        assert int(confirmed.data.tags["tuner.trial"]) == trials[int(run.data.tags["tuner.trial"])].confirms


def test_optuna_s_own_tools_see_every_finished_trial(home: Home, study: Study) -> None:
    tuner.run(study)
    copied = optuna.load_study(study_name="small", storage=home.storage)
    assert [t.params for t in copied.trials] == [t.params for t in trials_of(home)]
    assert copied.best_value == min(t.value for t in trials_of(home) if t.state == "complete")
    copied._storage.remove_session()


def test_the_best_loads_in_a_later_program(home: Home, study: Study) -> None:
    result = tuner.run(study)
    best = tuner.load_best("small")
    assert result.best is not None
    assert best.config == result.best.config
    assert best.params == result.best.params
    assert best.config["model"]["init_args"]["learning_rate"] == best.params["model.learning_rate"]
    assert best.config["data"]["init_args"]["batch_size"] == best.params["data.batch_size"]
    data = best.datamodule()
    assert data is not None
    inputs, labels = next(iter(data.val_dataloader()))
    trained = best.trained_module()
    accuracy = (trained(inputs).argmax(dim=1) == labels).float().mean().item()
    assert accuracy == pytest.approx(best.metrics["val_acc"], abs=1e-6)
    fresh = best.module()
    assert sum(p.numel() for p in fresh.parameters()) == sum(p.numel() for p in trained.parameters())


def test_weights_of_losers_are_deleted(home: Home, study: Study) -> None:
    tuner.run(study, trials=8)
    complete = sorted((t for t in trials_of(home) if t.state == "complete"), key=lambda t: t.value or 0.0)
    kept = {path.name for path in home.checkpoints("small").iterdir()}
    assert kept == {f"trial-{t.number:04d}.ckpt" for t in complete[:3]}


def test_the_winner_is_confirmed_with_new_seeds(home: Home, study: Study) -> None:
    study["search"]["confirm"] = 3
    result = tuner.run(study)
    assert result.best is not None
    runs = [t for t in trials_of(home) if t.confirms is not None]
    assert [t for t in trials_of(home) if t.confirms is None and t.params is None] == []
    winner = [t for t in runs if t.confirms == result.best.trial]
    assert list(result.best.seeds) == [(t.seed, t.value) for t in winner]
    assert len({t.seed for t in winner} | {trials_of(home)[result.best.trial].seed}) == 4
    assert len(runs) <= 3 + 2 + 1
    assert sum(result.trials.values()) == 4, "confirming runs are not proposals"


def test_all_problems_come_at_once_and_nothing_is_created(home: Home, study: Study) -> None:
    study["model"]["class_path"] = "tuner.modles.MLP"
    study["search"]["trials"] = -1
    study["space"]["model.learning_rate"]["float"]["scale"] = "logarithmic"
    with pytest.raises(SpecError) as refused:
        tuner.run(study)
    assert {problem.path for problem in refused.value.problems} == {
        "model.class_path",
        "search.trials",
        "space.model.learning_rate.float.scale",
    }
    assert not home.folder.exists()


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(home: Home, study: Study) -> None:
    study["objective"]["metric"] = "val_los"
    with pytest.raises(MissingMetric, match=r"'val_los'; logged: .*val_acc.*Did you mean 'val_loss'"):
        tuner.run(study)
    with open_storage(home) as store:
        assert store.study("small").state == "failed"


def test_diverged_trials_are_pruned_with_a_reason_and_never_the_best(home: Home, study: Study) -> None:
    study["space"] = {
        "model.learning_rate": {"choice": {"values": [0.1, 1e38], "default": 1e38}},
        "data.batch_size": {"choice": [64, 128, 256]},
    }
    study["model"]["init_args"]["norm"] = "none"
    study["search"]["sampler"] = "grid"
    result = tuner.run(study, trials=6)
    diverged = [t for t in trials_of(home) if t.params == t.params | {"model.learning_rate": 1e38}]
    assert len(diverged) == 3
    for trial in diverged:
        assert trial.state == "pruned"
        assert trial.outcome.infeasible
        assert "diverged" in (trial.outcome.reason or "")
    assert result.best is not None
    assert result.best.params["model.learning_rate"] == 0.1
    copied = optuna.load_study(study_name="small", storage=home.storage)
    assert {t.state.name for t in copied.trials} == {"PRUNED", "COMPLETE"}
    copied._storage.remove_session()


def test_a_fault_that_every_trial_has_stops_the_study(home: Home, study: Study, tmp_path: Path) -> None:
    module = tmp_path / "broken_model.py"
    module.write_text(
        "from tuner.models import MLP\n"
        "class Broken(MLP):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        raise KeyError('no such column')\n"
    )
    study["model"]["class_path"] = "broken_model.Broken"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(StudyStopped, match=r"3 trials failed one after the other.*no such column"):
            tuner.run(study)
    assert [t.state for t in trials_of(home)] == ["failed"] * 3
    assert "no such column" in (trials_of(home)[0].outcome.detail or "")
    with pytest.raises(NoBest, match="3 failed"):
        tuner.load_best("small")


def test_training_goes_on_while_mlflow_is_down_and_its_data_arrive_later(
    home: Home, study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = tuner.run(study)
    assert result.state == "complete"
    assert "waits and is sent later" in caplog.text
    with open_storage(home) as store:
        assert store.count_untracked(store.study("small").id) == 4
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tuner.run(study)
    with open_storage(home) as store:
        assert store.count_untracked(store.study("small").id) == 0
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'trial'")) == 4


def test_budgets_of_epochs_and_of_one_trial_s_time_end_at_an_epoch(home: Home, study: Study) -> None:
    study["trainer"]["max_epochs"] = 10
    study["search"] |= {"trials": None, "epochs": 25, "pruner": "none", "patience": None}
    tuner.run(study)
    assert [t.outcome.epochs for t in trials_of(home)] == [10, 10, 5]
    assert "budget" in (trials_of(home)[2].outcome.reason or "")
    study["study"] = "quick"
    study["search"] |= {"trials": 2, "epochs": None, "trial_time": 0.001}
    tuner.run(study)
    assert [t.outcome.epochs for t in trials_of(home, "quick")] == [1, 1]


def test_nothing_is_trained_with_a_budget_of_nothing(home: Home, study: Study) -> None:
    result = tuner.run(study, trials=0)
    assert result.state == "complete"
    assert result.best is None
    assert trials_of(home) == []


def test_there_is_nothing_to_load_where_nothing_was_run(home: Home) -> None:
    with pytest.raises(StudyNotFound, match="no studies"):
        tuner.load_best("small")
    assert not home.folder.exists(), "looking creates nothing"


def test_the_database_s_schema_stands_beside_optuna_s(home: Home, study: Study) -> None:
    tuner.run(study, trials=1)
    with sqlite3.connect(home.folder / "tuner.db") as connection:
        names = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
        mode = connection.execute("pragma journal_mode").fetchone()[0]
    connection.close()
    assert {"tuner_study", "tuner_trial", "tuner_report", "tuner_alembic_version", "studies", "trials"} <= names
    assert mode == "wal"


def test_a_mended_module_gets_its_failed_trials_again(
    home: Home, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "mended_model.py"
    module.write_text(
        "from tuner.models import MLP\n"
        "class Mended(MLP):\n"
        "    broken = True\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        if self.broken:\n"
        "            raise KeyError('no such column')\n"
        "        return super().training_step(batch, batch_idx)\n"
    )
    study["model"]["class_path"] = "mended_model.Mended"
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StudyStopped, match=r"mended_model\.py:6"):
        tuner.run(study)
    import mended_model

    monkeypatch.setattr(mended_model.Mended, "broken", False)
    result = tuner.run(study)
    assert result.trials["failed"] == 0
    assert sum(result.trials.values()) == 4
    assert trials_of(home)[0].params == {"model.learning_rate": 0.1, "data.batch_size": 64}, "the defaults are tried"


def test_a_study_that_never_succeeded_may_be_changed(home: Home, study: Study) -> None:
    wrong = copy.deepcopy(study)
    wrong["objective"]["metric"] = "val_los"
    with pytest.raises(MissingMetric):
        tuner.run(wrong)
    assert tuner.run(study).state == "complete"


def test_what_is_set_on_the_command_is_not_searched(home: Home, study: Study) -> None:
    tuner.run(study, set={"model.learning_rate": 0.05})
    assert all("model.learning_rate" not in (t.params or {}) for t in trials_of(home))
    assert {t.outcome.config["model"]["init_args"]["learning_rate"] for t in trials_of(home)} == {0.05}


def test_two_studies_of_one_name_on_one_mlflow_are_kept_apart(
    home: Home, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.run(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking)
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "colleague"))
    tuner.run(study, seed=8)
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run.info.run_id for run in runs if run.data.tags["tuner.kind"] == "study"]
    assert len(parents) == 2
    for parent in parents:
        assert sum(run.data.tags.get("mlflow.parentRunId") == parent for run in runs) == 4


def test_a_storage_that_fails_at_a_report_is_not_the_trial_s_fault(
    home: Home, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.errors import StorageUnavailable
    from tuner.storage import Store

    def report(*_: Any) -> None:
        raise StorageUnavailable("the storage does not answer: database is locked.")

    monkeypatch.setattr(Store, "report_together", report)
    with pytest.raises(StorageUnavailable, match="locked"):
        tuner.run(study)
    assert {t.state.value for t in trials_of(home)} == {"waiting"}


def test_looking_at_a_best_draws_nothing_from_the_caller_s_generator(home: Home, study: Study) -> None:
    import torch

    tuner.run(study, trials=1)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tuner.load_best("small").datamodule()
    assert torch.equal(torch.rand(3), expected)


def test_layer_statistics_that_are_switched_on_stand_beside_the_losses_in_mlflow(home: Home, study: Study) -> None:
    study["trainer"]["callbacks"] = [{"class_path": "tuner.models.LayerStatistics", "init_args": {"every": 2}}]
    tuner.run(study, trials=1)
    client = mlflow.MlflowClient(home.tracking)
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = client.search_runs([experiment.experiment_id])
    (child,) = (run for run in runs if "mlflow.parentRunId" in run.data.tags)
    for kind in ("grad_norm/net.1", "grad_norm/net.5", "preact_mean/net.3", "preact_std/net.3"):
        history = client.get_metric_history(child.info.run_id, kind)
        assert [point.step for point in history] == [1, 2], kind
    study["study"], study["trainer"]["callbacks"] = "off", []
    tuner.run(study, trials=1)
    metrics = tuner.load_best("off").metrics
    assert not [name for name in metrics if "/" in name]


def test_data_that_changed_since_the_study_began_stop_it(home: Home, study: Study, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(80)]
    table.write_text("\n".join(["x,y,kind", *rows]))
    study["data"] = {"class_path": "tuner.data.Tabular", "init_args": {"path": str(table), "target": "kind"}}
    study["space"]["data.batch_size"] = {"choice": [16, 32]}
    tuner.run(study, trials=1)
    table.write_text("\n".join(["x,y,kind", *rows[:60]]))
    with pytest.raises(StudyStopped, match=r"the data are not those that study 'small' began with .* study=small-2"):
        tuner.run(study, trials=2)
    table.write_text("\n".join(["x,y,kind", *rows]))
    assert tuner.run(study, trials=2).trials["complete"] == 2
