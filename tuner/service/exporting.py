"""The best of a study becomes a folder for other projects, and a version of a registered model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.best import Best
from tuner.best.card import card
from tuner.best.folder import CARD, CHECKPOINT, CONFIG, FACTS, PROGRAM, WEIGHTS, check_free, new_folder, save_weights
from tuner.best.program import Forward, Program, example_of, program_of, save_onnx
from tuner.best.record import Record
from tuner.data import InMemory
from tuner.errors import BestUnusable, SpecError, TestSplitUsed, TunerError
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.service.result import StudyResult, result_of
from tuner.service.reuse import Tested, check_data, load, score, scored
from tuner.space import Choice, Parameter, read_space
from tuner.storage import StudyRow
from tuner.trial import Trial, TrialState

if TYPE_CHECKING:
    from tuner.tracking.registry import Registered


@dataclass(frozen=True)
class Exported:
    """What an export has made.

    Attributes:
        to: the folder.
        files: the names of its files.
        left_out: what is not there, and why.
        test: what the test split says; None where it was not scored.
        registered: the version in MLflow's registry, if that was asked for.
    """

    to: Path
    files: tuple[str, ...]
    left_out: Mapping[str, str]
    test: Tested | None
    registered: Registered | None


def export(name: str, to: Path, home: Home, *, register: str | None = None, test: bool = True) -> Exported:
    """Write the best of a study as a folder, whole or not at all.

    Args:
        name: the study's.
        to: the folder; new or empty.
        home: where the study is.
        register: also register it in MLflow under this name.
        test: score the test split, if that has not been done.

    Raises:
        SpecError: there is something at `to`.
        StudyNotFound, NoBest: there is nothing to export.
        BestUnusable: the weights cannot be read, the data are not those of the study, or nothing can be registered.
        TrackingUnavailable: the folder is there, but MLflow does not answer.
    """
    check_free(to)
    best = load(name, home)
    module, data = best.trained_module(), best.datamodule()
    notes: list[str] = []
    tested = _tested(name, home, notes) if test else None
    with open_storage(home) as store:
        row, trials = store.study(name), store.trials(store.study(name).id)
        result = result_of(store, name, home, trials)
    tested = tested or scored(row.facts, best)
    check_data(row.facts, data, name)
    record = _record(best, row, result, trials, data, tested, notes)
    left_out: dict[str, str] = {}
    program: Program | None = None
    try:
        program = program_of(module, example_of(module, data))
    except BestUnusable as error:
        left_out[PROGRAM] = str(error)
    with new_folder(to) as folder:
        _write(folder, record, module, program, left_out)
    registered = _register(register, module, program, to, home, row, record) if register else None
    return Exported(to, tuple(sorted(path.name for path in to.iterdir())), left_out, tested, registered)


def _tested(name: str, home: Home, notes: list[str]) -> Tested | None:
    """The test split's figures, or a note why there are none: an export does not fail for it."""
    try:
        return score(name, home)
    except (TestSplitUsed, SpecError) as error:
        notes.append(f"The test split was not scored with these weights: {error}")
    except BestUnusable:
        raise
    except TunerError as error:
        notes.append(f"There is no test split: {error}")
    return None


def _record(
    best: Best,
    row: StudyRow,
    result: StudyResult,
    trials: list[Trial],
    datamodule: Any,
    tested: Tested | None,
    notes: list[str],
) -> Record:
    runs = {t.seed: t for t in trials if t.confirms == best.trial and t.state is TrialState.COMPLETE}
    return Record(
        best=best,
        confirming=[runs[seed].outcome.metrics for seed, _ in best.seeds],
        test=None if tested is None else {"at": tested.at, "metrics": dict(tested.metrics)},
        data=_data(best, datamodule, row.facts.get("data_hash")),
        cost={**result.cost, "trials": dict(result.trials)},
        space=_space(row.document["space"]),
        origin={key: row.facts.get(key) for key in ("versions", "git_commit", "git_dirty", "platform")},
        notes=notes,
    )


def _data(best: Best, datamodule: Any, known: str | None) -> dict[str, Any]:
    """What the data module says of its data."""
    told: dict[str, Any] = {"hash": known}
    if described := best.config.get("data"):
        told["class_path"] = described["class_path"]
    if isinstance(datamodule, InMemory) and getattr(datamodule, "held", True):
        splits = datamodule.splits()
        told["sizes"] = {part: len(getattr(splits, part)[1]) for part in ("train", "val", "test")}
    if names := getattr(datamodule, "class_names", None):
        told["classes"] = list(names)
    if prepare := getattr(datamodule, "preparation", None):
        told["preparation"] = prepare()
    return told


def _space(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was searched, in the order of its priorities."""
    space, _ = read_space(dict(document))
    ranked = sorted(space.parameters.items() if space else (), key=lambda item: item[1].priority or 99)
    return {
        path: {"range": _range(parameter), "default": parameter.default, "priority": parameter.priority}
        for path, parameter in ranked
    }


def _range(parameter: Parameter) -> str:
    values = parameter.range
    if isinstance(values, Choice):
        return ", ".join(map(str, values.values))
    return f"{values.low:g} … {values.high:g}" + ("" if values.scale == "linear" else f" ({values.scale})")


def _write(folder: Path, record: Record, module: Any, program: Program | None, left_out: dict[str, str]) -> None:
    """Fill the folder; what cannot be written goes into `left_out` with the reason."""
    best = record.best
    texts = {
        CONFIG: best.to_yaml(),
        "best.lightning-cli.yaml": best.to_lightning_cli(),
        "best.hydra.yaml": best.to_hydra(),
        "best.json": json.dumps(best.config, indent=2),
        FACTS: json.dumps(record.to_json(), indent=2),
    }
    if (made := record.data.get("preparation")) is not None:
        texts["preparation.json"] = json.dumps(made, indent=2)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    if best.checkpoint is not None:
        shutil.copyfile(best.checkpoint, folder / CHECKPOINT)
    if lost := save_weights(module.state_dict(), folder / WEIGHTS):
        left_out[WEIGHTS] = f"{', '.join(lost)} are no tensors; {CHECKPOINT} has them (the tensors are there)"
    if program is not None:
        program.save(folder / PROGRAM)
        if not program.any_batch:
            size = len(program.example)
            left_out["batches of any size"] = f"torch.export fixed the batch: {PROGRAM} takes {size} rows at a time"
        if (wrong := save_onnx(program, folder / "model.onnx")) is not None:
            left_out["model.onnx"] = wrong
    shape = None if program is None else program.example.shape[1:]
    (folder / CARD).write_text(card(record, [p.name for p in folder.iterdir()], left_out, shape), "utf-8")


def _register(
    name: str, module: Any, program: Program | None, folder: Path, home: Home, row: StudyRow, record: Record
) -> Registered:
    """Register the model.

    Raises:
        BestUnusable: there is no program, and MLflow's other form is a pickle.
    """
    from tuner.tracking.registry import Candidate, Registry  # with MLflow, which takes seconds to import

    best = record.best
    if program is None or best.trial is None or best.objective is None or record.expected is None:
        raise BestUnusable(
            f"{folder} is exported, but not registered as {name}: MLflow takes a torch.export program (its other form "
            "is a pickle), and this module has none; the card says why."
        )
    candidate = Candidate(
        study=best.study,
        trial=best.trial,
        run=row.tracked.get("run_id"),
        objective=best.objective,
        value=record.expected,
        data=record.data,
        metrics={**best.metrics, **(record.test["metrics"] if record.test else {})},
    )
    registry = Registry(home.tracking, home.artifacts)
    return registry.register(name, Forward(module), program.example, folder, candidate)
