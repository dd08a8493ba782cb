"""The report of a study on made-up trials: pictures as plain data, the page around them, studies side by side."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

import tuner.report
from tuner.best import choose
from tuner.cli.app import app
from tuner.errors import SpecError, StudyNotFound
from tuner.home import Home
from tuner.insight import Advice, Diagnosis, Evidence, importance
from tuner.report import StudyRecord, compare, comparison_page, ended, note, problems, study_page
from tuner.report.answer import steps, taught
from tuner.report.comparison import against_cost
from tuner.report.course import best_at, course
from tuner.report.figure import ROLES, Figure, log_axis, value_axis
from tuner.report.markup import data, element, joined, with_code
from tuner.report.pictures import pictures
from tuner.report.scale import place, ticks
from tuner.report.slices import slices
from tuner.service.entry import enter, open_storage
from tuner.space import Parameter, Space, read_space
from tuner.spec import read_study
from tuner.trial import Objective, Report, Trial, TrialResult, TrialState

LOSS = Objective("val_loss")
EVIL = "</script><script>alert(1)</script><b>&"
SPACE: dict[str, Any] = {
    "model.momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement", "default": 0.9}, "priority": 4},
    "model.learning_rate": {"float": {"low": 1e-4, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1},
    "model.hidden_units": {"int": {"low": 16, "high": 512, "scale": "log", "default": 64}, "priority": 3},
    "model.norm": {"choice": ["none", "batch", EVIL], "priority": 8},
    "model.eps": {"float": {"low": 1e-9, "high": 1e-3, "scale": "log"}, "when": {"model.norm": ["batch"]}},
}


def space_of(document: dict[str, Any]) -> Space:
    space, found = read_space(document)
    assert space is not None, found
    return space


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE, **more: Any) -> Trial:
    """A finished trial of 10 s and 5 epochs, or of 2 s and one epoch when it was pruned."""
    epochs = 5 if state is TrialState.COMPLETE else 1
    values = {epoch: (value or 1.0) * (1 + 1 / epoch) for epoch in range(1, epochs)} | {epochs: value or 9.9}
    result = TrialResult(
        state,
        value=value,
        metrics={} if value is None else {"val_loss": value, "val_acc": 1 - value / 10},
        best_epoch=epochs,
        epochs=epochs,
        seconds={"train": 2.0 * epochs},
        reason=more.pop("reason", None),
        infeasible=more.pop("infeasible", False),
    )
    params = more.pop("params", {"model.learning_rate": 0.1 / (number + 1), "model.momentum": 0.9, "model.norm": EVIL})
    return Trial(number, params, seed=number, state=state, values=values, result=result, finished=float(number), **more)


def made_up(count: int = 30, seed: int = 0) -> list[Trial]:
    """Trials of random configurations, every third pruned, and one that diverged."""
    draw, space = random.Random(seed), space_of(SPACE)  # noqa: S311
    trials = []
    for number in range(count):
        params: dict[str, Any] = {}
        for path, parameter in space.parameters.items():
            if space.active(path, params):
                values = parameter.range
                params[path] = draw.choice(values.listed) if parameter.choice else values.from_unit(draw.random())
        state = TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE
        trials.append(trial(number, draw.lognormvariate(-1, 1), state, params=params))
    worse = trial(count, None, TrialState.PRUNED, infeasible=True, reason=f"diverged {EVIL}", params=trials[0].params)
    return [*trials, worse]


def record_of(trials: list[Trial], name: str = "made-up", **more: Any) -> StudyRecord:
    space = space_of(SPACE)
    chosen = choose(trials, LOSS)
    return StudyRecord(
        name=name,
        state="complete",
        objective=LOSS,
        space=space,
        trials=trials,
        chosen=chosen,
        importance=importance(space, LOSS, trials),
        epochs=sum(t.outcome.epochs for t in trials if t.result),
        seconds=sum(t.train_seconds for t in trials),
        document={"model": {"class_path": f"a.{EVIL}"}, "data": None, "seed_everything": 3},
        facts={"versions": {"torch": EVIL}},
        **more,
    )


def confirmed(trials: list[Trial], *values: float) -> list[Trial]:
    """The same trials, the best of them repeated with new seeds."""
    chosen = choose(trials, LOSS)
    assert chosen is not None
    return trials + [trial(len(trials) + i, v, confirms=chosen.trial.number) for i, v in enumerate(values)]


def logged() -> dict[int, list[Report]]:
    """Epochs of a network of twelve layers whose gradients vanish towards the first."""
    norms = {f"grad_norm/net.{layer}": 10.0 ** (layer - 12) for layer in (10, 2, 0, 12)}
    metrics = [{"train_loss": 1 / epoch, "val_loss": 1.1 / epoch, **norms} for epoch in (1, 2, 3)]
    return {number: [Report(e, m, 1.0) for e, m in enumerate(metrics, 1)] for number in range(99)}


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    trials = confirmed(made_up(), 0.02, 0.03, 0.025)
    return record_of(trials, name=EVIL, curves=logged())


def painted(value: Any) -> Any:
    """The same with every role as a colour, as the page's script has it."""
    if isinstance(value, str) and value.startswith("@"):
        assert value in (*ROLES, "@ink", "@veil"), value
        return "#123456"
    if isinstance(value, dict):
        return {key: painted(inner) for key, inner in value.items()}
    return [painted(inner) for inner in value] if isinstance(value, list) else value


def by_key(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.key: figure for figure in figures}


def trace(figure: Figure, name: str) -> dict[str, Any]:
    return dict(next(one for one in figure.data if one["name"] == name))


# Pictures


def test_plotly_accepts_every_picture(record: StudyRecord) -> None:
    figures = [*pictures(record), *slices(record), against_cost(compare([record, record]))]
    assert len(figures) == 7 + 5 + 1
    for figure in figures:
        assert figure is not None
        told = figure.to_json()
        go.Figure(painted(told["data"]), painted(told["layout"]))
        assert figure.title
        assert len(figure.says) > 20
    assert len({figure.key for figure in figures if figure}) == len(figures)


def test_the_history_is_the_best_so_far_over_the_training_time() -> None:
    values = [(0.5, TrialState.COMPLETE), (0.1, TrialState.PRUNED), (0.25, TrialState.COMPLETE)]
    trials = [trial(n, value, state) for n, (value, state) in enumerate([*values, (0.4, TrialState.COMPLETE)])]
    found = by_key(pictures(record_of(confirmed(trials, 0.3))))["history"]
    best = trace(found, "best so far")
    assert (best["x"], best["y"], best["line"]["shape"]) == ([10.0, 22.0, 42.0], [0.5, 0.25, 0.25], "hv")
    assert trace(found, "pruned")["y"] == [0.1]
    assert trace(found, "confirming")["y"] == [0.3]
    assert "from 0.5 after 10 s of training to 0.25 after 22 s, in 2 steps; 42 s were spent" in found.says


def test_what_attempts_lost_is_part_of_the_cost() -> None:
    moments = course([replace(trial(0, 0.5), wasted_seconds=7.0), trial(1, 0.6)], LOSS)
    assert [(m.seconds, m.epochs, m.best, m.improved) for m in moments] == [(17, 5, 0.5, True), (27, 10, 0.5, False)]
    assert [best_at(moments, seconds) for seconds in (16.9, 17.0, 100)] == [None, 0.5, 0.5]


def test_learning_curves_fade_what_was_pruned_and_hold_gaps_between_trials() -> None:
    trials = [trial(0, 0.5), trial(1, 0.4), trial(2, 0.9, TrialState.PRUNED), trial(3, 0.8, TrialState.PRUNED)]
    found = by_key(pictures(record_of(trials)))["curves"]
    pruned, best = trace(found, "pruned"), trace(found, "best (trial 1)")
    assert (pruned["x"], pruned["y"]) == ([1, None, 1], [0.9, None, 0.8])
    assert pruned["opacity"] < trace(found, "complete")["opacity"] < best["opacity"]
    assert best["line"]["width"] > pruned["line"]["width"]
    assert found.says.startswith("val_loss by epoch: 2 pruned, 1 complete, 1 best.")


def test_slices_come_in_the_order_of_the_priorities_each_on_its_own_scale(record: StudyRecord) -> None:
    found = slices(record)
    assert [f.title for f in found] == ["1 · learning_rate", "3 · hidden_units", "4 · momentum", "8 · norm", "eps"]
    rate, momentum = found[0].layout["xaxis"], found[2].layout["xaxis"]
    assert (rate["title"]["text"], momentum["title"]["text"]) == ("log scale", "log scale of 1 − x")
    assert rate["ticktext"] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert rate["tickvals"] == [0, 0.25, 0.5, 0.75, 1]
    assert momentum["ticktext"] == ["0", "0.5", "0.9", "0.99", "0.999"]
    assert len({json.dumps(f.layout["yaxis"]) for f in found}) == 1
    drawn = sum(len(one["x"]) for one in found[4].data)
    assert drawn == sum("model.eps" in (t.params or {}) and t.value is not None for t in record.proposals) < 30


def test_a_value_outside_a_space_that_was_narrowed_lies_outside_or_has_no_place() -> None:
    rate = Parameter.model_validate({"float": {"low": 0.01, "high": 1.0, "scale": "log"}})
    assert place(rate, 0.1) == pytest.approx(0.5)
    assert place(rate, 0.0001) == pytest.approx(-1)
    assert place(rate, 0.0) is None
    assert place(rate, "auto") is None
    beta = Parameter.model_validate({"float": {"low": 0.5, "high": 0.99, "scale": "log_complement"}})
    assert place(beta, 1.0) is None
    assert place(Parameter.model_validate({"choice": ["a", "b"]}), "c") is None


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ({"int": {"low": 1, "high": 6}}, ["1", "2", "3", "4", "5", "6"]),
        ({"int": {"low": 16, "high": 512, "scale": "log"}}, ["16", "32", "64", "128", "256", "512"]),
        ({"float": {"low": 0.0, "high": 1.0}}, ["0", "0.25", "0.5", "0.75", "1"]),
        ({"float": {"low": 0.02, "high": 0.05, "scale": "log"}}, ["0.02", "0.02714", "0.03684", "0.05"]),
        ({"float": {"low": 1e-12, "high": 1.0, "scale": "log"}}, ["1e-12", "1e-08", "0.0001", "1"]),
        ({"choice": [True, False]}, ["True", "False"]),
        ({"choice": ["<b>"]}, ["&lt;b&gt;"]),
    ],
)
def test_ticks_are_a_handful_of_round_values(parameter: dict[str, Any], named: list[str]) -> None:
    found = ticks(Parameter.model_validate(parameter))
    assert [name for _, name in found] == named
    assert all(-1e-9 <= at <= 1 + 1e-9 for at, _ in found)


def test_the_axis_of_the_objective_is_not_stretched_by_a_few_bad_trials() -> None:
    accuracy = Objective("val_acc", "maximize")
    shown = value_axis([0.9 + i / 1000 for i in range(50)] + [0.1], accuracy)
    assert shown["range"][0] > 0.85
    assert shown["range"][1] >= 0.949
    decades = value_axis([0.02, 0.5, 30.0], LOSS)
    assert decades["type"] == "log"
    assert "0.1" in decades["ticktext"]
    assert value_axis([0.5, 0.5], LOSS)["range"] == [0.475, 0.525]
    assert log_axis([0.0])["type"] == "log"


def test_importance_stands_in_the_stated_order(record: StudyRecord) -> None:
    found = by_key(pictures(record))["importance"]
    rows = list(found.data[0]["y"])
    assert rows[0] == "1 · learning_rate"
    assert rows == sorted(rows, key=lambda row: int(row.split(" ")[0]) if row[0].isdigit() else 99)
    assert [one["name"] for one in found.data] == ["PED-ANOVA", "fANOVA"]
    few = record_of(made_up(4))
    assert "importance" not in by_key(pictures(few))


def test_the_ledger_names_every_second_once() -> None:
    failed = replace(trial(3, None, TrialState.FAILED), result=TrialResult(TrialState.FAILED, seconds={"build": 4.0}))
    diverged = trial(4, None, TrialState.PRUNED, infeasible=True)
    taken_up = replace(trial(0, 0.5), wasted_seconds=6.0)
    trials = [taken_up, trial(1, 0.6), trial(2, 0.9, TrialState.PRUNED), failed, diverged]
    found = by_key(pictures(record_of(confirmed(trials, 0.3))))["ledger"]
    assert found.says == (
        "44 s of training: complete 20 s (45 %, 2 trials); pruned 2 s (5 %, 1 trial); came to nothing 6 s (14 %, "
        "2 trials); interrupted 6 s (14 %, 1 trial); confirming 10 s (23 %, 1 trial)."
    )
    assert sum(one["x"][0] for one in found.data) == pytest.approx(100, abs=0.01)


def test_gradient_norms_are_drawn_from_the_first_layer_to_the_last(record: StudyRecord) -> None:
    found = by_key(pictures(record))["layers"]
    assert [one["name"] for one in found.data] == ["net.0", "net.2", "net.10", "net.12"]
    assert "1e-12 times as large at the first layer" in found.says
    assert "layers" not in by_key(pictures(replace(record, curves={})))


def test_parallel_lines_break_where_a_parameter_does_not_apply(record: StudyRecord) -> None:
    found = by_key(pictures(record))["parallel"]
    finished = [t for t in record.proposals if t.value is not None]
    points = [y for one in found.data for y in one["y"]]
    assert len(points) == len(finished) * 6  # five parameters, and a gap
    assert sum(y is not None for y in points) == sum(len(t.params or {}) for t in finished)
    assert found.data[-1]["name"] == "best fifth"


def test_a_study_without_a_finished_trial_has_a_page_and_no_pictures() -> None:
    running = Trial(0, {"model.learning_rate": 0.1}, 0, TrialState.RUNNING)
    for trials in ([], [running]):
        page = study_page(record_of(trials, reason="nothing has run"))
        assert "nothing has run" in page
        assert "<figure" not in page
        assert len(page) < 60_000, "no plotly.js where nothing is drawn"


# The page


class Outline(HTMLParser):
    """What a browser makes of a page: open elements, headings, ids, addresses, texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(text)

    def all(self, *tags: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.tags if tag in tags)


@pytest.fixture(scope="module")
def page(record: StudyRecord) -> str:
    return study_page(record)


def test_the_answer_comes_first(page: str) -> None:
    texts = " ".join(Outline(page).texts)
    value = texts.index("0.025 ± 0.005")
    assert value < texts.index("What to try next") < texts.index("In pictures") < texts.index("Best against cost")
    assert texts.index("In pictures") < texts.index("1 · learning_rate")
    assert "over 3 new seeds" in texts
    assert "31 trials (20 complete, 11 pruned) and 3 confirming runs: 126 epochs in 4 min 12 s of training." in texts


def test_what_the_user_wrote_stays_text(page: str, record: StudyRecord) -> None:
    side_by_side = comparison_page(compare([record, replace(record, name="<i>other")]))
    for html in (page, side_by_side):
        outline = Outline(html)
        ours = ("application/json", "text/plain", None)
        assert [script.get("type") for script in outline.all("script")] == list(ours)
        assert not list(outline.all("b", "i")) or "<b>&" not in html
        assert EVIL in " ".join(outline.texts)
        assert "alert(1)</script>" not in html
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert json.dumps(figures).count("<script>") == 0, "plotly reads HTML in its texts"
    assert "&lt;script&gt;" in json.dumps(figures)


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    outline = Outline(page)
    for attributes in outline.all(*{tag for tag, _ in outline.tags}):
        assert not {"src", "srcset", "data", "poster"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page.split("</style>")[0]
    (policy,) = (m["content"] for m in outline.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'")


def test_the_page_reads_well_without_eyes_and_without_a_mouse(page: str) -> None:
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"header", "main", "footer"} <= {tag for tag, _ in outline.tags}
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes["aria-labelledby"] in ids for attributes in outline.all("section"))
    pictures = [a for a in outline.all("div") if a.get("role") == "img"]
    assert len(pictures) == 12 == len(list(outline.all("figure")))
    assert all(len(a["aria-label"] or "") > 40 for a in pictures)
    assert all(a.get("scope") in ("col", "row") for a in outline.all("th"))
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in outline.all("div") if a.get("role") == "region")
    assert next(outline.all("html"))["lang"] == "en"
    assert any(m.get("name") == "viewport" for m in outline.all("meta"))


def test_thousands_of_long_trials_stay_a_page_that_can_be_sent() -> None:
    trials = [
        replace(t, values={epoch: t.score * (1 + 1 / epoch) for epoch in range(1, 121)})
        if t.state is TrialState.COMPLETE
        else t
        for t in made_up(3_000)
    ]
    record = replace(record_of(trials[:20]), trials=trials)
    page = study_page(record)
    assert len(page.encode()) < 4_000_000
    assert "The best 500 of 3,001 trials" in page
    assert "1,000 of 3,001 trials are drawn: the best, and an even share of the others." in page


# WCAG's contrast of two colours.


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_themes(theme: str) -> None:
    sheet = (Path(tuner.report.__file__).parent / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.S)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[theme == "dark"]))
    assert {role.removeprefix("@") for role in ROLES} <= set(colours)
    for text in ("text", "muted", "best", "pruned", "failed", "confirm", "link"):
        for ground in ("card", "page"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for line in ("best", "second", "complete", "confirm", "failed", "lost", "ramp4"):
        assert contrast(colours[line], colours["card"]) >= 3, line
    for bar in ("complete", "pruned", "failed", "lost", "confirm"):
        assert contrast(colours["ink"], colours[bar]) >= 4.5, bar


# HTML


def test_whatever_is_not_markup_is_escaped() -> None:
    made = element("p", "<b>", element("i", 3), None, title='a"b', hidden=True, aria_label=None)
    assert made == '<p title="a&quot;b" hidden>&lt;b&gt;<i>3</i></p>'
    assert joined("&", element("br")) == "&amp;<br>"
    assert data({"a": "</script>\u2028&"}) == '{"a":"\\u003c/script\\u003e\\u2028\\u0026"}'
    assert json.loads(data({"a": EVIL})) == {"a": EVIL}
    assert with_code("run `x < 1`, then ` go") == "run <code>x &lt; 1</code>, then  go"


# In words


def test_the_note_has_the_answer_the_cost_what_is_next_and_how_to_load_it(record: StudyRecord) -> None:
    told = note(replace(record, name="digits"))
    order = ["**digits** (complete): minimize `val_loss`", "## 0.025 ± 0.005", "| `model.learning_rate` |", "**Cost.**"]
    order += ["**Next.**", "tuner.load_best('digits')"]
    places = [told.index(part) for part in order]
    assert places == sorted(places)
    outside_code = re.sub(r"`[^`]*`", "", note(record).partition("**Load it.**")[0])
    assert "<script>" not in outside_code
    assert "&lt;script&gt;" in outside_code
    empty = note(record_of([], reason="MissingMetric"))
    assert "No trial has succeeded yet. MissingMetric" in empty


def test_a_diagnosis_is_told_once_and_its_advice_comes_before_the_usual_steps(record: StudyRecord) -> None:
    repeated = Evidence("gap", 0.3, 0.15, "The gap is 30%.")
    found = Diagnosis(
        "digits",
        "overfitting",
        "high",
        "digits overfits: the gap is 30%.",
        (repeated, Evidence("epochs", 3.0, None, "The best epoch is the 3rd.")),
        (Advice("model.dropout", "raise it to 0.3 … 0.6", "the gap is wide"),),
        (f"look at {EVIL}",),
    )
    diagnosed = replace(record, name="digits", diagnosis=found)
    assert taught(diagnosed) == ["digits overfits: the gap is 30%.", "The best epoch is the 3rd.", f"look at {EVIL}"]
    assert steps(diagnosed)[0] == "`model.dropout`: raise it to 0.3 … 0.6; the gap is wide."
    assert steps(diagnosed)[1:] == steps(replace(diagnosed, diagnosis=None)) != []
    texts = " ".join(Outline(study_page(diagnosed)).texts)
    assert texts.index("What it taught") < texts.index("digits overfits") < texts.index("raise it to 0.3")
    assert "**Diagnosis.** digits overfits" in note(diagnosed)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (trial(0, 0.5), "a proposal of the search; complete with 0.5 at epoch 5 after 5 epochs"),
        (trial(1, 0.5, confirms=0), "repeats trial 0 with a new seed; complete with 0.5 at epoch 5 after 5 epochs"),
        (
            trial(2, None, TrialState.PRUNED, infeasible=True, reason="out of memory"),
            "a proposal of the search; came to nothing after 1 epoch: out of memory",
        ),
        (Trial(3, {}, 0, TrialState.RUNNING), "a proposal of the search; running"),
    ],
)
def test_a_trial_is_told_in_a_line(one: Trial, told: str) -> None:
    assert ended(one) == told


# Several studies


def test_studies_are_read_at_the_same_cost() -> None:
    cheap = record_of([trial(0, 0.5), trial(1, 0.3)], "cheap")
    long = record_of([trial(n, round(0.6 - 0.05 * n, 2)) for n in range(8)], "long")
    found = compare([cheap, long])
    assert found.checkpoints == [2.0, 5.0, 10.0, 20.0]
    assert found.best_after == [[None, None, 0.5, 0.3], [None, None, 0.6, 0.55]]
    assert (
        found.verdict == "long is ahead of cheap: 0.25 against 0.3; with too few confirming seeds to tell them apart."
    )
    told = found.to_json()
    assert [study["study"] for study in told["studies"]] == ["cheap", "long"]
    assert told["studies"][0]["course"] == [
        {"seconds": 10.0, "epochs": 5, "best": 0.5},
        {"seconds": 20.0, "epochs": 10, "best": 0.3},
    ]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize(
    ("values", "told"), [((0.1, 0.11, 0.12), "more than chance"), ((0.1, 0.9), "cannot tell them")]
)
def test_confirming_seeds_say_whether_one_study_is_better(values: tuple[float, ...], told: str) -> None:
    one = record_of(confirmed([trial(0, 0.1)], *values), "one")
    other = record_of(confirmed([trial(0, 0.5)], 0.5, 0.52, 0.54), "other")
    assert told in compare([one, other]).verdict


def test_studies_of_other_objectives_and_a_single_one_are_refused() -> None:
    one = record_of([trial(0, 0.5)], "one")
    accuracy = replace(one, name="other", objective=Objective("val_acc", "maximize"))
    assert problems([one, one]) == []
    (single,) = problems([one])
    assert "two studies or more, but got 1" in single.message
    (mixed,) = problems([one, accuracy])
    assert (mixed.path, "minimize val_loss, but has: maximize val_acc" in mixed.message) == ("other", True)
    assert compare([one, record_of([], "empty")]).verdict.startswith("At least two")
    assert comparison_page(compare([one, record_of([], "empty")]))


# The commands


@pytest.fixture
def stored(home: Home, study: dict[str, Any]) -> Home:
    """Two studies in the storage, each with a trial that has ended, and one of another objective."""
    with open_storage(home, create=True) as store:
        for name, value in (("one", 0.5), ("other", 0.25)):
            enter(store, read_study({**study, "study": name}))
            lease = store.claim(store.study(name).id, "worker")
            assert lease is not None
            store.propose(lease, {"model.learning_rate": 0.1, "data.batch_size": 64})
            store.report(lease, Report(1, {"val_loss": value}, value))
            cost = {"train": 4.0}
            store.finish(
                lease, TrialResult(TrialState.COMPLETE, value, best_epoch=1, epochs=1, config={}, seconds=cost)
            )
        accuracy = {"metric": "val_acc", "direction": "maximize"}
        enter(store, read_study({**study, "study": "accuracy", "objective": accuracy}))
    return home


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_report_writes_the_page_and_makes_its_folder(stored: Home, tmp_path: Path) -> None:
    to = tmp_path / "pages" / "one.html"
    done = command("report", "one", "--to", str(to))
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"{to} (2." in done.stderr
    assert to.read_text("utf-8").startswith("<!DOCTYPE html>")
    wrong = command("report", "one", "--to", str(tmp_path))
    assert wrong.exit_code == 2
    assert "cannot be written: Is a directory" in re.sub(r"[│\s]+", " ", wrong.stderr)
    assert isinstance(command("report", "oen", "--to", str(to)).exception, StudyNotFound)


def test_compare_prints_a_table_json_and_a_page(stored: Home, tmp_path: Path) -> None:
    table = command("compare", "one", "other", "--to", str(tmp_path / "both.html"))
    assert table.exit_code == 0
    assert "other is ahead of one: 0.25 against 0.5" in table.stdout
    assert "after 4 s" in table.stdout
    assert "learning_rate" in table.stdout
    assert "one and other" in (tmp_path / "both.html").read_text("utf-8")
    told = json.loads(command("compare", "one", "other", "--json").stdout)
    assert [study["best"]["value"] for study in told["studies"]] == [0.5, 0.25]
    assert told["studies"][1]["best_after"][-1] == {"seconds": 4.0, "value": 0.25}
    refused = command("compare", "one", "accuracy").exception
    assert isinstance(refused, SpecError)
    assert refused.exit_code == 2
    assert "minimize val_loss, but has: maximize val_acc" in str(refused)
