"""The model card: what a reader must know of an exported best, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tuner.best.record import Record
from tuner.space.yaml import write_yaml

FILES = {
    "best.yaml": "the configuration: `tuner train best.yaml`, `tuner.load_best`",
    "best.lightning-cli.yaml": "the same for `python main.py fit --config best.lightning-cli.yaml`",
    "best.hydra.yaml": "the same for `hydra.utils.instantiate`",
    "best.json": "the same as JSON",
    "weights.safetensors": "the weights, by their names in the module",
    "model.pt2": "a `torch.export` program: computation and weights, which torch alone runs",
    "model.onnx": "the same for ONNX runtimes",
    "model.ckpt": "a Lightning checkpoint: `load_from_checkpoint(…, weights_only=True)`",
    "preparation.json": "how the inputs are made from raw data",
    "facts.json": "this card for programs",
    "SHA256SUMS": "checksums: `sha256sum -c SHA256SUMS`",
}


def card(record: Record, files: Iterable[str], left_out: Mapping[str, str], shape: Iterable[int] | None) -> str:
    """The card.

    Args:
        record: the facts.
        files: what lies beside the card.
        left_out: what does not, and why.
        shape: of one input; None where that is unknown.
    """
    written = list(files)
    best = record.best
    objective = best.objective
    goal = f"{objective.direction} {objective.metric}" if objective else "(none)"
    parts = [
        f"# {best.study}",
        f"The best of the study `{best.study}` ({goal}): trial {best.trial}, the weights of epoch {best.epoch}.",
        *(f"> {note}" for note in record.notes),
        "## Metrics",
        _metrics(record),
        "## Load it",
        _loading(record, written, shape),
        "## Inputs",
        _inputs(record),
        "## Data",
        _data(record),
        "## Training and search",
        _training(record),
        "## Hyperparameters",
        f"```yaml\n{write_yaml(best.config)}```",
        "## Where it comes from",
        _origin(record),
        "## Files",
        "\n".join(f"- `{name}`: {what}" for name, what in FILES.items() if name in written or name == "SHA256SUMS"),
        *(f"Not here: `{name}`, because {why}" for name, why in left_out.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(record: Record) -> str:
    best, seeds = record.best, len(record.confirming)
    own = f"these weights (seed {best.config.get('seed_everything')})"
    lines = [f"| metric | {own} | mean ± deviation over {seeds} new seeds |", "|---|---|---|"]
    for name, value in best.metrics.items():
        lines.append(f"| {name} | {value:.6g} | {_spread(record, name)} |")
    if record.test:
        lines += [f"| {name} | {value:.6g} | |" for name, value in record.test["metrics"].items()]
        told = f"The test split's figures are last: no trial saw it, and it was scored at {record.test['at']}."
    else:
        told = "The test split was not scored with these weights."
    picked = (
        "The value of these weights is the best of a search, so partly luck; the mean over new seeds is what to expect."
        if seeds
        else "No new seeds confirmed it: a value that was picked for being the best is partly luck."
    )
    return "\n".join(lines) + f"\n\n{told} {picked}"


def _spread(record: Record, metric: str) -> str:
    found = record.spread(metric)
    if found is None:
        return ""
    mean, deviation = found
    return f"{mean:.6g}" + (f" ± {deviation:.2g}" if deviation is not None else "")


def _loading(record: Record, files: list[str], shape: Iterable[int] | None) -> str:
    texts = []
    if "model.pt2" in files:
        inputs = f"  # of shape (B, {', '.join(map(str, shape))})" if shape is not None else "  # a batch"
        standardised = "subtract" in record.data.get("preparation", {})
        lines = [f"import {'json, ' * standardised}torch", 'model = torch.export.load("model.pt2").module()']
        if standardised:
            lines.append('made = json.load(open("preparation.json"))')
            lines.append(f"raw = ...{inputs}: {record.data['preparation']['inputs']}")
            lines.append('x = ((raw - torch.tensor(made["subtract"])) * torch.tensor(made["multiply"])).float()')
        else:
            lines.append(f"x = ...{inputs}, as the section Inputs says")
        names = ", ".join(record.data.get("classes") or ())
        lines.append(f"out = model(x){f'  # of classes {names}' if 0 < len(names) <= 50 else ''}")
        texts.append(f"With torch alone, in this folder:\n\n{_python(lines)}")
    lines = ["import tuner", 'best = tuner.load_best("PATH/OF/THIS/FOLDER")']
    lines.append("model, data = best.trained_module(), best.datamodule()")
    texts.append(f"With tuner, and the study's classes at hand:\n\n{_python(lines)}")
    return "\n\n".join(texts)


def _python(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _inputs(record: Record) -> str:
    made = record.data.get("preparation")
    owner = record.data.get("class_path", "the module's own data")
    rule = (
        f"The model takes rows **as the loaders of `{owner}` give them**, not raw data: what the data module does to "
        "raw values is not in the program."
    )
    if made is None:
        return f"{rule} That class has no `preparation()`, so this export cannot say what that is: look there."
    told = [f"{rule} Here: {made['inputs']}."]
    if "subtract" in made:
        told.append(
            "From each value `subtract` is subtracted and the rest multiplied by `multiply` (`preparation.json`): the "
            "training split's mean and 1 / deviation; 0 for what was constant there."
        )
    if "columns" in made:
        told.append(
            "`preparation.json` has them: a number is (value - `subtract`) × `multiply`, with `missing` for an empty "
            "cell; `one_hot` is one input for each category, all 0 for another."
        )
    if "vocabulary" in made:
        told.append("`preparation.json` has the vocabulary; number 0 stands for every other character.")
    return " ".join(told)


def _data(record: Record) -> str:
    data = record.data
    lines = [f"- class: `{data.get('class_path', 'the module has its own data')}`"]
    arguments = (record.best.config.get("data") or {}).get("init_args", {})
    lines += [f"- arguments: `{json.dumps(arguments)}`"] if arguments else []
    if sizes := data.get("sizes"):
        shares = ", ".join(f"{part} {size:,}" for part, size in sizes.items())
        lines.append(f"- split: {shares} samples, fixed by the data module's arguments above")
    if known := data.get("hash"):
        _, only_arguments, digest = known.rpartition("arguments:")
        of = "the data module's arguments (it has no `fingerprint()`)" if only_arguments else "data, split, preparation"
        lines.append(f"- hash of {of}: `{digest}`")
    return "\n".join(lines)


def _training(record: Record) -> str:
    best, cost = record.best, record.cost
    lines = [f"- seed of these weights: {best.config.get('seed_everything')}"]
    if best.seeds:
        lines.append(f"- confirming seeds: {', '.join(f'{seed} ({value:.6g})' for seed, value in best.seeds)}")
    if cost:
        trials = ", ".join(f"{count} {state}" for state, count in cost["trials"].items() if count)
        lines.append(
            f"- cost of the study: {cost['epochs']} epochs, {cost['seconds']:.0f} s of training, of them "
            f"{cost['wasted_seconds']:.0f} s in trials that came to nothing; trials: {trials}"
        )
    if record.space:
        lines += ["", "| searched | range | default | priority | best |", "|---|---|---|---|---|"]
        for path, parameter in record.space.items():
            found = best.params.get(path, "does not apply")
            told = f"{found:.6g}" if isinstance(found, float) else found
            lines.append(
                f"| {path} | {parameter['range']} | {parameter['default']} | {parameter['priority']} | {told} |"
            )
    return "\n".join(lines)


def _origin(record: Record) -> str:
    origin = record.origin
    lines = []
    if versions := origin.get("versions"):
        lines.append(f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    commit: Any = origin.get("git_commit")
    dirty = ", with uncommitted changes" if origin.get("git_dirty") else ""
    lines.append(f"- git commit: {commit or 'none (not started in a repository)'}{dirty if commit else ''}")
    if origin.get("platform"):
        lines.append(f"- platform: {origin['platform']}")
    return "\n".join(lines)
