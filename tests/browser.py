"""Pages in a real browser, Debian's Chromium; a page that asks for anything outside, or complains, fails its test."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # which root may not use
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Tab:
    """A page in a browser without history, and all that it asked for and complained of.

    Args:
        page: Playwright's page.
        allowed: Beginnings of the addresses that the page may ask for; a test of a server adds its address.
        harmless: Complaints that are none of this project's, and may come at any time.
    """

    page: "Page"
    allowed: list[str] = field(default_factory=lambda: ["file:", "data:", "blob:"])
    harmless: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self._complain(str(error)))

    def _listen(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self._complain(message.text)

    def _complain(self, text: str) -> None:
        if text not in self.harmless:
            self.complaints.append(text)

    def open(self, file: Path) -> "Page":
        """Open a file as from a file manager, and return its page."""
        self.page.goto(file.resolve().as_uri())
        return self.page

    def outside_requests(self) -> list[str]:
        """Return the addresses that the page asked for though it may not."""
        return [url for url in self.requests if not url.startswith(tuple(self.allowed))]


def installed_browser() -> str | None:
    """Return the path of the browser; None if there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless browser. Without one tests are skipped, or fail under VDM_REQUIRE_BROWSER=1.

    One for each module rather than for all: as long as Playwright runs, asyncio can't be used in other tests.
    """
    program = installed_browser()
    if program is None:
        message = "no browser is installed: apt-get install chromium"
        if os.environ.get("VDM_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def tab(browser: "Browser") -> Iterator[Tab]:
    """A page of its own, which at the end must have asked for nothing outside and must not have complained."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Tab(context.new_page())
    yield opened
    context.close()
    assert opened.outside_requests() == [], opened.outside_requests()
    assert opened.complaints == [], opened.complaints
