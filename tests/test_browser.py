"""What a person sees in a browser: the report of a finished study, and the same study in MLflow's UI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from browser import Heard, chromium
from mlflow_server import MlflowServer
from playwright.sync_api import Browser, Page, expect

from tuner.home import Home
from tuner.report import compare, comparison_page, study_page
from tuner.service.courier import Courier
from tuner.service.entry import enter, open_storage
from tuner.service.reporting import record_of
from tuner.spec import read_study
from tuner.storage import Store
from tuner.trial import Report, TrialResult, TrialState

EVIL = "<img src=x onerror=alert(1)>"
DARK, LIGHT = "rgb(20, 24, 30)", "rgb(246, 247, 249)"
WAIT = 60_000

NAMES = """() => {
  const shown = (e) => e.getClientRects().length > 0;
  const label = (e) => (e.getAttribute("aria-label") || e.innerText || e.getAttribute("alt") || "").trim();
  const wanted = [...document.querySelectorAll("[role=img], img, button, a, [role=region], th")];
  const missing = wanted.filter((e) => shown(e) && !label(e) && e.tagName !== "TH");
  const nameless = missing.map((e) => e.outerHTML.slice(0, 80));
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((e) => +e.tagName[1]);
  const jumps = levels.filter((level, i) => i && level > levels[i - 1] + 1);
  return { nameless, jumps, h1: levels.filter((l) => l === 1).length, wide: document.documentElement.scrollWidth };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's UI, begun while the study is made."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def home(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A finished study of twelve told trials, the best confirmed, brought to MLflow by its courier."""
    folder = tmp_path_factory.mktemp("home")
    home = Home(folder, f"sqlite:///{folder}/tuner.db", server.url)
    with open_storage(home, create=True) as store:
        enter(store, read_study(_document()))
        row = store.study("seen")
        for number in range(12):
            _train(store, row.id, 0.9 / (number + 1), pruned=number % 4 == 3)
        store.plan(row.id, lambda _: [(10, 77), (10, 78)])
        for value in (0.10, 0.12):
            _train(store, row.id, value, pruned=False)
        store.complete(row.id)
        Courier("seen", home).start().finish()
        assert store.count_untracked(row.id) == 0
    return home


def _document() -> dict[str, Any]:
    return {
        "study": "seen",
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {"max_epochs": 3},
        "objective": {"metric": "val_loss"},
        "space": {
            "model.learning_rate": {"float": {"low": 1e-3, "high": 1.0, "scale": "log"}, "priority": 1},
            "model.activation": {"choice": ["relu", EVIL], "priority": 8},
        },
        "search": {"trials": 12, "confirm": 2},
    }


def _train(store: Store, study_id: int, value: float, *, pruned: bool) -> None:
    """Tell the storage of a trial as a worker does."""
    lease = store.claim(study_id, "worker")
    assert lease is not None
    if lease.trial.confirms is None:
        store.propose(lease, {"model.learning_rate": value / 10, "model.activation": EVIL if pruned else "relu"})
    epochs = 1 if pruned else 3
    for epoch in range(1, epochs + 1):
        now = value * (1 + 1 / epoch)
        metrics = {"train_loss": now / 2, "val_loss": now}
        store.report(lease, Report(epoch, metrics, now))
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    told = {"val_loss": now, "train_loss": now / 2}
    cost = {"train": 2.0 * epochs}
    store.finish(lease, TrialResult(state, now, told, best_epoch=epochs, epochs=epochs, config={}, seconds=cost))


@pytest.fixture(scope="module")
def report(home: Home, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the report as a file, and of a comparison beside it."""
    folder = tmp_path_factory.mktemp("pages")
    with open_storage(home) as store:
        record = record_of(store, store.study("seen"))
    (folder / "report.html").write_text(study_page(record), "utf-8")
    (folder / "compare.html").write_text(comparison_page(compare([record, record])), "utf-8")
    return (folder / "report.html").as_uri()


def drawn(page: Page, address: str) -> Heard:
    """Open a page of ours and wait until its pictures are drawn."""
    heard = Heard(page, address)
    page.goto(address)
    page.wait_for_selector("html[data-drawn]", timeout=WAIT)
    return heard


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_report_is_drawn_without_an_error_or_a_request(browser: Browser, report: str, theme: Any) -> None:
    page = browser.new_page(color_scheme=theme, viewport={"width": 1280, "height": 900})
    heard = drawn(page, report)
    assert (heard.errors, heard.strangers) == ([], [])
    assert page.locator(".canvas .main-svg").count() >= page.locator("figure").count() == 8
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == (LIGHT if theme == "light" else DARK)
    assert EVIL in page.locator("table.trials").inner_text()
    seen = page.evaluate(NAMES)
    assert (seen["nameless"], seen["jumps"], seen["h1"]) == ([], [], 1)
    page.close()


def test_the_pictures_follow_the_theme(browser: Browser, report: str) -> None:
    page = browser.new_page(color_scheme="light")
    drawn(page, report)
    line = page.locator("#figure-history .js-line").first
    light = line.evaluate("path => getComputedStyle(path).stroke")
    page.emulate_media(color_scheme="dark")
    expect(line).not_to_have_css("stroke", light, timeout=WAIT)
    page.close()


def test_a_telephone_scrolls_down_only(browser: Browser, report: str) -> None:
    for address in (report, report.replace("report.html", "compare.html")):
        page = browser.new_page(viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True)
        heard = drawn(page, address)
        assert heard.errors == []
        assert page.evaluate(NAMES)["wide"] == 375
        page.close()


def test_the_table_is_sorted_by_keyboard(browser: Browser, report: str) -> None:
    page = browser.new_page()
    drawn(page, report)
    table = page.locator("table.trials")
    numbers = "rows => rows.map(row => parseInt(row.cells[0].innerText))"
    best_first = table.locator("tbody tr").evaluate_all(numbers)
    assert best_first[0] == 10
    button = table.get_by_role("button", name="trial", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert table.locator("tbody tr").evaluate_all(numbers) == list(range(14))
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("trial")
    page.keyboard.press("Enter")
    assert table.locator("tbody tr").evaluate_all(numbers) == list(reversed(range(14)))
    assert button.evaluate("e => getComputedStyle(e).outlineStyle") != "none", "the focus is seen"
    page.close()


def test_mlflow_s_ui_shows_the_study_its_trials_their_curves_and_the_report(browser: Browser, home: Home) -> None:
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("seen")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'study'")
    (child,) = client.search_runs([experiment.experiment_id], "tags.`tuner.trial` = '10'")
    runs = f"{home.tracking}/#/experiments/{experiment.experiment_id}/runs"
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(WAIT)
    heard = Heard(page, home.tracking)

    page.goto(runs)
    expect(page.get_by_role("link", name="seen", exact=True).last).to_be_visible(timeout=WAIT)
    page.locator("[data-testid=expander-button], .ag-cell button, button[aria-label*=xpand]").first.click()
    expect(page.get_by_text("trial-0010", exact=True).first).to_be_visible(timeout=WAIT)

    page.goto(f"{runs}/{parent.info.run_id}")
    expect(page.get_by_role("heading", name="0.1467 ± 0.019").first).to_be_visible(timeout=WAIT)
    page.goto(f"{runs}/{child.info.run_id}/model-metrics")
    expect(page.get_by_role("heading", name="val_loss", exact=True)).to_be_visible(timeout=WAIT)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT)

    page.goto(f"{runs}/{parent.info.run_id}/artifacts/report.html")
    frame = page.frame_locator("iframe.mlflow-html-iframe")
    expect(frame.get_by_role("heading", name="The answer")).to_be_visible(timeout=WAIT)
    frame.locator("html[data-drawn]").wait_for(state="attached")
    assert frame.locator(".canvas .main-svg").count() >= 8
    assert heard.strangers == []
    page.close()


def test_the_artifact_is_the_page_that_tuner_report_writes(home: Home, report: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("seen")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'study'")
    there = client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))
    assert Path(there).read_text("utf-8") == Path(report.removeprefix("file://")).read_text("utf-8")
