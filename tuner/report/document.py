"""A page of its own: one file that asks nothing of the network, with pictures that plotly.js draws."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
from collections.abc import Sequence
from functools import cache
from typing import Any

from tuner.report.figure import Figure
from tuner.report.markup import Markup, data, element, joined

NOTHING_LEAVES = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The page's own rule for the browser: nothing is fetched from anywhere."""


def document(title: str, lead: Markup, main: Markup, figures: Sequence[Figure], origin: Markup) -> str:
    """A whole page around its main part."""
    sheet, script = (_own(name) for name in ("page.css", "page.js"))
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=NOTHING_LEAVES),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · tuner report"),
        element("style", Markup(sheet)),
    )
    body = joined(
        element("a", "To the answer", href="#answer", class_="skip"),
        element("header", element("h1", title), lead),
        element("main", main),
        element("footer", origin),
    )
    if figures:
        drawn = {figure.key: figure.to_json() for figure in figures}
        body = joined(
            body,
            element("script", data(drawn), type="application/json", id="figures"),
            element("script", _plotly(), type="text/plain", id="plotly"),
        )
    body = joined(body, element("script", Markup(script)))
    html = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def picture(figure: Figure, level: str = "h3") -> Markup:
    """A figure with its heading, its canvas and its words."""
    canvas = element(
        "div",
        element("noscript", "The picture needs JavaScript."),
        id=f"figure-{figure.key}",
        class_="canvas",
        role="img",
        aria_label=f"{figure.title}. {figure.says}",
        style=f"min-height:{figure.height}px" + (f";min-width:{figure.least_width}px" if figure.least_width else ""),
    )
    if figure.least_width:
        canvas = element(
            "div", canvas, class_="scroll", tabindex="0", role="region", aria_label=f"{figure.title}, scrolls sideways"
        )
    caption = element("figcaption", figure.says)
    return element("figure", element(level, figure.title), canvas, caption)


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], caption: str, **attributes: Any) -> Markup:
    """A table whose first column names the rows; it scrolls sideways where the screen is narrow."""
    told = element(
        "table",
        element("caption", caption),
        element(
            "thead",
            element("tr", *(cell if isinstance(cell, Markup) else element("th", cell, scope="col") for cell in head)),
        ),
        element("tbody", *(_row(row) for row in rows)),
        **attributes,
    )
    return element("div", told, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Sequence[Any]) -> Markup:
    told = [cell if isinstance(cell, Markup) and cell.startswith("<td") else element("td", cell) for cell in cells[1:]]
    return element("tr", element("th", cells[0], scope="row"), *told)


def _own(name: str) -> str:
    return importlib.resources.files("tuner.report").joinpath(name).read_text("utf-8")


@cache
def _plotly() -> Markup:
    """plotly.js, packed: a third of its size."""
    from plotly.offline import get_plotlyjs

    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode())
