"""The report in a real browser. That it requests and complains of nothing is checked after each test, by ``tab``."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import Tab
from tests.report.made_runs import HOSTILE, figures_at, loss_at

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TRACES = """title => [...document.querySelectorAll("figure.card")]
    .find(card => card.querySelector("h3").textContent === title)
    .querySelector(".plot").data.map(({ name, x, y, z, line, type }) => ({ name, x, y, z, line, type }))"""
AXIS = """title => [...document.querySelectorAll("figure.card")]
    .find(card => card.querySelector("h3").textContent === title).querySelector(".plot").layout"""
BRIGHTNESS = """async () => {
    const brightness = [];
    for (const video of document.querySelectorAll("#samples video")) {
        video.pause();
        video.currentTime = 0;
        while (video.readyState < 2 || video.seeking) await new Promise(done => setTimeout(done, 10));
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 32;
        const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0);
        brightness.push(context.getImageData(28, 16, 1, 1).data[0]);
    }
    return brightness;
}"""
BOXES = """[...document.querySelectorAll(".card, .scroll, .tile, h2, .controls, .stepper, .command")]
    .filter(one => one.checkVisibility({ contentVisibilityAuto: true })).map(one => one.getBoundingClientRect())
    .map(({ left, right, top, bottom }) => [left, right, top, bottom])"""
NAMELESS = """[...document.querySelectorAll(
        ".plot, video, main input, main select, main button, table, [role=region]")]
    .filter(one => !one.getAttribute("aria-label") && !one.labels?.length && !one.textContent.trim())
    .map(one => one.outerHTML)"""
STEPS = list(range(4, 401, 4))


def drawn(tab: Tab, file: Path) -> "Page":
    page = tab.open(file)
    wait(page)
    return page


def wait(page: "Page") -> None:
    """Wait until all charts show what is chosen."""
    page.wait_for_selector("html[data-drawn=true]")


def traces(page: "Page", title: str) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in page.evaluate(TRACES, title)}


def rows(table: "Locator") -> list[str]:
    """Return the first column of a table."""
    return [text.strip() for text in table.locator("tbody th").all_inner_texts()]


def test_curves_are_those_of_the_run(tab: Tab, report: Path) -> None:
    page = drawn(tab, report)

    loss = traces(page, "loss")
    assert loss["train/loss"]["x"] == STEPS
    assert loss["train/loss"]["y"] == pytest.approx([figures_at(step)["train/loss"] for step in STEPS], rel=1e-5)
    assert loss["val/loss"]["x"] == [100, 200, 300, 400]
    assert loss["val/loss"]["y"] == pytest.approx([loss_at(step) + 0.01 for step in (100, 200, 300, 400)], rel=1e-5)
    assert set(traces(page, "train/grad_norm")) == {"train/grad_norm", "down.0", "middle", "up.0"}
    assert page.locator("#curves .scatterlayer path.js-line").count() == 2 + 1 + 4
    assert page.evaluate("document.querySelectorAll('.plot:not(:has(.main-svg))').length") == 0


def test_loss_by_level_is_a_heat_map_of_logarithms(tab: Tab, report: Path) -> None:
    (heat_map,) = traces(drawn(tab, report), "Mean loss by noise level t and step, on a logarithmic scale").values()

    assert heat_map["type"] == "heatmap"
    assert heat_map["y"] == pytest.approx([0.05 + n / 10 for n in range(10)])
    assert heat_map["x"] == STEPS
    for row, column in ((0, 5), (9, 98)):
        expected = figures_at(STEPS[column])[f"train/loss_by_level/t={row / 10:.2f}-{(row + 1) / 10:.2f}"]
        assert heat_map["z"][row][column] == pytest.approx(math.log10(expected), abs=1e-4)
    assert heat_map["z"][3][0] is None  # no clip of that level


def test_axis_scale_and_smoothing_are_switched(tab: Tab, report: Path) -> None:
    page = drawn(tab, report)

    page.get_by_role("radio", name="Time").check()
    wait(page)
    assert traces(page, "loss")["train/loss"]["x"][-1] == pytest.approx((400 - 4) * 0.5 / 60, rel=1e-4)
    assert "minutes" in page.evaluate(AXIS, "loss")["xaxis"]["title"]["text"]
    page.get_by_role("radio", name="Samples").check()
    wait(page)
    assert traces(page, "loss")["train/loss"]["x"][-1] == 3200

    page.get_by_label("Log scale").check()
    wait(page)
    assert page.evaluate(AXIS, "loss")["yaxis"]["type"] == "log"

    page.get_by_label("Smoothing").focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    wait(page)
    lines = [trace for trace in page.evaluate(TRACES, "loss") if trace["name"] == "train/loss"]
    assert len(lines) == 2  # what was logged, faintly, and the mean
    raw, mean = lines[0]["y"], lines[1]["y"]
    average, weight = 0.0, 0.0
    for index, value in enumerate(raw):
        average, weight = 0.5 * average + 0.5 * value, 0.5 * weight + 0.5
        assert mean[index] == pytest.approx(average / weight)


def test_the_slider_changes_the_videos(tab: Tab, report: Path) -> None:
    page = drawn(tab, report)

    slider = page.get_by_label("Step of the samples")
    assert slider.get_attribute("aria-valuetext") == "step 400"
    first, *_ = page.evaluate(BRIGHTNESS)
    seen = [page.evaluate(BRIGHTNESS)]
    slider.focus()
    for step in (300, 200, 100):
        page.keyboard.press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext") == f"step {step}"
        assert page.locator("#samples figcaption", has_text=f"step {step}").count() == 2
        seen.append(page.evaluate(BRIGHTNESS))
    references, samples = [one[0::2] for one in seen], [one[1::2] for one in seen]
    assert references == [references[0]] * 4
    for darker, lighter in zip(samples[1:], samples[:-1], strict=True):
        assert all(a < b for a, b in zip(darker, lighter, strict=True))
    page.get_by_label("Later step").click()
    assert slider.get_attribute("aria-valuetext") == "step 200"
    assert first == references[0][0]


def test_videos_play_until_they_are_paused(tab: Tab, report: Path) -> None:
    page = drawn(tab, report)
    playing = "[...document.querySelectorAll('#samples video')].map(video => !video.paused && video.readyState >= 2)"

    page.wait_for_timeout(300)
    assert page.evaluate(playing) == [True] * 4
    assert page.locator("#samples video").first.get_attribute("aria-label") == "Held-out clip: a one moves left"
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate(playing) == [False] * 4
    page.get_by_label("Earlier step").click()
    page.wait_for_timeout(200)
    assert page.evaluate(playing) == [False] * 4


def test_the_table_of_a_sweep_is_sorted_by_keyboard(tab: Tab, sweep_report: Path) -> None:
    page = drawn(tab, sweep_report)
    table = page.get_by_role("table", name="Runs")
    names = [f"{n}_optimizer.lr={lr}" for n, lr in enumerate(("0.0001", "0.001", "0.01"))]

    assert rows(table) == names
    assert table.locator("thead th").all_inner_texts()[3].startswith("optimizer.lr")  # and not training.optimizer.lr
    heading = table.get_by_role("button", name="train/loss")
    heading.focus()
    page.keyboard.press("Enter")
    assert rows(table) == [names[2], names[0], names[1]]
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert rows(table) == [names[1], names[0], names[2]]
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_runs_of_a_sweep_are_compared(tab: Tab, sweep_report: Path) -> None:
    page = drawn(tab, sweep_report)

    losses = traces(page, "loss")
    assert len(losses) == 3
    assert len({trace["line"]["color"] for trace in losses.values()}) == 3
    parallel = traces(page, "Settings and results: a line for each run")
    (highest,) = [trace for name, trace in parallel.items() if name.startswith("1_")]
    assert highest["y"] == pytest.approx([0.5, 1, 1, 1])  # of the logarithms of learning rates, and of the losses
    assert page.locator("#settings tbody tr:visible").count() == 2
    page.get_by_label("Only what differs").uncheck()
    assert page.locator("#settings tbody tr:visible").count() > 2

    page.get_by_label("Show 1_optimizer.lr=0.001 in the charts").uncheck()
    wait(page)
    assert len(traces(page, "loss")) == 2


def test_texts_from_outside_are_shown_as_texts(tab: Tab, hostile_report: Path) -> None:
    page = drawn(tab, hostile_report)

    assert page.locator("main img, main b, #nav b").count() == 0
    assert page.evaluate("document.scripts.length") == 3
    assert page.get_by_role("table", name="Configuration").get_by_text(HOSTILE, exact=True).count() >= 2
    assert page.locator("#samples p", has_text=HOSTILE).count() == 1
    assert page.locator("#runs tbody td", has_text=f"failed: {HOSTILE}").count() == 2
    names = [f"{number}{HOSTILE.replace('/', chr(0x2044))}" for number in range(2)]
    assert rows(page.locator("#runs")) == names
    shown = page.evaluate(TRACES, "loss")[0]["name"]
    assert "<" not in shown
    assert (
        page.evaluate("text => new DOMParser().parseFromString(text, 'text/html').body.textContent", shown) == names[0]
    )
    assert page.locator(".plot b, .plot img, .plot a").count() == 0


@pytest.mark.parametrize("which", ["report", "sweep_report"])
def test_dark_colours_are_the_systems_or_chosen(tab: Tab, which: str, request: pytest.FixtureRequest) -> None:
    tab.page.emulate_media(color_scheme="dark")
    page = drawn(tab, request.getfixturevalue(which))
    back = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill.match(/\\d+/g).map(Number)"

    assert max(page.evaluate(back)) < 60
    assert min(page.evaluate(ink)) > 130
    page.get_by_role("button", name="Switch to light colours").click()
    wait(page)
    assert min(page.evaluate(back)) > 200
    assert max(page.evaluate(ink)) < 130
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Switch to dark colours").click()
    assert max(page.evaluate(back)) < 60


@pytest.mark.parametrize("which", ["report", "sweep_report", "hostile_report"])
def test_nothing_overflows_or_overlaps(tab: Tab, which: str, request: pytest.FixtureRequest) -> None:
    page = drawn(tab, request.getfixturevalue(which))

    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = page.evaluate(BOXES)
        assert len(boxes) > 20
        for index, (left, right, top, bottom) in enumerate(boxes):
            assert left >= 0
            assert right <= width
            for other in boxes[index + 1 :]:
                is_beside = right <= other[0] + 1 or other[1] <= left + 1
                assert is_beside or bottom <= other[2] + 1 or other[3] <= top + 1, (boxes[index], other)


def test_plots_are_not_blank(tab: Tab, report: Path) -> None:
    from io import BytesIO

    import numpy as np
    from PIL import Image

    page = drawn(tab, report)
    for plot in page.locator(".plot").all():
        pixels = np.asarray(Image.open(BytesIO(plot.screenshot())).convert("RGB")).reshape(-1, 3).astype(int)
        coloured = (pixels.max(1) - pixels.min(1) > 60).mean()
        assert coloured > 0.002, plot.get_attribute("aria-label")


def test_each_plot_video_and_control_has_a_name(tab: Tab, report: Path) -> None:
    page = drawn(tab, report)

    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1").count() == 1
    label = page.locator("#curves .plot").first.get_attribute("aria-label")
    assert label is not None
    assert label.startswith("Chart of loss over optimizer step. train/loss: from 0.9583 to 0.2869")


def test_printing_unfolds_everything_in_light_colours(tab: Tab, report: Path) -> None:
    tab.page.emulate_media(color_scheme="dark")
    page = drawn(tab, report)

    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    widths = page.evaluate(
        "[...document.querySelectorAll('.plot .main-svg')].map(one => one.getBoundingClientRect().right)"
    )
    assert max(widths) <= page.evaluate("document.getElementById('main').getBoundingClientRect().right")
    page.emulate_media(media="print")
    assert not page.locator("header").is_visible()
    assert len(page.pdf()) > 50_000
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
