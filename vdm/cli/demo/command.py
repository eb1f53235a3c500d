"""The command ``vdm demo``: loads the models, then serves the page until Ctrl-C."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.cli.options.demo import PASSWORD_VARIABLE, USER_VARIABLE, DemoOptions
from vdm.config.options import parse
from vdm.extras import needs_extra

_log = logging.getLogger(__name__)
_GRADIO = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_NODE_SERVER_NAME": "127.0.0.1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Variables that Gradio and its libraries read when they are imported: nothing is sent to anybody."""


def run(config: DictConfig) -> None:
    """Load the models, print the address, and serve until Ctrl-C or SIGTERM."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(DemoOptions, plain)
    with tempfile.TemporaryDirectory(prefix="vdm-demo-") as folder:
        os.environ.update(_GRADIO, GRADIO_TEMP_DIR=folder)
        for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH"):
            os.environ.pop(name, None)
        with needs_extra("demo", "vdm demo"):
            import gradio  # noqa: F401 - a missing package is one line
        _serve(options, Path(folder))


def _serve(options: DemoOptions, cache: Path) -> None:
    from vdm.cli.demo.app import make_app
    from vdm.cli.demo.models import load_models
    from vdm.cli.demo.server import is_loopback, listen, serving, stop_signals, url_of

    models = load_models(options)
    sock = listen(options.host, options.port)
    if not is_loopback(sock):
        _warn_of_visitors(options)
    app, stop_jobs = make_app(options, models, cache, is_loopback(sock))
    with stop_signals() as stopped, serving(app, sock):
        print(f"Open {url_of(sock)}   (Ctrl-C ends it)", flush=True)
        stopped.wait()
        stop_jobs()
    print("Ended")


def _warn_of_visitors(options: DemoOptions) -> None:
    if options.login is None:
        _log.warning(
            "host=%s: everyone who reaches this machine can use the page; user=NAME with the environment variable %s"
            " asks for a password (%s is read too)",
            *(options.host, PASSWORD_VARIABLE, USER_VARIABLE),
        )
    else:
        _log.warning("host=%s: the password is sent unencrypted; put a proxy with HTTPS before it", options.host)
