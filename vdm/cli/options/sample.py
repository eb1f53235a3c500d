"""Options of ``vdm sample``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, MinLen

from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import load_config
from vdm.cli.options.memory import check_memory
from vdm.cli.options.of_model import options_of_model
from vdm.cli.options.paths import check_file
from vdm.cli.options.sampling import SamplingOptions
from vdm.cli.sample_settings import Settings
from vdm.config import ConfigError
from vdm.config.errors import nearest
from vdm.config.options import MAY_BE_ABSENT, Caption, Component, NeverANumber, PlainPath, options_of
from vdm.config.words import Described
from vdm.ranges import Count, NotNegative, Positive, Size

Label = Annotated[int, Ge(0)] | Annotated[str, NeverANumber()]
"""A class, by index or by name."""
_SHARED = {"fps"}
"""Options that both the command and a model may have: the speed of videos is also a condition of some models."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(SamplingOptions):
    """Everything that ``conf/sample.yaml`` sets; ``completed`` adds the options of the model."""

    checkpoint: PlainPath
    sampler: Component
    guidance: Component
    settings: PlainPath | None
    overwrite: bool
    model: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    text_encoder: Component | None
    """Referred to by YAMLs of models; the run has its own."""
    prompts: Caption | Annotated[list[Caption], MinLen(1), Described("a list of one or more texts")] | None
    prompts_file: PlainPath | None
    labels: Annotated[
        Label | Annotated[list[Label], MinLen(1)] | None,
        Described("a class by its index or name, or a list of one or more, or null"),
    ]
    image: PlainPath | None
    last_image: PlainPath | None
    negative: Caption
    num_videos: Size
    num_frames: Size | None
    height: Size | None
    width: Size | None
    fps: Positive | None
    task: Literal["extend", "interpolate", "superres"] | None
    input: PlainPath | None
    input_fps: Positive | None
    input_frames: Count | Literal["all"] | None
    goes_on_from: Literal["end", "start"] = field(metadata={"key": "from"})
    every: Size
    block_frames: Size | None
    overlap: Size | None
    method: Literal["reconstruction", "replacement", "clean_frames"] | None
    reconstruction_scale: NotNegative

    def __post_init__(self) -> None:
        if self.overwrite and self.output is None:
            raise ConfigError("overwrite=true: needs output=FOLDER; without it every call has a new folder")
        if self.input is not None and self.task is None:
            raise ConfigError(f"input={self.input}: say what to do with it: task=extend, interpolate or superres")
        if self.input is None and self.task is not None:
            raise ConfigError(f"task={self.task}: needs a video, input=FILE")
        for name in ("input_fps", "input_frames"):
            if self.input is None and getattr(self, name) is not None:
                raise ConfigError(f"{name}={getattr(self, name)}: there is no input")
        if self.goes_on_from == "start" and self.task != "extend":
            raise ConfigError("from=start: only task=extend takes frames from one end of its input")
        if self.method == "clean_frames" and self.task == "superres":
            raise ConfigError("method=clean_frames: task=superres has no frames that are known as they are")
        pictures = {"image": (self.image, "first frame"), "last_image": (self.last_image, "known frames")}
        for name, (path, what) in pictures.items():
            if path is not None and self.task in ("extend", "interpolate"):
                raise ConfigError(f"{name}={path}: task={self.task} has its {what} from input")
        if self.prompts is not None and self.prompts_file is not None:
            raise ConfigError("prompts_file: give either prompts or prompts_file, not both")

    @classmethod
    def completed(cls, told: Mapping[str, Any]) -> type[Self]:
        """Return the class with the options of the checkpoint's model.

        Raises:
            ConfigError: If ``told`` has a key that neither the command nor the model has, or an option of the model has
                the name of one of the command.
            ValueError: In one line, if ``settings`` or the checkpoint can't be read.
        """
        checkpoint, allow_own_code = told.get("checkpoint", "???"), told.get("allow_own_code") is True
        settings = told.get("settings")
        if checkpoint == "???" and isinstance(settings, str | int | float):
            checkpoint = Settings.read_file(Path(str(settings)), allow_own_code).options.get("checkpoint", "???")
        if checkpoint == "???" or not isinstance(checkpoint, str | int | float):
            return cls
        found = options_of_model(Path(str(checkpoint)), allow_own_code)
        of_model, general = found or {}, {option.key for option in options_of(cls)}
        if both := sorted(of_model.keys() & general - _SHARED):
            raise ConfigError(
                f"model.conditioner: its option {both[0]} has the name of an option of the command, and could not be"
                " given; rename it in the class that `options` of the conditioner declares"
            )
        for key in sorted(told.keys() - general - of_model.keys()):
            advice = nearest(key, general | of_model.keys())
            if advice and advice == nearest(key, general):
                continue  # a mistyped option of the command
            if found is None:
                RunConfig.read(Path(str(checkpoint)), allow_own_code)  # raises the error of the run
            names = ", ".join(sorted(of_model)) or "none"
            raise ConfigError(f"{key}: the model of {checkpoint} has no such option{advice}; it has: {names}")
        added = [
            (name, annotation | None, field(default=None, metadata=MAY_BE_ABSENT))
            for name, annotation in of_model.items()
        ]
        return make_dataclass(cls.__name__, added, bases=(cls,), frozen=True, kw_only=True)

    @property
    def default_folder(self) -> Path:
        """The run's folder; with ``settings=``, which may name any run, the current folder."""
        return super().default_folder if self.settings is None else Path()

    @property
    def num_prompts(self) -> int:
        """Number of prompts on the command line; 1 if they come from a file."""
        given = self.prompts if isinstance(self.prompts, list) else self.labels
        return len(given) if isinstance(given, list) else 1

    def check_paths(self) -> None:
        """Refuse missing files, too."""
        super().check_paths()
        named = {
            "image": self.image,
            "last_image": self.last_image,
            "input": self.input,
            "prompts_file": self.prompts_file,
            "settings": self.settings,
        }
        for key, path in named.items():
            if path is not None:
                check_file(path, key)

    def check_machine(self) -> None:
        """Refuse a missing device, and videos that don't fit into memory; this imports PyTorch."""
        device = self.find_device()
        told, usual = (self.num_frames, self.height, self.width), _clip_size(self.checkpoint)
        num_frames, height, width = (size or other for size, other in zip(told, usual, strict=True))
        num_videos = self.num_prompts * self.num_videos
        check_memory(num_frames, height, width, self.batch_size, num_videos, device)


def _clip_size(checkpoint: Path) -> tuple[int, int, int]:
    """Return frames, height and width of a run's clips; 1 if they are not recorded, which the command reports later."""
    try:
        clip = load_config(checkpoint).get("clip")
    except ValueError:
        clip = None
    sizes = [clip.get(name) if isinstance(clip, dict) else None for name in ("num_frames", "height", "width")]
    num_frames, height, width = (size if isinstance(size, int) else 1 for size in sizes)
    return num_frames, height, width
