"""Calls of ``vdm sample`` from the page: its form as a command line, which is read as that command reads it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
from annotated_types import Interval, Len
from omegaconf import OmegaConf

from vdm.cli.options.sample import SampleOptions
from vdm.cli.overrides import readable
from vdm.cli.ready import ready
from vdm.config.conf_dir import conf_dir
from vdm.config.options import parse
from vdm.config.quoting import hydra_quoted, shell_word
from vdm.ranges import Number, NumSteps, Seed, Size, Text

AS_IN_RUN = "as in the run"
"""Choice of the sampler that leaves the run's own."""


@dataclass(frozen=True)
class Form:
    """What a visitor has filled in; None for what was left empty. The values come from outside."""

    prompt: Text = ""
    negative: Text = ""
    label: Annotated[str, Len(0, 255)] | None = None
    image: Path | None = None
    """First frame; the form does not ask for it if the task has one from its input."""
    task: Literal["extend", "interpolate", "superres"] | None = None
    input: Path | None = None
    """Video that the task starts from."""
    every: Size | None = None
    method: Literal["reconstruction", "replacement", "clean_frames"] | None = None
    sampler: Annotated[str, Len(1, 255)] = AS_IN_RUN
    num_steps: NumSteps | None = None
    guidance_scale: Number | None = None
    seed: Seed = 0
    num_frames: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    height: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    width: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    of_model: dict[str, Number] = field(default_factory=dict[str, Number])
    """Numbers that a model is conditioned on, by name."""


@dataclass(frozen=True)
class SharedOptions:
    """Options of ``vdm demo`` that ``vdm sample`` has too."""

    ema: bool | str = True
    device: str = "auto"
    allow_own_code: bool = False

    def words(self, checkpoint: Path) -> list[str]:
        """Return the arguments of ``vdm sample`` that every call of this checkpoint has."""
        told = [_path("checkpoint", checkpoint)]
        if isinstance(self.ema, str):
            told.append(_text("ema", self.ema))
        elif not self.ema:
            told.append("ema=false")
        told += [] if self.device == "auto" else [f"device={self.device}"]
        return [*told, "allow_own_code=true"] if self.allow_own_code else told


def words_of(form: Form, taken: "Taken", shared: Sequence[str]) -> list[str]:
    """Return the arguments of ``vdm sample`` for one model, without those that it does not take.

    Raises:
        ValueError: In one line, if there is no such sampler or class.
    """
    return [*shared, *_words(form, taken)]


@dataclass(frozen=True)
class Taken:
    """What a model takes of a form."""

    text: bool
    image: bool
    classes: Sequence[str]
    options: Mapping[str, Any]
    samplers: Sequence[str]


def _words(form: Form, taken: Taken) -> Iterator[str]:
    prompt, negative = _one_line(form.prompt), _one_line(form.negative)
    if taken.text and prompt:
        yield _text("prompts", prompt)
    if taken.text and negative:
        yield _text("negative", negative)
    if form.label is not None and taken.classes:
        if form.label not in taken.classes:
            raise ValueError(f"labels={form.label}: no such class; there are {', '.join(taken.classes)}")
        yield f"labels={taken.classes.index(form.label)}"
    if form.task is not None:
        yield f"task={form.task}"
        if form.input is not None:
            yield _path("input", form.input)
        if form.task == "interpolate" and form.every is not None:
            yield f"every={form.every}"
        if form.method is not None:
            yield f"method={form.method}"
    if form.image is not None and taken.image and form.task in (None, "superres"):
        yield _path("image", form.image)
    if form.sampler != AS_IN_RUN:
        if form.sampler not in taken.samplers:
            raise ValueError(f"sampler={form.sampler}: no such choice: {', '.join(taken.samplers)}")
        yield f"sampler={form.sampler}"
    numbers = {"sampler.num_steps": form.num_steps, "guidance_scale": form.guidance_scale, "seed": form.seed}
    numbers |= {"num_frames": form.num_frames, "height": form.height, "width": form.width}
    numbers |= {name: value for name, value in form.of_model.items() if name in taken.options or name == "fps"}
    for key, number in numbers.items():
        if number is not None:
            yield f"{key}={int(number) if number == int(number) else number}"


def shell_line(words: Sequence[str]) -> str:
    """Return the command line of ``vdm sample`` with these arguments, to be typed into a shell."""
    plain = re.compile(r"[\w./:+=,@%-]+")
    return " ".join(["vdm sample", *(word if plain.fullmatch(word) else shell_word(word) for word in words)])


def options_of_call(words: Sequence[str]) -> SampleOptions:
    """Return the options of ``vdm sample`` with these arguments, read and checked as by that command.

    Hydra must have been initialized, as it is while a command runs.

    Raises:
        ValueError: In one line, if an option is wrong; or an error of Hydra, which ``one_line`` shortens.
    """
    arguments = readable(words, SampleOptions, conf_dir())
    config = ready(hydra.compose("sample", arguments), arguments, Path(), SampleOptions)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return parse(SampleOptions.completed(plain), plain)


def samplers() -> list[str]:
    """Return the names of all samplers."""
    return sorted(path.stem for path in (conf_dir() / "sampler").glob("*.yaml"))


def _path(key: str, path: Path) -> str:
    return f"{key}={path}" if re.fullmatch(r"[\w./+=-]+", str(path)) else _text(key, str(path))


def _text(key: str, text: str) -> str:
    return f"{key}={hydra_quoted(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())
