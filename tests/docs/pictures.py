"""Pictures of pages for docs/, by ``make docs-pictures``."""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser import FLAGS, installed_browser


def picture_report(report: Path, picture: Path) -> None:
    """Take a picture of a report from its beginning to its videos, with smoothed curves on a logarithmic scale."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed_browser(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(report.resolve().as_uri())
        page.get_by_label("Log scale").check()
        page.get_by_label("Smoothing").fill("0.6")
        page.wait_for_selector("html[data-drawn=true]")
        page.wait_for_timeout(1000)  # videos show their first frames
        videos = page.locator("#samples").bounding_box()
        assert videos is not None
        whole = {"x": 0, "y": 0, "width": 1280, "height": videos["y"] + videos["height"] + 24}
        page.screenshot(path=picture, full_page=True, clip=whole)
        browser.close()


if __name__ == "__main__":
    picture_report(Path(sys.argv[1]), Path(sys.argv[2]))
