"""What tests in a browser stand on: it plays videos, and no request or complaint of a page is missed."""

from pathlib import Path

import av
import pytest

from tests.browser import Tab

# Written with the smallest video that shows progress: 16 frames of growing brightness, as H.264.
PLAYER = """<!doctype html><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">
<video muted loop autoplay src="clip.mp4"></video>"""


@pytest.fixture
def player(tmp_path: Path) -> Path:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", 8)
        stream.width = stream.height = 32
        for number in range(16):
            frame = av.VideoFrame(32, 32, "gray")
            frame.planes[0].update(bytes([10 * number]) * frame.planes[0].buffer_size)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    (tmp_path / "page.html").write_text(PLAYER)
    return tmp_path / "page.html"


def test_the_browser_plays_h264(tab: Tab, player: Path) -> None:
    page = tab.open(player)

    page.wait_for_function("document.querySelector('video').currentTime > 0.1")

    assert page.evaluate("document.querySelector('video').videoWidth") == 32
    assert [Path(url).name for url in tab.requests] == ["page.html", "clip.mp4"]


def test_requests_and_complaints_are_noticed(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        "<!doctype html><title>t</title><img alt='' src='http://127.0.0.1:9/a.png'><script>lost()</script>"
    )

    tab.open(tmp_path / "page.html")

    assert tab.outside_requests() == ["http://127.0.0.1:9/a.png"]
    assert any("lost is not defined" in complaint for complaint in tab.complaints)
    tab.requests.clear()
    tab.complaints.clear()
