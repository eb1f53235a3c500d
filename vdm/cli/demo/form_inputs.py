"""The form of the page: inputs for what the models take, and the reading of what a visitor filled in."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vdm.cli.demo.calls import AS_IN_RUN, Form, samplers
from vdm.cli.demo.models import DemoModel
from vdm.cli.demo.preview import animation
from vdm.cli.demo.uploads import UploadedFrames, UploadLimits
from vdm.config import ConfigError
from vdm.outside import typed
from vdm.text import html_text

TASKS = {
    "A new video": None,
    "Extend a video": "extend",
    "Frames between those of a video": "interpolate",
    "A video enlarged": "superres",
}
METHODS = {
    "guided towards them": "reconstruction",
    "replaced in each step (fast)": "replacement",
    "given to the model (for models trained so)": "clean_frames",
}
ANY_CLASS = "any class"
_SHOWN_FPS = 8
"""Frames per second at which an upload is shown."""
_MAX_SEED = 2**31 - 1


class FormInputs:
    """The inputs of the form.

    Args:
        models: The models; an input is there if one of them takes it.
        limits: Bounds of uploads.
    """

    def __init__(self, models: Sequence[DemoModel], limits: UploadLimits) -> None:
        self._models, self._limits = models, limits
        self._options = {name: value for model in models for name, value in model.options.items()}

    def add(self) -> dict[str, Any]:
        """Add the inputs that a model takes; return them by the names of the fields of ``Form``."""
        models, inputs = self._models, dict[str, Any]()
        if any(model.takes_text for model in models):
            inputs["prompt"] = gr.Textbox(label="Prompt", lines=2, max_lines=6, max_length=10_000, elem_id="prompt")
            inputs["negative"] = gr.Textbox(
                label="Negative prompt", info="What the video should not show", max_lines=4, max_length=10_000
            )
        if classes := list(dict.fromkeys(name for model in models for name in model.classes)):
            inputs["label"] = gr.Dropdown([ANY_CLASS, *classes], value=ANY_CLASS, label="Class", elem_id="class")
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
        names = [name for name, task in TASKS.items() if task is None or task in possible]
        if len(names) > 1:
            inputs["task"] = gr.Dropdown(names, value=names[0], label="What to make", elem_id="task")
            with gr.Column(visible=False) as of_task:
                inputs["input"] = gr.File(label="Input video", file_count="single", height=140, elem_id="input")
                seen_video = gr.HTML(visible=False)
                inputs["method"] = gr.Dropdown([*METHODS], value=next(iter(METHODS)), label="Known frames are")
                inputs["every"] = gr.Number(
                    2, label="The input's frames become every n-th", precision=0, minimum=2, visible=False
                )
            of_new = [inputs["image"]] if "image" in inputs else []

            def show_inputs(name: str) -> list[Any]:
                task = TASKS.get(name)
                shown = [task is not None, task == "interpolate", *(task in (None, "superres") for _ in of_new)]
                return [gr.update(visible=is_shown) for is_shown in shown]

            inputs["task"].change(
                show_inputs, inputs["task"], [of_task, inputs["every"], *of_new], api_visibility="private"
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
        other.click(lambda: random.randint(0, _MAX_SEED), None, seed, api_visibility="private")
        return {"sampler": sampler, "num_steps": num_steps, "guidance_scale": guidance, "seed": seed}

    def _size(self) -> dict[str, Any]:
        """Add size and speed, and the numbers that a model is conditioned on."""
        clips, inputs = [model.trained.clip for model in self._models], dict[str, Any]()
        labels = {"num_frames": "Frames", "width": "Width", "height": "Height", "fps": "FPS"}
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

    def read(self, told: Mapping[str, Any]) -> Form:
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
        values["task"] = TASKS.get(values.get("task") or "")
        values["method"] = METHODS.get(values.get("method") or "") if values["task"] else None
        if values.get("label") == ANY_CLASS:
            del values["label"]
        wanted = {"image": self._limits.picture}
        if values["task"] is not None:
            wanted["input"] = self._limits.video
            if values.get("input") is None:
                raise ConfigError("input: choose a video to start from")
        files = {}
        for key, check in wanted.items():
            if values.get(key) is not None:
                _checked_upload(check, values[key])
                files[key] = self._limits.keep(Path(values[key]), self._models[0].results)
        plain = {name: value for name, value in values.items() if name not in ("image", "input") and value is not None}
        return Form(**{**vars(typed(Form, plain, "the form")), **files})

    def _see_picture(self, file: str | None) -> Any:
        return self._seen(file, self._limits.picture)

    def _see_video(self, file: str | None) -> Any:
        return self._seen(file, self._limits.video)

    def _seen(self, file: str | None, read: Callable[[Path], UploadedFrames]) -> Any:
        """Show an upload as this project's readers see it, or why it can't be used."""
        if file is None:
            return gr.update(value="", visible=False)
        try:
            address = animation(_checked_upload(read, file), _SHOWN_FPS)
        except ValueError as error:
            return gr.update(value=f'<p class="vdm-error" role="alert">{html_text(error)}</p>', visible=True)
        return gr.update(value=f'<img src="{address}" alt="What was uploaded" height="96">', visible=True)


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


def _usual(values: Sequence[float | None]) -> str:
    """Return the value that all models have, which an input shows while it is empty."""
    first = values[0]
    if any(value != first for value in values):
        return "each run's"
    return "" if first is None else f"{first:g}"


def _checked_upload(read: Callable[[Path], UploadedFrames], file: str) -> UploadedFrames:
    """Read an uploaded file.

    Raises:
        ConfigError: With the name that the file had, rather than its place on this machine.
    """
    try:
        return read(Path(file))
    except ValueError as error:
        raise ConfigError(str(error).replace(file, Path(file).name)) from None
    except OSError:
        raise ConfigError(f"{Path(file).name}: is no longer there; upload it again") from None
