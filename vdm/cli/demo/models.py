"""The models that the page makes videos with, and what each of them can do."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import folder_for_results, run_folder
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.demo.calls import SharedOptions, options_of_call
from vdm.cli.options.demo import DemoOptions
from vdm.cli.options.sample import SampleOptions
from vdm.cli.sample import SampleCall, begin, choose, load_for_sampling
from vdm.generation.known_frames import takes_pictures
from vdm.models.autoencoder import PixelAutoencoder

Task = Literal["extend", "interpolate", "superres"]


@dataclass(frozen=True)
class DemoModel:
    """A loaded model."""

    name: str
    """How the page calls it; no other model of the page has this name."""
    checkpoint: Path
    trained: RunConfig
    model: VideoDiffusionModel
    results: Path
    """Folder in which each call gets a numbered one."""
    conditioner_options: Any
    """Options of the conditioner as in the run, which every call starts from."""

    @property
    def takes_text(self) -> bool:
        """Whether it was trained with captions."""
        return "text" in self.model.conditioner.takes

    @property
    def takes_image(self) -> bool:
        """Whether it takes a first frame."""
        return "image" in self.model.conditioner.takes or takes_pictures(self.model)

    @property
    def classes(self) -> Sequence[str]:
        """Names of its classes, or their numbers where they have no names."""
        number = self.model.conditioner.num_classes
        names = self.trained.clip.label_names
        return names if len(names) == number else [str(index) for index in range(number)]

    @cached_property
    def tasks(self) -> Sequence[Task]:
        """The tasks with an input video that are possible."""
        tasks: list[Task] = []
        if self.trained.clip.num_frames > 1:
            tasks.append("extend")
            if self.model.encoder.compression.frames == 1:
                tasks.append("interpolate")
        if isinstance(self.model.encoder, PixelAutoencoder):
            tasks.append("superres")
        return tasks

    @property
    def options(self) -> Mapping[str, Any]:
        """Numbers that it is conditioned on, such as ``motion_bucket_id``, with the run's values."""
        return {} if self.conditioner_options is None else asdict(self.conditioner_options)

    @property
    def num_steps(self) -> int | None:
        """Sampling steps of the run's own sampler; None if they are not fixed."""
        return self.trained.parts["sampler"].get("num_steps")

    def begin(self, words: Sequence[str]) -> SampleCall:
        """Begin the call of ``vdm sample`` with these arguments, as that command does.

        Raises:
            ValueError: In one line, if it is refused.
        """
        options = options_of_call(words)
        self.model.conditioner.options = self.conditioner_options
        choose(self.model, options, self.trained)
        return begin(options, self.trained, self.checkpoint, self.model, self.results)


def load_models(options: DemoOptions) -> list[DemoModel]:
    """Load the models of all checkpoints.

    Raises:
        ValueError: In one line, if one can't be loaded.
    """
    found = [(path, latest_checkpoint(path)) for path in options.checkpoints]
    names = names_of([(run_folder(path), checkpoint) for path, checkpoint in found])
    shared = SharedOptions(options.ema, options.device, options.allow_own_code)
    return [_load(name, *one, options, shared) for name, one in zip(names, found, strict=True)]


def _load(name: str, path: Path, checkpoint: Path, options: DemoOptions, shared: SharedOptions) -> DemoModel:
    told: SampleOptions = options_of_call(shared.words(checkpoint))
    trained = RunConfig.read(path, options.allow_own_code)
    model = load_for_sampling(checkpoint, told, trained)
    results = options.output or folder_for_results(run_folder(path), "samples")
    return DemoModel(name, checkpoint, trained, model, results, model.conditioner.options)


def names_of(checkpoints: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return a name for each checkpoint.

    It is that of its run, with as many of the folders above as tell runs apart, and the step if a run occurs twice.

    Args:
        checkpoints: Folders of run and checkpoint.
    """
    runs = [run.resolve() for run, _ in checkpoints]
    depth = next(depth for depth in count(1) if len({run.parts[-depth:] for run in runs}) == len(set(runs)))
    names = ["/".join(run.parts[-depth:]) for run in runs]
    if len(set(runs)) < len(runs):
        names = [f"{name}, {step_of(checkpoint)}" for name, (_, checkpoint) in zip(names, checkpoints, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def step_of(checkpoint: Path) -> str:
    """Return the step of a checkpoint in words: ``step 1,500``."""
    found = re.fullmatch(r"step=(\d+)", checkpoint.name)
    return f"step {int(found[1]):,}" if found else checkpoint.name
