"""The page behind its guard, as an ASGI app."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from gradio.themes import Default
from starlette.types import ASGIApp

from vdm.cli.demo.calls import SharedOptions
from vdm.cli.demo.cards import CSS, Published
from vdm.cli.demo.guard import Guard, HostNames
from vdm.cli.demo.models import DemoModel
from vdm.cli.demo.page import Page
from vdm.cli.demo.uploads import UploadLimits
from vdm.cli.options.demo import DemoOptions

_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""Fonts that every system has; Gradio's own would come from elsewhere."""
_HEAD = '<meta name="robots" content="noindex">'


def make_app(
    options: DemoOptions, models: Sequence[DemoModel], cache: Path, is_loopback: bool
) -> tuple[ASGIApp, Callable[[], None]]:
    """Return the app, and a function that stops all jobs.

    Args:
        options: Options of the command.
        models: The loaded models.
        cache: Folder of uploads and of copies of videos, the only files that are served.
        is_loopback: Whether the server listens on the loopback address alone.
    """
    shared = SharedOptions(options.ema, options.device, options.allow_own_code)
    limits = UploadLimits(options.max_upload_mib << 20, options.max_upload_frames)
    page = Page(models, shared, limits, Published(cache))
    text, code = _FONTS
    theme = Default(primary_hue="blue", neutral_hue="slate", font=text, font_mono=code)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page.blocks(),
        path="/",
        footer_links=[],
        run_history=False,
        auth=options.login,
        allowed_paths=[],
        show_error=True,
        max_file_size=limits.max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=CSS,
        head=_HEAD,
    )
    return Guard(app, cache, HostNames.of(is_loopback, options.allowed_hosts or ())), page.stop_all
