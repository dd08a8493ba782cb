"""A headless Chromium of the system, for tests that look at what a person sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, or a skip that says what is missing; `.ci/run` installs it, and there nothing is skipped."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: install it (apt-get install chromium) to see the pages as a person does")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Heard:
    """What a page complained of, and what it asked of other machines."""

    def __init__(self, page: Page, own: str) -> None:
        self.errors: list[str] = []
        self.strangers: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        near = (own, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(near) else self.strangers.append(asked.url))
