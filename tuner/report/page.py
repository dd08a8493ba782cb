"""The page of a study: the answer, the pictures, the table of trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tuner.report import answer
from tuner.report.course import spent
from tuner.report.document import document, picture, table
from tuner.report.figure import Figure
from tuner.report.markup import Markup, element, joined, with_code
from tuner.report.pictures import pictures
from tuner.report.record import StudyRecord, heading
from tuner.report.scale import place
from tuner.report.slices import slices
from tuner.report.words import duration, number
from tuner.trial import Trial, TrialState

ROWS = 500
"""At most so many trials stand in the table, the best ones."""


def study_page(record: StudyRecord) -> str:
    """The report of one study as HTML."""
    figures, by_parameter = pictures(record), slices(record)
    main = [
        _answer(record),
        _pictures(figures),
        _slices(by_parameter),
        _trials(record),
    ]
    lead = joined(
        element("p", f"{record.state} · {answer.goal(record)} · ", _model(record), class_="lead"),
    )
    return document(record.name, lead, joined(*main), [*figures, *by_parameter], _origin(record))


def _answer(record: StudyRecord) -> Markup:
    """The best, what it cost, how to use it, and what to try next."""
    parts = [
        element("h2", "The answer", id="answer"),
        element(
            "p",
            element("span", record.objective.metric, class_="metric"),
            element("strong", answer.value(record), class_="value"),
            class_="headline",
        ),
        element("p", answer.provenance(record)),
        element("p", element("b", "Cost. "), answer.cost(record)),
    ]
    if record.reason and record.chosen is not None:
        parts.append(element("p", record.reason))
    if record.chosen is not None:
        parts.append(_best_config(record, record.chosen.trial))
    if taught := answer.taught(record):
        parts.append(element("h3", "What it taught"))
        parts.append(element("p", taught[0]))
        if taught[1:]:
            parts.append(element("ul", *(element("li", with_code(sentence)) for sentence in taught[1:])))
    advice = element("ul", *(element("li", with_code(step)) for step in answer.steps(record)))
    parts += [element("h3", "What to try next"), advice]
    if record.chosen is not None:
        code = element(
            "pre", element("code", answer.loading(record)), tabindex="0", aria_label="Python that loads the best"
        )
        parts += [element("h3", "Load it"), code]
    return element("section", *parts, aria_labelledby="answer")


def _best_config(record: StudyRecord, best: Trial) -> Markup:
    """The values of the best, and where they lie in their ranges."""
    params = best.params or {}
    rows = []
    for path, parameter in record.ranked:
        if path in params:
            at = place(parameter, params[path])
            meter = None
            if at is not None:
                meter = element(
                    "span",
                    element("i", style=f"left:{100 * min(max(at, 0), 1):.0f}%"),
                    class_="range",
                    aria_hidden="true",
                )
            told = params[path] == parameter.default
            rows.append(
                (
                    element("code", path),
                    number(params[path]),
                    element("td", meter, class_="wide"),
                    "as the default" if told else f"default {number(parameter.default)}",
                    "–" if parameter.priority is None else parameter.priority,
                )
            )
    others = {n: v for n, v in best.outcome.metrics.items() if n != record.objective.metric}
    told = ", ".join(f"{name} {number(v)}" for name, v in others.items() if "/" not in name)
    more = element("p", f"In its own run: {told}.") if told else None
    head = ("hyperparameter", "best", "in its range", "", "priority")
    return joined(element("h3", "Best config"), table(head, rows, "The best configuration", class_="config"), more)


def _pictures(figures: Sequence[Figure]) -> Markup | None:
    if not figures:
        return None
    inside = element("div", *(picture(figure) for figure in figures), class_="pictures")
    return element("section", element("h2", "In pictures", id="pictures"), inside, aria_labelledby="pictures")


def _slices(figures: Sequence[Figure]) -> Markup | None:
    if not figures:
        return None
    inside = element("div", *(picture(figure) for figure in figures), class_="slices")
    told = element(
        "p",
        "In the order of the stated priorities, each on its own scale. A star is the best trial, a dotted line the "
        "default.",
    )
    return element("section", element("h2", "One by one", id="slices"), told, inside, aria_labelledby="slices")


def _trials(record: StudyRecord) -> Markup | None:
    """The table of trials, the best first; a click on a heading sorts it."""
    if not record.trials:
        return None
    objective = record.objective
    searched = [(p, parameter) for p, parameter in record.ranked if _varies(record, p)]
    ordered = sorted(record.trials, key=lambda t: _order(t, record))
    shown = ordered[:ROWS]
    names = (
        "trial",
        objective.metric,
        "state",
        "best epoch",
        "epochs",
        "time",
        *(heading(*item) for item in searched),
        "how it ended",
    )
    head = [element("th", element("button", name, type="button"), scope="col", aria_sort="none") for name in names]
    rows = []
    for trial in shown:
        result, params = trial.result, trial.params or {}
        kind = trial.state.value if trial.confirms is None else f"{trial.state.value}, confirms {trial.confirms}"
        best = record.chosen is not None and trial.number == record.chosen.trial.number
        rows.append(
            [
                joined(trial.number, element("span", " best", class_="chip") if best else None),
                _sortable(number(trial.score) if trial.value is not None else "–", trial.value),
                element("td", kind, class_=f"state {trial.state.value}"),
                _sortable(*((result.best_epoch or "–", result.best_epoch) if result else ("–", None))),
                _sortable(*((result.epochs, result.epochs) if result else ("–", None))),
                _sortable(duration(spent(trial)), round(spent(trial), 1)) if result else _sortable("–", None),
                *(_value(params, path) for path, _ in searched),
                element("td", (result.reason or "") if result else "", class_="reason"),
            ]
        )
    told = (
        "All trials, the best first"
        if len(shown) == len(ordered)
        else f"The best {len(shown)} of {len(ordered):,} trials"
    )
    return element(
        "section",
        element("h2", "Trials", id="trials"),
        table(head, rows, f"{told}; a heading's button sorts by it", class_="trials"),
        aria_labelledby="trials",
    )


def _value(params: Any, path: str) -> Markup:
    value = params.get(path)
    if path not in params:
        return element("td", element("span", "–", title="does not apply"))
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return _sortable(number(value), value if plain else None)


def _sortable(text: Any, value: float | None) -> Markup:
    """A cell with a number to sort by, where its text is none."""
    plain = value is not None and str(text) == str(value)
    return element("td", text, data_sort=None if value is None or plain else f"{value:.6g}")


def _varies(record: StudyRecord, path: str) -> bool:
    return len({repr((t.params or {}).get(path)) for t in record.proposals}) > 1


def _order(trial: Trial, record: StudyRecord) -> tuple[bool, bool, float, int]:
    """Complete ones before others, by value, then by number."""
    worst = trial.value is None
    return (
        trial.state is not TrialState.COMPLETE,
        worst,
        0.0 if worst else record.objective.key(trial.score),
        trial.number,
    )


def _model(record: StudyRecord) -> str:
    names = [str((record.document.get(part) or {}).get("class_path") or "") for part in ("model", "data")]
    return " on ".join(name for name in names if name)


def _origin(record: StudyRecord) -> Markup:
    """Where the numbers come from: seed, versions, commit, hash of the data."""
    facts = record.facts
    versions = ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
    told = {
        "begun": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.created_at)) if record.created_at else None,
        "seed": record.document.get("seed_everything"),
        "data": facts.get("data_hash"),
        "commit": facts.get("git_commit"),
        "platform": facts.get("platform"),
        "versions": versions or None,
    }
    rows = [joined(element("dt", key), element("dd", value)) for key, value in told.items() if value is not None]
    return joined(element("p", "Made by tuner from what the study's storage holds."), element("dl", *rows))
