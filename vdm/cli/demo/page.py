"""The page: a form with what the models take, the results side by side, and what was made before."""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vdm.cli.demo.calls import AS_IN_RUN, Form, SharedOptions, samplers
from vdm.cli.demo.cards import Published, history_html, results_html
from vdm.cli.demo.history import made_before
from vdm.cli.demo.jobs import Job, Result
from vdm.cli.demo.models import DemoModel
from vdm.cli.demo.preview import animation
from vdm.cli.demo.uploads import UploadLimits
from vdm.config import ConfigError
from vdm.outside import typed
from vdm.text import html_text, printable

_TASKS = {
    "A new video": None,
    "Extend a video": "extend",
    "Frames between those of a video": "interpolate",
    "A video enlarged": "superres",
}
_METHODS = {
    "guided towards them": "reconstruction",
    "replaced in each step (fast)": "replacement",
    "given to the model (for models trained so)": "clean_frames",
}
_MAX_WAITING = 16
"""Visitors who wait for their turn, at most."""
_MAX_SEED = 2**31 - 1


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
        self._models, self._shared, self._limits, self._published = models, shared, limits, published
        self._turn, self._jobs = threading.Lock(), dict[str, Job]()
        self._options = {name: value for model in models for name, value in model.options.items()}

    def stop_all(self) -> None:
        """Stop the jobs of all visitors."""
        for job in list(self._jobs.values()):
            job.is_stopped.set()

    def blocks(self) -> gr.Blocks:
        """Return the page for Gradio."""
        with gr.Blocks(title="vdm demo", analytics_enabled=False, fill_width=False) as page:
            gr.HTML(self._heading(), elem_classes="vdm-head")
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    inputs = self._form()
                    with gr.Row():
                        start = gr.Button("Generate", variant="primary", elem_id="generate")
                        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                with gr.Column(scale=3, min_width=320):
                    results = gr.HTML(self._shown([Result(model.name, status="") for model in self._models], {}))
            gr.HTML("<h2>Made before</h2>", elem_classes="vdm-head")
            history = gr.HTML(self._history, elem_id="history")
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
                concurrency_limit=1,
                concurrency_id="models",
                **private,
            )
            stop.click(self._stop, None, None, queue=False, show_progress="hidden", **private)
            page.unload(self._stop)
            page.load(self._history, None, history, show_progress="hidden", **private)
        page.queue(max_size=_MAX_WAITING, default_concurrency_limit=4)
        return page

    def _heading(self) -> str:
        lines = []
        for model in self._models:
            clip = model.trained.clip
            size = f"{clip.num_frames} frames of {clip.width}&times;{clip.height}, {clip.fps:g} a second"
            lines.append(f"{html_text(model.name)} &middot; {html_text(model.checkpoint.name)} &middot; {size}")
        return f"<h1>Make a video</h1>{''.join(f'<p>{line}</p>' for line in lines)}"

    def _form(self) -> dict[str, Any]:
        """Add the inputs that a model takes; return them by the names of the fields of ``Form``."""
        models, inputs = self._models, dict[str, Any]()
        if any(model.takes_text for model in models):
            inputs["prompt"] = gr.Textbox(label="Prompt", lines=2, max_lines=6, max_length=10_000, elem_id="prompt")
            inputs["negative"] = gr.Textbox(
                label="Negative prompt", info="What the video should not show", max_lines=4, max_length=10_000
            )
        if classes := list(dict.fromkeys(name for model in models for name in model.classes)):
            inputs["label"] = gr.Dropdown(["any", *classes], value="any", label="Class")
        inputs |= self._files()
        return inputs | self._sampling() | self._size()

    def _files(self) -> dict[str, Any]:
        """Add first frame, task and input video."""
        inputs: dict[str, Any] = {}
        if any(model.takes_image for model in self._models):
            inputs["image"] = gr.File(label="First frame: a picture", file_count="single", height=140, elem_id="image")
            seen = gr.HTML(visible=False)
            inputs["image"].change(self._see_picture, inputs["image"], seen, api_visibility="private")
        possible = {task for model in self._models for task in model.tasks}
        names = [name for name, task in _TASKS.items() if task is None or task in possible]
        if len(names) > 1:
            inputs["task"] = gr.Dropdown(names, value=names[0], label="What to make", elem_id="task")
            with gr.Group(visible=False) as of_task:
                inputs["input"] = gr.File(label="Input video", file_count="single", height=140, elem_id="input")
                seen_video = gr.HTML(visible=False)
                inputs["method"] = gr.Dropdown([*_METHODS], value=next(iter(_METHODS)), label="Known frames are")
                inputs["every"] = gr.Number(
                    2, label="The input's frames become every n-th", precision=0, minimum=2, visible=False
                )
            inputs["task"].change(
                lambda task: (gr.update(visible=bool(_TASKS.get(task))), gr.update(visible="between" in task)),
                inputs["task"],
                [of_task, inputs["every"]],
                queue=False,
                api_visibility="private",
            )
            inputs["input"].change(self._see_video, inputs["input"], seen_video, api_visibility="private")
        return inputs

    def _sampling(self) -> dict[str, Any]:
        """Add sampler and seed."""
        steps = _usual([model.num_steps for model in self._models])
        scale = _usual([model.trained.guidance_scale for model in self._models])
        with gr.Group():
            sampler = gr.Dropdown([AS_IN_RUN, *samplers()], value=AS_IN_RUN, label="Sampler", elem_id="sampler")
            with gr.Row():
                num_steps = _number_box("Steps", steps, "steps")
                guidance = _number_box("Guidance", scale, "guidance")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90, elem_id="seed")
        other = gr.Button("Another seed", size="sm", elem_id="new-seed")
        other.click(lambda: random.randint(0, _MAX_SEED), None, seed, queue=False, api_visibility="private")
        return {"sampler": sampler, "num_steps": num_steps, "guidance_scale": guidance, "seed": seed}

    def _size(self) -> dict[str, Any]:
        """Add size and speed, and the numbers that a model is conditioned on."""
        clips, inputs = [model.trained.clip for model in self._models], dict[str, Any]()
        labels = {"num_frames": "Frames", "width": "Width", "height": "Height", "fps": "Frames a second"}
        with gr.Accordion("Size and speed", open=False):
            with gr.Row():
                for name, label in labels.items():
                    usual = _usual([getattr(clip, name) for clip in clips])
                    inputs[name] = _number_box(label, usual, name)
            with gr.Row():
                for name, value in self._options.items():
                    if name != "fps":
                        inputs[name] = _number_box(name.replace("_", " ").capitalize(), str(value), name)
        return inputs

    def _generate(self, session: str, told: Mapping[str, Any]) -> Iterator[list[Result]]:
        """Yield the results of a job; errors of the form are results, too."""
        try:
            job = Job(self._read(told), self._models, self._shared)
        except ValueError as error:
            yield [Result(model.name, error=printable(error)) for model in self._models]
            return
        self._jobs[session] = job
        yield from job.updates(self._turn)

    def _read(self, told: Mapping[str, Any]) -> Form:
        """Return the form with its values checked, and its files kept where commands find them later.

        Raises:
            ValueError: In one line.
        """
        of_model = {"fps", *self._options}
        values = {name: value for name, value in told.items() if name not in of_model}
        values |= {name: _number(name, values[name], int) for name in ("num_steps", "num_frames", "height", "width")}
        values["guidance_scale"] = _number("guidance_scale", values["guidance_scale"], float)
        numbers = {name: _number(name, told[name], float) for name in of_model}
        values["of_model"] = {name: number for name, number in numbers.items() if number is not None}
        values["task"] = _TASKS.get(values.get("task") or "")
        values["method"] = _METHODS.get(values.get("method") or "") if values["task"] else None
        if values.get("label") == "any":
            del values["label"]
        wanted = {"image": self._limits.picture}
        if values["task"] is not None:
            wanted["input"] = self._limits.video
            if values.get("input") is None:
                raise ConfigError("input: choose a video to start from")
        files = {}
        for key, check in wanted.items():
            if values.get(key) is not None:
                check(Path(values[key]))
                files[key] = self._limits.keep(Path(values[key]), self._models[0].results)
        plain = {name: value for name, value in values.items() if name not in ("image", "input") and value is not None}
        return Form(**{**vars(typed(Form, plain, "the form")), **files})

    def _stop(self, request: gr.Request) -> None:
        """Stop the visitor's job."""
        job = self._jobs.get(str(request.session_hash))
        if job is not None:
            job.is_stopped.set()

    def _see_picture(self, file: str | None) -> Any:
        return self._seen(file, lambda path: self._limits.picture(path)[0][:, None])

    def _see_video(self, file: str | None) -> Any:
        return self._seen(file, self._limits.video)

    def _seen(self, file: str | None, read: Any) -> Any:
        """Show an upload as this project's readers see it, or why it can't be used."""
        if file is None:
            return gr.update(value="", visible=False)
        try:
            address = animation(read(Path(file)), 8)
        except ValueError as error:
            return gr.update(
                value=f'<p class="vdm-error" role="alert">{html_text(_without_path(error, file))}</p>', visible=True
            )
        return gr.update(value=f'<img src="{address}" alt="What was uploaded" height="96">', visible=True)

    def _shown(self, results: Sequence[Result], told: Mapping[str, Any]) -> str:
        clip = self._models[0].trained.clip
        height, width = (_whole(told.get(name), getattr(clip, name)) for name in ("height", "width"))
        return results_html(results, (height, width), self._published)

    def _history(self) -> str:
        folders = list(dict.fromkeys(model.results for model in self._models))
        return history_html(made_before(folders), self._published)


def _number_box(label: str, usual: str, name: str) -> gr.Textbox:
    """Return an input for a number that may be left empty, which Gradio's own can't be."""
    return gr.Textbox(label=label, placeholder=usual, max_lines=1, max_length=24, min_width=90, elem_id=name)


def _number(key: str, text: str | None, kind: type[int] | type[float]) -> int | float | None:
    """Return the number in an input; None if it was left empty.

    Raises:
        ConfigError: If it is something else.
    """
    if not (text or "").strip():
        return None
    try:
        return kind(str(text))
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{key}={text}: must be {wanted}") from None


def _whole(text: object, otherwise: int) -> int:
    """Return the whole number in an input; another one if there is none above 0."""
    return (int(str(text)) if str(text).isdecimal() else 0) or otherwise


def _usual(values: Sequence[float | None]) -> str:
    """Return the value that all models have, which an input shows while it is empty."""
    first = values[0]
    if any(value != first for value in values):
        return "each run's"
    return "" if first is None else f"{first:g}"


def _without_path(error: Exception, file: str) -> str:
    """Return a message without the place of the upload on this machine."""
    return str(error).replace(file, Path(file).name)
