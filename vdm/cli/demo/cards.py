"""HTML of results and of history. Every text from outside is escaped."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from vdm.cli.demo.history import Made
from vdm.cli.demo.jobs import Result
from vdm.cli.demo.models import step_of
from vdm.regular_files import open_regular
from vdm.text import html_text, well_formed

Address = Callable[[Path], str]
"""Returns the address under which the page's server has a file."""

CSS = """
.gradio-container { max-width: 1320px !important; width: 100%; margin: 0 auto !important; }
.vdm-head h1 { font-size: 1.35rem; font-weight: 600; margin: 0; }
.vdm-head p { margin: .15rem 0 0; color: var(--body-text-color-subdued); font-size: .9rem; }
.vdm-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 16px; }
.vdm-results { grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); }
.vdm-card { border: 1px solid var(--border-color-primary); border-radius: 10px; overflow: hidden; min-width: 0;
  background: var(--background-fill-primary); }
.vdm-card video, .vdm-card .vdm-shown { display: block; width: 100%; aspect-ratio: var(--shape, 1); object-fit: contain;
  background: #16181d; image-rendering: pixelated; }
.vdm-card.vdm-large video, .vdm-card.vdm-large .vdm-shown { image-rendering: auto; }
.vdm-results .vdm-card video, .vdm-results .vdm-card .vdm-shown { max-height: 60vh; }
.vdm-empty { display: grid !important; place-items: center; color: #9aa0ac; font-size: .9rem; }
.vdm-text { padding: 10px 12px 12px; font-size: .85rem; line-height: 1.45; overflow-wrap: anywhere; }
.vdm-text .vdm-name { font-weight: 600; }
.vdm-text .vdm-status { color: var(--body-text-color-subdued); float: right; margin-left: .5rem; }
.vdm-text .vdm-error { color: var(--error-text-color, #b42318); margin: .3rem 0 0; }
.vdm-text .vdm-note { color: var(--body-text-color-subdued); margin: .3rem 0 0; }
.vdm-text pre { white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; margin: .4rem 0 0; padding: 8px 10px;
  border-radius: 6px; font-size: .78rem; background: var(--background-fill-secondary); color: var(--body-text-color); }
.vdm-text a { color: var(--link-text-color); padding: 0 !important; }
.vdm-plain > .html-container { padding: 0 !important; }
.vdm-text summary { cursor: pointer; color: var(--body-text-color-subdued); margin-top: .35rem; }
.vdm-text dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; margin: .4rem 0 0; font-size: .78rem; }
.vdm-text dt { color: var(--body-text-color-subdued); }
.vdm-text dd { margin: 0; }
.vdm-text button.vdm-reuse { display: block; margin-top: .35rem; padding: 1px 8px; font: inherit !important;
  border: 1px solid var(--border-color-primary); border-radius: 6px; background: var(--background-fill-secondary);
  color: var(--body-text-color); cursor: pointer; }
.vdm-none { color: var(--body-text-color-subdued); padding: 8px 0; }
"""

REUSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-made]");
  if (button) trigger("select", { made: button.dataset.made });
});
"""
"""Script of the history: tells the server whose settings a visitor wants."""


class Published:
    """Copies of videos in the folder that Gradio serves; of the other files of a run it serves none.

    Args:
        cache: Gradio's folder of temporary files.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def __call__(self, path: Path) -> str:
        """Return the address of a video, relative to the page."""
        changed = path.stat().st_mtime_ns
        name = hashlib.blake2b(f"{path.resolve()} {changed}".encode(), digest_size=16).hexdigest()
        copy = self._cache / "made" / name / path.name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_suffix(".partial")
            with open_regular(path) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            partial.replace(copy)
        return f"gradio_api/file={copy}"


def results_html(results: Sequence[Result], shape: tuple[int, int], address: Address) -> str:
    """Return the results of a job side by side; ``shape`` is height and width of the videos."""
    return f'<div class="vdm-cards vdm-results">{"".join(_result(one, shape, address) for one in results)}</div>'


def history_html(made: Sequence[Made], address: Address) -> str:
    """Return the earlier calls, the newest first."""
    if not made:
        return '<p class="vdm-none">Nothing yet. What you make is kept here, and in the folder of the run.</p>'
    return f'<div class="vdm-cards">{"".join(_made(one, address) for one in made)}</div>'


def _result(result: Result, shape: tuple[int, int], address: Address) -> str:
    if result.video is not None:
        shown = _video(address(result.video), result.model, autoplay=True)
    elif result.preview:
        shown = f'<img class="vdm-shown" src="{html_text(result.preview, len(result.preview))}" alt="Preview">'
    else:
        shown = f'<div class="vdm-shown vdm-empty">{"no video" if result.error else "&hellip;"}</div>'
    status = f'<span class="vdm-status" role="status">{html_text(result.status)}</span>' if not result.error else ""
    lines = [f'{status}<div class="vdm-name">{html_text(result.model)}</div>']
    if result.error:
        lines.append(f'<p class="vdm-error" role="alert">{html_text(result.error)}</p>')
    lines += [f'<p class="vdm-note">{html_text(note)}</p>' for note in result.notes]
    if result.video is not None:
        lines.append(_download(address(result.video), result.video))
    if result.command:
        opened = " open" if result.is_done and not result.error else ""
        lines.append(f"<details{opened}><summary>Command</summary><pre>{_pre(result.command)}</pre></details>")
    return _card(shown, lines, shape)


def _made(made: Made, address: Address) -> str:
    size = [made.options.get(name) for name in ("height", "width")]
    shape = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else (1, 1)
    where = f"{made.folder.parent.parent.name}/{made.folder.name}, {step_of(Path(str(made.options.get('checkpoint'))))}"
    rows = "".join(f"<dt>{html_text(key)}</dt><dd>{html_text(value, 200)}</dd>" for key, value in made.settings)
    lines = [
        f'<div class="vdm-name">{html_text(made.caption, 200)}</div>',
        f"<div>{html_text(where)}</div>{_download(address(made.video), made.video)}",
        f'<button type="button" class="vdm-reuse" data-made="{made.key}">Use these settings</button>',
        f"<details><summary>Settings and command</summary><dl>{rows}</dl><pre>{_pre(made.command)}</pre></details>",
    ]
    return _card(_video(address(made.video), made.caption, autoplay=False), lines, shape)


def _card(shown: str, lines: Sequence[str], shape: tuple[int, int]) -> str:
    height, width = shape
    large = " vdm-large" if min(shape) >= 128 else ""
    style = f"--shape: {width} / {height}"
    return f'<div class="vdm-card{large}" style="{style}">{shown}<div class="vdm-text">{"".join(lines)}</div></div>'


def _video(address: str, title: str, autoplay: bool) -> str:
    # A pointer that leaves before the video is there interrupts play(), which browsers report as an error.
    on_hover = 'onmouseenter="this.play().catch(function () {})" onmouseleave="this.pause()"'
    how = "autoplay" if autoplay else f'preload="metadata" {on_hover}'
    source = html_text(address if autoplay else f"{address}#t=0.01")  # which shows the first frame
    return f'<video controls loop muted playsinline {how} src="{source}" title="{html_text(title)}"></video>'


def _download(address: str, path: Path) -> str:
    return f'<a href="{html_text(address)}" download="{html_text(path.name)}">Download mp4</a>'


def _pre(text: str) -> str:
    return escape(well_formed(text))  # as it is, to be copied
