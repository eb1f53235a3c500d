"""The page of ``vdm demo`` in a real browser: what is made there is what ``vdm sample`` makes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.browser import Tab
from tests.cli.calling import frames_of
from tests.cli.conftest import RunVdm
from tests.cli.demo.serving import Served, served
from tests.data_pipelines.videos import write_video

if TYPE_CHECKING:
    from playwright.sync_api import Page

RESULTS = ".vdm-results"
PROMPT = """a "dog's" life costs $5 `now` \\ and ${more} <b>&amp;!"""
"""With everything that shells, Hydra and HTML may take for their own."""


@pytest.fixture(scope="module")
def demo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The trained run twice, side by side."""
    with served(tmp_path_factory.mktemp("demo"), f"checkpoint=[{trained},{trained}]", "device=cpu") as running:
        yield running


@pytest.fixture
def page(demo: Served, tab: Tab) -> "Page":
    tab.page.set_default_timeout(120_000)  # other tests may keep the machine busy
    tab.allowed.append(demo.url)
    tab.page.goto(demo.url)
    tab.page.wait_for_selector("#generate")
    return tab.page


def fill(page: "Page", name: str, text: str) -> None:
    if name in ("num_frames", "height", "width", "fps") and not page.locator(f"#{name}").count():
        page.get_by_text("Size and speed").click()
    page.locator(f"#{name}").locator("textarea, input").fill(text)


def generate(page: "Page", *, number: int = 2) -> list[Path]:
    """Press the button and wait for the videos; return their files."""
    page.click("#generate")
    page.wait_for_function(f"document.querySelectorAll('{RESULTS} video').length == {number}")
    page.wait_for_selector("#generate:not([disabled])")
    links = page.locator(f"{RESULTS} a[download]")
    return [Path(link.get_attribute("href").partition("file=")[2]) for link in links.all()]  # type: ignore


def words(command: str) -> list[str]:
    """Return the arguments of a command line, as a shell reads them."""
    assert command.startswith("vdm sample ")
    line = "printf '%s\\0' " + command.removeprefix("vdm sample ")
    printed = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    return printed.decode().split("\0")[:-1]


def repeated(run_vdm: RunVdm, command: str, output: Path) -> np.ndarray:
    """Type a printed command, and return the frames of the video that it makes."""
    code, said = run_vdm("sample", *words(command), f"output={output}")
    assert code == 0, said
    (video,) = output.glob("0000*.mp4")
    return frames_of(video)


def test_a_video_plays_and_is_that_of_the_printed_command(
    page: "Page", run_vdm: RunVdm, tmp_path: Path, trained: Path
) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "seed", "7")
    fill(page, "num_frames", "3")

    first, second = generate(page)

    page.wait_for_function(f"[...document.querySelectorAll('{RESULTS} video')].every(v => v.currentTime > 0)")
    size = page.evaluate(f"(v => [v.videoWidth, v.videoHeight, v.paused])(document.querySelector('{RESULTS} video'))")
    assert size == [32, 16, False]
    command = page.locator(f"{RESULTS} pre").first.inner_text()
    shown = repeated(run_vdm, command, tmp_path / "again")
    assert len(shown) == 3
    np.testing.assert_array_equal(frames_of(first), shown)
    np.testing.assert_array_equal(frames_of(second), shown)  # of the same seed, side by side
    assert page.locator(".vdm-card b").count() == 0


def test_history_survives_and_its_command_makes_the_same_again(page: "Page", run_vdm: RunVdm, tmp_path: Path) -> None:
    fill(page, "prompt", "to be kept")
    (made, _) = generate(page)
    page.reload()

    card = page.locator("#history .vdm-card").first
    card.wait_for()
    assert "to be kept" in card.inner_text()
    command = card.locator("pre").text_content() or ""

    np.testing.assert_array_equal(repeated(run_vdm, command, tmp_path / "again"), frames_of(made))


def test_settings_of_what_was_made_before_are_put_back_into_the_form(page: "Page") -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "seed", "11")
    fill(page, "num_frames", "3")
    fill(page, "steps", "3")
    fill(page, "guidance", "1.5")
    page.click("#sampler input")
    page.get_by_role("option", name="unipc").click()
    (made, _) = generate(page)
    page.reload()

    page.locator("#history .vdm-reuse").first.click()

    page.wait_for_function("document.querySelector('#seed input').value == '11'")
    assert page.locator("#prompt textarea").input_value() == PROMPT
    assert page.locator("#sampler input").input_value() == "unipc"
    assert page.locator("#guidance textarea, #guidance input").input_value() == "1.5"
    (again, _) = generate(page)
    assert again != made
    np.testing.assert_array_equal(frames_of(again), frames_of(made))


def test_sampling_stops_and_leaves_nothing(page: "Page", trained: Path) -> None:
    before = sorted((trained / "samples").glob("*/*"))
    fill(page, "steps", "100000")
    page.click("#generate")
    page.wait_for_selector(f"{RESULTS} img.vdm-shown")  # the preview

    page.click("#stop")

    page.wait_for_function(f"document.querySelectorAll('{RESULTS} .vdm-error').length == 2")
    assert page.locator(f"{RESULTS} .vdm-error").all_inner_texts() == ["stopped", "stopped"]
    assert sorted((trained / "samples").glob("*/*")) == before
    fill(page, "steps", "1")
    generate(page)  # the next one is not held up


def test_another_visitor_waits_and_may_give_up(page: "Page", tab: Tab, demo: Served) -> None:
    other = tab.page.context.new_page()
    other.goto(demo.url)
    fill(page, "steps", "100000")
    page.click("#generate")
    page.wait_for_selector(f"{RESULTS} img.vdm-shown")

    other.click("#generate")
    other.wait_for_function("document.body.innerText.includes('waits for its turn')")
    other.click("#stop:not([disabled])")
    other.wait_for_function(f"document.querySelectorAll('{RESULTS} .vdm-error').length == 2")

    assert "step" in page.locator(f"{RESULTS} .vdm-status").first.inner_text()
    page.click("#stop")
    page.wait_for_function(f"document.querySelectorAll('{RESULTS} .vdm-error').length == 2")
    other.close()


def test_a_visitor_who_leaves_stops_the_sampling(page: "Page", tab: Tab, demo: Served) -> None:
    fill(page, "steps", "100000")
    page.click("#generate")
    page.wait_for_selector(f"{RESULTS} img.vdm-shown")

    page.goto("about:blank")
    tab.complaints.clear()  # about the connection that was closed
    page.goto(demo.url)

    generate(page)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "many", "num_steps=many: must be a whole number"),
        ("steps", "0", "the form: num_steps=0 is not allowed"),
        ("height", "30", "height=30: the network needs latents of a multiple of 4"),
        ("num_frames", "${oc.env:HOME}", "num_frames=${oc.env:HOME}: must be a whole number"),
        ("num_frames", "900000", "the form: num_frames=900000 is not allowed"),
    ],
)
def test_a_wrong_value_is_one_line_on_the_page(page: "Page", name: str, value: str, message: str) -> None:
    fill(page, name, value)

    page.click("#generate")

    page.wait_for_selector(f"{RESULTS} .vdm-error")
    page.wait_for_selector("#generate:not([disabled])")
    said = page.locator(f"{RESULTS} .vdm-error").first.inner_text()
    assert said.startswith(message)
    assert "\n" not in said


def upload(page: "Page", tab: Tab, name: str, file: Path) -> None:
    tab.harmless.append("Method not implemented.")  # Gradio's own, some time after each upload
    page.locator(f"#{name} input[type=file]").set_input_files(file)
    page.get_by_text(file.name).wait_for()


def test_an_uploaded_first_frame_begins_the_video(page: "Page", tab: Tab, run_vdm: RunVdm, tmp_path: Path) -> None:
    Image.new("RGB", (50, 70), "red").save(tmp_path / "first frame.png")
    upload(page, tab, "image", tmp_path / "first frame.png")
    page.wait_for_selector("img[alt='What was uploaded']")

    (made, _) = generate(page)

    command = page.locator(f"{RESULTS} pre").first.inner_text()
    assert "image=" in command
    np.testing.assert_array_equal(repeated(run_vdm, command, tmp_path / "again"), frames_of(made))


def test_a_video_is_extended(page: "Page", tab: Tab, run_vdm: RunVdm, tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mkv", [np.full((40, 50, 3), 40 * n, dtype=np.uint8) for n in range(6)], fps=8)
    page.click("#task input")
    page.get_by_role("option", name="Extend a video").click()
    page.wait_for_selector("#image", state="hidden")
    upload(page, tab, "input", film)

    (made, _) = generate(page)

    assert [float(frame.mean()) for frame in frames_of(made)[:2]] == pytest.approx([160, 200], abs=3)
    command = page.locator(f"{RESULTS} pre").first.inner_text()
    np.testing.assert_array_equal(repeated(run_vdm, command, tmp_path / "again"), frames_of(made))


@pytest.mark.parametrize("content", [b"no picture", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"])
def test_a_file_that_is_no_picture_is_refused(page: "Page", tab: Tab, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    upload(page, tab, "image", tmp_path / "bad.png")

    page.click("#generate")

    page.wait_for_selector(f"{RESULTS} .vdm-error")
    assert "image=bad.png: can't be read as a picture" in page.locator(f"{RESULTS} .vdm-error").first.inner_text()


def test_the_server_asks_nobody_outside(demo: Served) -> None:
    """Last, after all that the tests before did with it."""
    found = demo.connections.read_text().splitlines()
    assert [line for line in found if "127.0.0.1" not in line and "::1" not in line] == []
    assert "Traceback" not in demo.log.read_text()
