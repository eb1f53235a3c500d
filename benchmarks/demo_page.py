"""Seconds until the page of ``vdm demo`` shows a preview and the videos, and a picture of the page.

Start ``vdm demo checkpoint=RUN`` first; then, with the address that it prints::

    python benchmarks/demo_page.py http://127.0.0.1:7860 --prompt "the digit three moves up" --picture page.png

Needs Chromium and Playwright's client (``make dev``).
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIDEO_READY = "[...document.querySelectorAll('.vdm-results .vdm-card')].every(one => one.querySelector('video'))"


def main() -> None:
    """Fill in each prompt, generate, and print how long that took."""
    options = parse()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(options.url)
        page.wait_for_selector("#generate")
        for number, prompt in enumerate(options.prompts or [""]):
            generate(page, prompt, options.steps, number)
        if options.picture is not None:
            page.add_style_tag(content="video::-webkit-media-controls { display: none !important; }")
            page.screenshot(path=options.picture, full_page=True, animations="disabled")
        browser.close()


def parse() -> argparse.Namespace:
    """Read the command line; without an address print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="address that vdm demo prints")
    parser.add_argument("--prompt", action="append", dest="prompts", help="may be given several times")
    parser.add_argument("--steps", type=int, help="sampling steps; by default the run's")
    parser.add_argument("--picture", type=Path, help="file of a picture of the page at the end")
    options = parser.parse_args()
    if options.url is None:
        parser.print_usage()
        sys.exit(0)
    return options


def generate(page: "Page", prompt: str, steps: int | None, seed: int) -> None:
    """Make the videos of one prompt."""
    inputs = {"prompt": prompt, "steps": steps, "seed": seed}
    for name, value in inputs.items():
        box = page.locator(f"#{name}").locator("textarea, input")
        if value is not None and box.count():
            box.fill(str(value))
    started = time.perf_counter()
    page.click("#generate")
    waited = [since(page, started, "document.querySelector('.vdm-results img.vdm-shown')")]
    waited.append(since(page, started, VIDEO_READY))
    page.wait_for_selector("#generate:not([disabled])")
    page.wait_for_timeout(1500)  # until the videos play
    show(prompt, waited)


def since(page: "Page", started: float, condition: str) -> float:
    """Wait for something on the page; return the seconds since ``started``."""
    page.wait_for_function(condition, timeout=600_000)
    return time.perf_counter() - started


def show(prompt: str, waited: Sequence[float]) -> None:
    """Print a line of the table."""
    preview, videos = waited
    print(f"{prompt or '(no prompt)'}: preview after {preview:.1f} s, videos after {videos:.1f} s", flush=True)


if __name__ == "__main__":
    main()
