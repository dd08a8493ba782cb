"""The answer of a study in words: the best, its value, what it cost, what to try next, how to use it."""

from __future__ import annotations

import html
import re

from tuner.report.record import StudyRecord
from tuner.report.words import counted, duration, number
from tuner.trial import Trial, TrialState


def goal(record: StudyRecord) -> str:
    """What was asked: `minimize val_loss`."""
    return f"{record.objective.direction} {record.objective.metric}"


def value(record: StudyRecord) -> str:
    """The value to expect of the best: with confirming seeds their mean and spread, else what its own run reached."""
    if record.chosen is None:
        return "–"
    return record.chosen.confirmed.partition(" over ")[0] or number(record.chosen.trial.score)


def provenance(record: StudyRecord) -> str:
    """How the value was come by."""
    chosen = record.chosen
    if chosen is None:
        return record.reason or "No trial has succeeded."
    own = f"trial {chosen.trial.number}"
    if chosen.mean is None:
        return f"{record.objective.metric} of {own}, with one seed: partly luck."
    told = f"{record.objective.metric} of {own} over {counted(len(chosen.seeds), 'new seed')}"
    told += f"; {number(chosen.trial.score)} with its own."
    if chosen.second is not None and chosen.told_apart is False:
        told += f" It cannot be told from trial {chosen.second.number}, the second."
    elif chosen.second is not None and chosen.told_apart:
        told += f" It is better than the second, trial {chosen.second.number}, by more than chance (5 %)."
    return told


def cost(record: StudyRecord) -> str:
    """What it cost: trials, epochs, seconds of training, and how much of them for nothing."""
    counts = [(record.count(state), state.value) for state in TrialState if state is not TrialState.WAITING]
    told = ", ".join(f"{count} {state}" for count, state in counts if count) or "none yet"
    wasted = f", {duration(record.wasted_seconds)} of it for nothing" if record.wasted_seconds >= 1 else ""
    confirming = sum(trial.confirms is not None for trial in record.trials)
    more = f" and {counted(confirming, 'confirming run')}" if confirming else ""
    return (
        f"{counted(len(record.proposals), 'trial')} ({told}){more}: {counted(record.epochs, 'epoch')} in "
        f"{duration(record.seconds)} of training{wasted}."
    )


def loading(record: StudyRecord) -> str:
    """Three lines of Python that load the best."""
    return (
        "import tuner\n"
        f"best = tuner.load_best({record.name!r})  # with the same TUNER_HOME or TUNER_STORAGE\n"
        "model = best.trained_module()  # the weights of its best epoch; best.module() is a fresh one"
    )


def steps(record: StudyRecord) -> list[str]:
    """What to try next, in words."""
    advice = record.diagnosis.advice if record.diagnosis is not None else ()
    return [*(f"`{a.hyperparameter}`: {a.change}; {a.reason}." for a in advice), *_usual_steps(record)]


def taught(record: StudyRecord) -> list[str]:
    """What the study taught, a sentence each: what limits it, by which numbers, and what else is worth knowing."""
    found = record.diagnosis
    if found is None:
        return []
    more = [says for says in (e.says for e in found.evidence) if says[1:].rstrip(".") not in found.headline]
    earlier = [f"This is the diagnosis{_earlier(record)}."] if _earlier(record) else []
    return [found.headline, *earlier, *more, *found.warnings]


def ended(trial: Trial) -> str:
    """In a line, what a trial was and how it ended."""
    was = (
        f"repeats trial {trial.confirms} with a new seed" if trial.confirms is not None else "a proposal of the search"
    )
    if trial.result is None:
        return f"{was}; {trial.state.value}"
    told = trial.state.value
    if trial.result.infeasible:
        told = "came to nothing"
    if trial.value is not None:
        told += f" with {number(trial.score)}"
        told += f" at epoch {trial.outcome.best_epoch}" if trial.outcome.best_epoch else ""
    told += f" after {counted(trial.outcome.epochs, 'epoch')}"
    return f"{was}; {told}" + (f": {trial.outcome.reason}" if trial.outcome.reason else "")


def note(record: StudyRecord) -> str:
    """The description of the study's run in MLflow, in Markdown: the answer first."""
    lines = [f"**{_quoted(record.name)}** ({record.state}): {record.objective.direction} `{record.objective.metric}`"]
    if record.chosen is None:
        return "\n\n".join(
            [*lines, f"No trial has succeeded yet. {_quoted(record.reason or '')}", f"Cost: {cost(record)}"]
        )
    lines.append(f"## {value(record)}")
    lines.append(_quoted(provenance(record)))
    rows = "\n".join(f"| `{name}` | {_as_text(number(v))} |" for name, v in (record.chosen.trial.params or {}).items())
    lines.append(f"| hyperparameter | best |\n|---|---|\n{rows}")
    lines.append(f"**Cost.** {cost(record)}")
    if record.diagnosis is not None:
        lines.append(f"**Diagnosis{_earlier(record)}.** {_quoted(record.diagnosis.headline)}")
    lines.append("**Next.**\n\n" + "\n".join(f"- {_quoted(step)}" for step in steps(record)))
    lines.append(f"**Load it.**\n\n```python\n{loading(record)}\n```")
    lines.append(
        "Artifacts: `report.html` shows the study in pictures, `best.yaml` is the complete configuration, `study.yaml` "
        "and `space.yaml` what was asked."
    )
    return "\n\n".join(lines)


def _earlier(record: StudyRecord) -> str:
    """When the study was diagnosed, if trials have ended since."""
    if record.diagnosed is None or record.diagnosed == record.ended:
        return ""
    return f" after {counted(record.diagnosed, 'trial')}"


def _usual_steps(record: StudyRecord) -> list[str]:
    """What one does with any study in this state."""
    tried = len(record.proposals)
    if record.chosen is None:
        return [f"Read why trials came to nothing: `tuner show {record.name}`."]
    if record.state != "complete":
        return [f"Let it go on: `tuner resume {record.name}`."]
    told = []
    if record.chosen.mean is None:
        told.append("Confirm the best with new seeds: `search.confirm: 3` in the study file.")
    told.append(f"Search on: `tuner resume {record.name} --trials {2 * tried}`.")
    told.append(f"Use it: `tuner best {record.name} > best.yaml`, or `tuner export {record.name} --to DIR`.")
    return told


def _quoted(text: str) -> str:
    """A text in Markdown: `code` stays code, all else is text as it stands, not markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text.replace("`", "'")]
    return "`".join(part if index % 2 else _as_text(part) for index, part in enumerate(parts))


def _as_text(text: str) -> str:
    return re.sub(r"([\\|*_\[\]#])", r"\\\1", html.escape(text, quote=False))
