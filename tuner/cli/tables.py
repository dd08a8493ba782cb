"""Tables and pages for the terminal; each takes nouns and returns something rich can print."""

from __future__ import annotations

import ast
import importlib.resources
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tuner.cli.leaders import LEADERS, Leaders
from tuner.report.words import duration, number, without_root
from tuner.space import Choice, Space, read_space
from tuner.space.yaml import read_yaml
from tuner.trial import Objective, Trial, TrialState

if TYPE_CHECKING:
    from tuner.best import Best, Chosen
    from tuner.insight import Importance
    from tuner.report import Comparison
    from tuner.service.result import StudyResult
    from tuner.storage import StudyRow, WorkerRow

LATEST = 10


def print_wide(renderable: Any) -> None:
    """Print on stdout; piped output is as wide as it needs to be, without colours."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(renderable)


def result_page(result: StudyResult) -> Group:
    """What a run ends with: how it went, the best config, where to look."""
    parts: list[Any] = [_headline(result)]
    if result.reason and result.state == "complete":
        parts.append(Text(result.reason, style="dim"))
    if not sum(result.trials.values()):
        parts.append(
            Text(f"The study is sound; nothing was trained. Begin with: tuner resume {result.study} --trials 100")
        )
        return Group(*parts)
    if result.best is None or result.chosen is None:
        parts.append(Text(f"No trial succeeded. {result.reason or ''} See: tuner show {result.study}", style="red"))
        return Group(*parts)
    parts.append(_best_line(result.best, result.chosen))
    values = Table.grid(padding=(0, 2))
    for path, value in result.best.params.items():
        values.add_row(f"  {path}", number(value))
    parts.append(values)
    where = Table.grid(padding=(0, 2))
    where.add_row("use it", f"tuner best {result.study} > best.yaml")
    where.add_row("look at it", f"tuner ui        (MLflow at {result.tracking_uri})")
    where.add_row("learn from it", f"tuner diagnose {result.study}")
    if not result.reason:
        where.add_row("go on", f"tuner resume {result.study} --trials {sum(result.trials.values()) * 2}")
    parts.append(where)
    return Group(*parts)


def studies_table(results: Sequence[StudyResult], rows: Sequence[StudyRow], workers: Sequence[WorkerRow]) -> Table:
    """One line a study; how they queue, if one of them does."""
    table = Table("study", "state", "complete", "pruned", "failed", "running", "best", "epochs", "training", box=None)
    service = any(row.submitted is not None for row in rows)
    for column in ("priority", "workers") if service else ():
        table.add_column(column)
    for result, row in zip(results, rows, strict=True):
        counts = [str(result.trials[state]) for state in ("complete", "pruned", "failed", "running")]
        best = "–" if result.chosen is None else f"{result.chosen.trial.score:.6g}"
        cost = [str(result.cost["epochs"]), duration(result.cost["seconds"])]
        queue = ["–" if row.submitted is None else str(row.priority), str(sum(w.study == row.name for w in workers))]
        table.add_row(result.study, result.state, *counts, best, *cost, *(queue if service else ()))
    return table


def study_page(row: StudyRow, result: StudyResult, trials: Sequence[Trial], workers: Sequence[WorkerRow] = ()) -> Group:
    """A study: how it stands, its leaders, and the trials that came to nothing."""
    from tuner.service.entry import space_changes, spec_of

    spec = spec_of(row)
    objective = spec.goal
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_at))
    parts: list[Any] = [
        _headline(result),
        Text(
            f"{objective.direction} {objective.metric}; seed {row.seed}; sampler {spec.sampler}; pruner {spec.pruner}; "
            f"begun {made}",
            style="dim",
        ),
    ]
    parts.append(Text(f"stated priorities: {_priorities(row.document['space'])}", style="dim"))
    parts += [Text(f"space changed {change}", style="dim") for change in space_changes(row)]
    if result.reason:
        parts.append(Text(result.reason, style="red" if result.state == "failed" else "dim"))
    parts += _service(row, workers)
    if result.best is not None and result.chosen is not None:
        parts.append(_best_line(result.best, result.chosen))
    from tuner.best import leading

    leaders = leading(trials, objective, LEADERS)
    if leaders:
        by = (
            ", by their own value; the best is chosen by its confirming runs"
            if result.chosen and result.chosen.seeds
            else ""
        )
        parts += [Text(f"\nLeaders{by}", style="bold"), Leaders(row.name, leaders, objective, row.document["space"])]
    parts += _taken_up(trials)
    bad = [t for t in trials if t.result is not None and (t.result.infeasible or t.state is TrialState.FAILED)]
    if bad:
        table = Table("trial", "state", "reason", box=None, header_style="bold")
        for trial in bad[-LATEST:]:
            table.add_row(str(trial.number), trial.state.value, trial.outcome.reason or "")
        parts += [Text(f"\nCame to nothing ({len(bad)})", style="bold"), table]
    return Group(*parts)


def _taken_up(trials: Sequence[Trial]) -> list[Text]:
    """The trials that went on where another attempt had left them, the latest ones by name."""
    told = [f"trial {t.number} after epoch {t.began_after} (attempt {t.attempt})" for t in trials if t.began_after]
    more = f" and {len(told) - LATEST} more" if len(told) > LATEST else ""
    return [Text(f"\nInterrupted, and gone on with: {', '.join(told[-LATEST:])}{more}", style="dim")] if told else []


def _service(row: StudyRow, workers: Sequence[WorkerRow]) -> list[Any]:
    """How a study stands in the queue, who works on it, and who cannot."""
    if row.submitted is None:
        return []
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.submitted))
    told = f"submitted {at}, priority {row.priority}"
    if (whence := row.facts.get("submitted")) is not None:
        told += f", from {whence['folder']} on {whence['machine']}"
    parts: list[Any] = [Text(told, style="dim")]
    here = [worker for worker in workers if worker.study == row.name]
    if here:
        table = Table("worker", "device", "threads", "since", "last seen", box=None, header_style="bold")
        for worker in here:
            table.add_row(*worker_cells(worker))
        parts += [Text("\nWorkers", style="bold"), table, Text("")]
    for worker in workers:
        if (why := worker.trouble or worker.refused.get(row.name)) is not None:
            who = f"{worker.machine}, {worker.device}, last seen {_ago(worker.silent)}"
            parts.append(Text(f"a worker ({who}) does not work on it: {why}", style="red"))
    return parts


def worker_cells(worker: WorkerRow) -> tuple[str, ...]:
    """A worker in a line: where, on what, with how many threads, since when, last seen."""
    pid = worker.owner.split("|")[1] if worker.owner.count("|") > 1 else worker.owner
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(worker.since))
    return f"{worker.machine}:{pid}", worker.device, str(worker.threads), since, _ago(worker.silent)


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def _priorities(space: dict[str, Any]) -> str:
    """The searched parameters in the order of their stated priorities, those of equal priority together."""
    ranks: dict[str, list[str]] = {}
    for path in sorted(space, key=lambda path: space[path].get("priority") or 99):
        ranks.setdefault(str(space[path].get("priority") or "last"), []).append(without_root(path))
    return "; ".join(f"{rank} {', '.join(names)}" for rank, names in ranks.items())


def importance_part(row: StudyRow, trials: Sequence[Trial]) -> Group:
    """What comes after a study's page, since it is measured first."""
    return Group(*_importance(row.document["space"], row.objective, trials))


def _importance(space: dict[str, Any], objective: Objective, trials: Sequence[Trial]) -> list[Any]:
    """The stated priorities beside the measured importance, or why there is nothing to measure yet."""
    from tuner.insight import importance

    read, _ = read_space(space)
    if read is None or not read.parameters or not trials:
        return []
    found = importance(read, objective, trials)
    if found.reason is not None:
        return [Text(f"\nImportance is not measured: {found.reason}.", style="dim")]
    agreements = (("PED-ANOVA", found.agreement_ped_anova), ("fANOVA", found.agreement_fanova))
    told = ", ".join(f"{method} {value:.2f}" for method, value in agreements if value is not None)
    parts: list[Any] = [Text("\nStated priority beside measured importance", style="bold"), importance_table(found)]
    if told:
        parts.append(Text(f"rank correlation with the stated order: {told} (1 the same order, -1 the reverse)"))
    parts += [Text(sentence) for sentence in found.sentences]
    kinds = ((found.complete, "complete"), (found.pruned, "pruned, with what would have become of them"))
    counts = [f"{count} {kind}" for count, kind in (*kinds, (found.infeasible, "infeasible, as the worst")) if count]
    if found.left_out:
        counts.append(f"left out: {found.left_out} that failed or lie outside the space as it is now")
    bias = "A search looks most where it expects the best, so this is the importance among the trials it made."
    parts.append(Text(f"from {found.trials} trials: {'; '.join(counts)}. {bias}", style="dim"))
    return parts


def importance_table(found: Importance) -> Table:
    """One line a parameter, in the stated order."""
    table = Table(box=None, header_style="bold")
    for column in ("priority", "parameter", "PED-ANOVA", "fANOVA", ""):
        table.add_column(column, justify="right" if column in ("priority", "PED-ANOVA", "fANOVA") else "left")
    for p in found.parameters:
        by_ped_anova = "–" if p.ped_anova is None else f"{p.ped_anova:.0%}"
        by_fanova = "–" if p.fanova is None else f"{p.fanova:.0%}"
        note = p.reason or ("beyond chance" if p.beyond_chance else "")
        table.add_row("–" if p.priority is None else str(p.priority), p.name, by_ped_anova, by_fanova, note)
    return table


def comparison_page(comparison: Comparison) -> Group:
    """Studies side by side: best against cost, then their best configurations."""
    from tuner.report.answer import value

    metric = comparison.records[0].objective.metric
    after = [f"after {duration(seconds)}" for seconds in comparison.checkpoints]
    table = Table(box=None, header_style="bold")
    for column in ("study", f"best {metric}", "trials", "epochs", "training", *after):
        table.add_column(column, justify="left" if column == "study" else "right")
    for record, reached in zip(comparison.records, comparison.best_after, strict=True):
        values = ["–" if at is None else number(at) for at in reached]
        cost = (str(len(record.proposals)), str(record.epochs), duration(record.seconds))
        table.add_row(Text(record.name), value(record), *cost, *values)
    best = Table(box=None, header_style="bold")
    best.add_column("best config")
    for record in comparison.records:
        best.add_column(Text(record.name), justify="right", overflow="fold")
    params = [dict(r.chosen.trial.params or {}) if r.chosen is not None else {} for r in comparison.records]
    for path in dict.fromkeys(path for record in comparison.records for path, _ in record.ranked):
        if any(path in one for one in params):
            best.add_row(Text(without_root(path)), *(Text(number(one[path]) if path in one else "–") for one in params))
    return Group(Text(comparison.verdict, style="bold"), Text(""), table, Text(""), best)


def space_table(name: str, space: Space) -> Table:
    """A space, in the order of its priorities."""
    table = Table(title=f"space {name}", title_justify="left", box=None, header_style="bold", padding=(0, 1))
    for column in ("priority", "parameter", "range", "default", "what, and why"):
        table.add_column(column, overflow="fold")
    ranked = sorted(space.parameters.items(), key=lambda item: item[1].priority or 99)
    for path, parameter in ranked:
        values = parameter.range
        if isinstance(values, Choice):
            told = ", ".join(map(str, values.values))
        else:
            told = f"{values.low:g} … {values.high:g}" + ("" if values.scale == "linear" else f" ({values.scale})")
        if parameter.when:
            told += "\nwhen " + " and ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in parameter.when.items())
        why = f"{parameter.what}\n{parameter.why}" if parameter.why else parameter.what
        default = number(parameter.default)
        for words in parameter.default_when.values():
            default += "".join(f"\n{word} {number(value)}" for word, value in words.items())
        table.add_row(str(parameter.priority or "–"), path, told, default, why)
    return table


def models_table() -> Table:
    """The models, read from their source so that torch need not be imported."""
    files = [e for e in importlib.resources.files("tuner.models").iterdir() if e.name.endswith(".py")]
    classes = [n for e in files for n in ast.parse(e.read_text("utf-8")).body if isinstance(n, ast.ClassDef)]
    abstract = {node.name for node in classes if _is_abstract(node)}
    models = [
        n for n in classes if n.name not in abstract and {b.id for b in n.bases if isinstance(b, ast.Name)} & abstract
    ]
    arguments = {node.name: _arguments(node) for node in models}
    shared = [name for name in next(iter(arguments.values())) if all(name in others for others in arguments.values())]
    caption = f"All of them also take: {', '.join(shared)}."
    table = Table("class_path", "what", "arguments", box=None, header_style="bold", caption=caption)
    table.caption_justify = "left"
    for node in sorted(models, key=lambda node: node.name):
        own = ", ".join(name for name in arguments[node.name] if name not in shared)
        table.add_row(f"tuner.models.{node.name}", (ast.get_docstring(node) or "").split("\n")[0], own)
    return table


def examples_table() -> Table:
    """The shipped studies."""
    from tuner.spec import example_names

    table = Table("name", "what", "trials", box=None, header_style="bold")
    for name in example_names():
        text = importlib.resources.files("tuner.examples").joinpath(f"{name}.yaml").read_text("utf-8")
        document, _ = read_yaml(text)
        first = text.splitlines()[0].lstrip("# ")
        table.add_row(name, first, str(document.get("search", {}).get("trials", 100)))
    return table


def _headline(result: StudyResult) -> Text:
    counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count) or "no trials"
    text = Text(result.study, style="bold")
    text.append(f": {result.state}, {counts}", style="not bold")
    cost = f"; {result.cost['epochs']} epochs in {duration(result.cost['seconds'])} of training"
    wasted = result.cost["wasted_seconds"]
    text.append(cost + (f", {duration(wasted)} of them for nothing" if wasted >= 1 else ""), style="not bold dim")
    return text


def _best_line(best: Best, chosen: Chosen) -> Text:
    validated = {name: value for name, value in best.metrics.items() if name.startswith("val_") or best.is_function}
    others = [f"{name} {value:.4g}" for name, value in validated.items()]
    text = Text("best: ", style="bold green")
    text.append(chosen.in_words, style="bold green")
    text.append(f"\n      its own run: {', '.join(others)}", style="not bold default")
    return text


def _is_abstract(node: ast.ClassDef) -> bool:
    return any(
        isinstance(item, ast.FunctionDef) and any(getattr(d, "id", "") == "abstractmethod" for d in item.decorator_list)
        for item in node.body
    )


def _arguments(node: ast.ClassDef) -> list[str]:
    """The arguments of a class's `__init__`, in their order."""
    init = next((i for i in node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__"), None)
    return [argument.arg for argument in [*init.args.args[1:], *init.args.kwonlyargs]] if init else []
