"""Several studies of one objective side by side: the best of each against what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.best import Chosen
from tuner.errors import Problem
from tuner.report import answer
from tuner.report.course import Moment, best_at, course
from tuner.report.document import document, picture, table
from tuner.report.figure import Figure, axis, label, rounded, value_axis
from tuner.report.markup import element, joined
from tuner.report.record import StudyRecord
from tuner.report.words import duration, number, unit_of_time, without_root
from tuner.trial import TrialState

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
"""Where the studies are read: at these parts of what the cheapest of them cost."""

COLOURS = ("@best", "@second", "@confirm", "@lost", "@complete", "@failed", "@pruned")


@dataclass(frozen=True)
class Comparison:
    """Studies of one objective.

    Attributes:
        records: the studies, in the order they were asked for.
        courses: of each, the moments at which its trials ended.
        checkpoints: seconds of training at which all of them are read.
    """

    records: Sequence[StudyRecord]
    courses: Sequence[Sequence[Moment]]
    checkpoints: Sequence[float]

    @property
    def best_after(self) -> list[list[float | None]]:
        """By study, the best value at each checkpoint."""
        return [[best_at(course, seconds) for seconds in self.checkpoints] for course in self.courses]

    @property
    def ranked(self) -> list[tuple[StudyRecord, Chosen]]:
        """Those that have a best, the best first: by the mean over confirming seeds where there are some."""
        found = [(record, record.chosen) for record in self.records if record.chosen is not None]
        return sorted(found, key=lambda pair: pair[0].objective.key(_expected(pair[1])))

    @property
    def verdict(self) -> str:
        """In a sentence, which study found the better configuration, and whether that is more than chance."""
        ranked = self.ranked
        if len(ranked) < 2:
            return "At least two of the studies need a best to be compared."
        (first, one), (second, other) = ranked[:2]
        told = f"{first.name} is ahead of {second.name}: {answer.value(first)} against {answer.value(second)}"
        apart = Chosen(one.trial, one.seeds, other.trial, other.seeds).told_apart
        if apart is None:
            return f"{told}; with too few confirming seeds to tell them apart."
        return f"{told}; " + ("more than chance (5 %)." if apart else "their confirming seeds cannot tell them apart.")

    def to_json(self) -> dict[str, Any]:
        """As `tuner compare --json` prints it."""
        objective = self.records[0].objective
        return {
            "objective": {"metric": objective.metric, "direction": objective.direction},
            "verdict": self.verdict,
            "studies": [self._study(index) for index in range(len(self.records))],
        }

    def _study(self, index: int) -> dict[str, Any]:
        record, moments = self.records[index], self.courses[index]
        best = None
        if (chosen := record.chosen) is not None:
            best = {
                "trial": chosen.trial.number,
                "value": chosen.trial.score,
                "mean": chosen.mean,
                "deviation": chosen.deviation,
                "params": dict(chosen.trial.params or {}),
                "seeds": [{"seed": seed, "value": value} for seed, value in chosen.seeds],
            }
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING)
        pairs = zip(self.checkpoints, self.best_after[index], strict=True)
        return {
            "study": record.name,
            "state": record.state,
            "trials": {state.value: record.count(state) for state in states},
            "best": best,
            "cost": {
                "epochs": record.epochs,
                "seconds": round(record.seconds, 3),
                "wasted_seconds": round(record.wasted_seconds, 3),
            },
            "best_after": [{"seconds": round(seconds, 3), "value": value} for seconds, value in pairs],
            "course": [
                {"seconds": round(m.seconds, 3), "epochs": m.epochs, "best": m.best} for m in moments if m.improved
            ],
        }


def compare(records: Sequence[StudyRecord]) -> Comparison:
    """Put studies side by side; `problems` says beforehand whether they can be."""
    courses = [course(record.trials, record.objective) for record in records]
    common = min((moments[-1].seconds for moments in courses if moments), default=0.0)
    return Comparison(records, courses, [common * part for part in FRACTIONS] if common else [])


def problems(records: Sequence[StudyRecord]) -> list[Problem]:
    """Why these studies cannot be compared."""
    found = []
    if len(records) < 2:
        found.append(Problem("NAME", f"it takes two studies or more, but got {len(records)}. `tuner list` has them."))
    wanted = answer.goal(records[0])
    rule = f"must have the objective of the first, {wanted}, but has: {{}}. Leave it out."
    others = [record for record in records[1:] if answer.goal(record) != wanted]
    found += [Problem(record.name, rule.format(answer.goal(record))) for record in others]
    return found


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one self-contained page."""
    names = [record.name for record in comparison.records]
    figures = [figure for figure in (against_cost(comparison),) if figure is not None]
    main = [
        element(
            "section",
            element("h2", "The answer", id="answer"),
            element("p", comparison.verdict),
            _summary(comparison),
            aria_labelledby="answer",
        )
    ]
    if figures:
        drawn = [picture(figure) for figure in figures]
        main.append(element("section", element("h2", "In pictures", id="pictures"), *drawn, aria_labelledby="pictures"))
    main.append(_configs(comparison))
    lead = element("p", answer.goal(comparison.records[0]), class_="lead")
    origin = element("p", "Made by tuner from what the studies' storage holds.")
    return document(" and ".join(names), lead, joined(*main), figures, origin)


def against_cost(comparison: Comparison) -> Figure | None:
    """The best so far of every study, over the training time that it had spent."""
    total = max((moments[-1].seconds for moments in comparison.courses if moments), default=0.0)
    unit, name = unit_of_time(total)
    objective = comparison.records[0].objective
    data: list[dict[str, Any]] = []
    for index, (record, moments) in enumerate(zip(comparison.records, comparison.courses, strict=True)):
        steps = [m for m in moments if m.best is not None and (m.improved or m is moments[-1])]
        if steps:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": label(record.name),
                    "x": [rounded(m.seconds / unit) for m in steps],
                    "y": [rounded(m.best or 0.0) for m in steps],
                    "customdata": [m.epochs for m in steps],
                    "line": {
                        "shape": "hv",
                        "width": 2.5,
                        "color": COLOURS[index % len(COLOURS)],
                        "dash": ("solid", "dash", "dot", "dashdot")[index % 4],
                    },
                    "hovertemplate": f"{label(record.name)}: %{{y}} after %{{x}} {name}, %{{customdata}} epochs"
                    "<extra></extra>",
                }
            )
    if not data:
        return None
    every = [m.best for moments in comparison.courses for m in moments if m.best is not None]
    layout = {"xaxis": axis(f"training time, {name}", rangemode="tozero"), "yaxis": value_axis(every, objective)}
    says = f"The best {objective.metric} so far of each study, by its own runs, over the training time it had spent."
    return Figure("against-cost", "Best against cost", says, data, layout, 440)


def _summary(comparison: Comparison) -> Any:
    after = [f"after {duration(seconds)}" for seconds in comparison.checkpoints]
    rows = []
    for record, reached in zip(comparison.records, comparison.best_after, strict=True):
        values = ["–" if value is None else number(value) for value in reached]
        cost = [len(record.proposals), record.epochs, duration(record.seconds)]
        rows.append([record.name, answer.value(record), *cost, *values])
    head = ("study", f"best {comparison.records[0].objective.metric}", "trials", "epochs", "training", *after)
    return table(head, rows, "Best against cost; the last columns are the best of a study's own runs by then")


def _configs(comparison: Comparison) -> Any:
    """The best configurations side by side."""
    params = [dict(r.chosen.trial.params or {}) if r.chosen is not None else {} for r in comparison.records]
    paths = list(dict.fromkeys(path for record in comparison.records for path, _ in record.ranked))
    rows = [
        [element("code", without_root(path)), *(number(values[path]) if path in values else "–" for values in params)]
        for path in paths
        if any(path in values for values in params)
    ]
    told = table(
        ("hyperparameter", *(r.name for r in comparison.records)), rows, "The best configuration of each study"
    )
    return element("section", element("h2", "Best configs", id="configs"), told, aria_labelledby="configs")


def _expected(chosen: Chosen) -> float:
    return chosen.trial.score if chosen.mean is None else chosen.mean
