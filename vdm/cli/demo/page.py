"""The page: a form with what the models take, the results side by side, and what was made before."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from vdm.cli.demo.calls import SharedOptions
from vdm.cli.demo.cards import REUSE, Published, history_html, results_html
from vdm.cli.demo.form_inputs import FormInputs
from vdm.cli.demo.history import Made, made_before
from vdm.cli.demo.jobs import Job, Result
from vdm.cli.demo.models import DemoModel, step_of
from vdm.cli.demo.reuse import form_values
from vdm.cli.demo.uploads import UploadLimits
from vdm.text import html_text, printable

_MAX_WAITING = 16
"""Visitors who wait for their turn, at most."""
_KEPT = 600, 3600
"""Seconds between two looks for old uploads, and the age in seconds at which they are removed."""


class Page:
    """The page, and the jobs of its visitors.

    Args:
        models: The models, side by side.
        shared: Options of the command that every call has.
        limits: Bounds of uploads.
        published: Makes videos readable for the browser.
    """

    def __init__(
        self, models: Sequence[DemoModel], shared: SharedOptions, limits: UploadLimits, published: Published
    ) -> None:
        self._models, self._shared, self._published = models, shared, published
        self._turn, self._jobs = threading.Lock(), dict[str, Job]()
        self._form = FormInputs(models, limits)

    def stop_all(self) -> None:
        """Stop the jobs of all visitors."""
        for job in list(self._jobs.values()):
            job.is_stopped.set()

    def blocks(self) -> gr.Blocks:
        """Return the page for Gradio."""
        with gr.Blocks(title="vdm demo", analytics_enabled=False, fill_width=True, delete_cache=_KEPT) as page:
            gr.HTML(self._heading(), elem_classes="vdm-head vdm-plain")
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    inputs = self._form.add()
                    with gr.Row():
                        start = gr.Button("Generate", variant="primary", elem_id="generate")
                        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                with gr.Column(scale=3, min_width=320):
                    nothing = [Result(model.name, status="") for model in self._models]
                    results = gr.HTML(self._shown(nothing, {}), elem_classes="vdm-plain")
            gr.HTML("<h2>Made before</h2>", elem_classes="vdm-head vdm-plain")
            history = gr.HTML(self._history, elem_id="history", elem_classes="vdm-plain", js_on_load=REUSE)
            keys = list(inputs)
            running = gr.update(interactive=False), gr.update(interactive=True)
            waiting = gr.update(interactive=True), gr.update(interactive=False)

            def generate(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
                told = dict(zip(keys, values, strict=True))
                yield [gr.skip(), *running, gr.skip()]
                try:
                    for update in self._generate(str(request.session_hash), told):
                        yield [self._shown(update, told), *running, gr.skip()]
                finally:
                    self._jobs.pop(str(request.session_hash), None)
                yield [gr.skip(), *waiting, self._history()]

            private: dict[str, Any] = {"api_visibility": "private"}
            start.click(
                generate,
                list(inputs.values()),
                [results, start, stop, history],
                show_progress="hidden",
                concurrency_limit=_MAX_WAITING,  # they wait for ``_turn``, which the page shows
                **private,
            )
            stop.click(self._stop, None, None, show_progress="hidden", **private)

            def reuse(event: gr.EventData) -> list[Any]:
                return self._reused(getattr(event, "made", None), keys)

            history.select(reuse, None, list(inputs.values()), show_progress="hidden", **private)
            page.unload(self._stop)
            page.load(self._history, None, history, show_progress="hidden", **private)
        page.queue(max_size=_MAX_WAITING, default_concurrency_limit=4)
        return page

    def _heading(self) -> str:
        lines = []
        for model in self._models:
            clip = model.trained.clip
            size = f"{clip.num_frames} frames of {clip.width}&times;{clip.height}, {clip.fps:g} a second"
            step = step_of(model.checkpoint)
            name = model.name if step in model.name else f"{model.name}, {step}"
            lines.append(f"{html_text(name)} &middot; {size}")
        return f"<h1>Make a video</h1>{''.join(f'<p>{line}</p>' for line in lines)}"

    def _generate(self, session: str, told: Mapping[str, Any]) -> Iterator[list[Result]]:
        """Yield the results of a job; errors of the form are results, too."""
        try:
            job = Job(self._form.read(told), self._models, self._shared)
        except ValueError as error:
            yield [Result(model.name, error=printable(error)) for model in self._models]
            return
        self._jobs[session] = job
        yield from job.updates(self._turn)

    def _stop(self, request: gr.Request) -> None:
        """Stop the visitor's job."""
        job = self._jobs.get(str(request.session_hash))
        if job is not None:
            job.is_stopped.set()

    def _shown(self, results: Sequence[Result], told: Mapping[str, Any]) -> str:
        clip = self._models[0].trained.clip
        height, width = (_whole(told.get(name), getattr(clip, name)) for name in ("height", "width"))
        return results_html(results, (height, width), self._published)

    def _made(self) -> Sequence[Made]:
        return made_before(list(dict.fromkeys(model.results for model in self._models)))

    def _history(self) -> str:
        return history_html(self._made(), self._published)

    def _reused(self, key: object, names: Sequence[str]) -> list[Any]:
        """Return the values of the form's inputs for something that was made before; no changes if it is gone."""
        made = next((one for one in self._made() if one.key == key), None)
        if made is None:
            return [gr.skip() for _ in names]
        return [gr.update(value=value) for value in form_values(made.options, names, self._models).values()]


def _whole(text: object, otherwise: int) -> int:
    """Return the whole number in an input; another one if there is none above 0."""
    return (int(str(text)) if str(text).isdecimal() else 0) or otherwise
