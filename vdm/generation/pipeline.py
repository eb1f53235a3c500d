"""The pipeline of ``vdm.load_model``: a trained model that makes videos from prompts, in Python."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.assembly.load import load_with_guide
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RecordedClip, RunConfig
from vdm.config.annotations import annotations_of
from vdm.config.errors import nearest
from vdm.diffusion.guidance import Guidance
from vdm.diffusion.observations import ObservationMethod
from vdm.diffusion.samplers.base import Sampler
from vdm.generation.arguments import PLAIN, Picture, captions_of, changed, check_kinds, checked, pictures_of
from vdm.generation.conditions import conditions, model_options, per_video, refuse_unless_first_frame
from vdm.generation.frame_blocks import block_size, plan_blocks
from vdm.generation.generate import Output, check_size, generate
from vdm.generation.generated import GeneratedVideos
from vdm.generation.known_frames import with_pictures
from vdm.generation.tasks import Known
from vdm.prompts import Prompts
from vdm.types import ClipSize

_NO_SETTINGS = ("output", "progress", "num_steps", "guidance_scale")
"""Arguments that are not recorded: the videos don't depend on them, or sampler and guidance contain them."""


@dataclass(frozen=True)
class VideoPipeline:
    """A trained model, and the size and speed of its training clips; calling it with prompts makes videos.

    ::

        pipe = vdm.load_model("runs/NAME/TIME").to("cuda")
        pipe("a dog runs", num_steps=20, guidance_scale=3, seed=0).save("dog.mp4")

    The same settings give the same videos as ``vdm sample``, bit for bit.
    """

    model: VideoDiffusionModel
    """The whole model; its ``sampler`` and ``guidance`` are the defaults of a call."""
    clip: RecordedClip
    """Default size and speed of the videos, and the names of classes."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights to a device, and return this pipeline."""
        self.model.to(device)
        return self

    def __call__(
        self,
        prompts: str | Sequence[str] | Prompts | None = None,
        *,
        labels: int | str | Sequence[int | str] | None = None,
        image: Picture | Sequence[Picture] | None = None,
        last_image: Picture | Sequence[Picture] | None = None,
        negative: str = "",
        num_videos: int = 1,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
        guidance: Guidance | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        noise: Float[Tensor, "b c t h w"] | None = None,
        known: Known | None = None,
        block_frames: int | None = None,
        overlap: int | None = None,
        method: ObservationMethod | None = None,
        batch_size: int = 8,
        output: Output = "videos",
        progress: bool = True,
        **options: Any,
    ) -> GeneratedVideos:
        """Return videos.

        Args:
            prompts: One caption or several; None if there are only labels, or no conditions at all. ``Prompts``, as
                ``model.prompts`` makes them, may have conditions of any kind, one entry a video.
            labels: Classes by index or name, one for each prompt or one for all.
            image: First frame of each prompt's videos, or one for all: a file, a PIL picture, or uint8 RGB of the
                videos' size (``3 h w``). Files and pictures are scaled to cover the frame and cropped at the centre.
            last_image: Last frame of each prompt's videos, or one for all, given as ``image`` is.
            negative: Caption to be guided away from.
            num_videos: Videos for each prompt.
            num_frames: Frames of a video, by default as in training. More than that are made in frame blocks.
            height: Pixels, by default as in training.
            width: Pixels, by default as in training.
            fps: Frames per second of the videos, and the model's condition of that name; by default as in training.
            sampler: By default that of the model.
            num_steps: Replaces ``num_steps`` of the sampler.
            guidance: By default that of the model.
            guidance_scale: Replaces ``scale`` of the guidance.
            seed: Seed of the noise: the noise of video number i depends on nothing else but its size.
            noise: Initial noise in the shape of the latents, one entry a video; by default it is drawn from ``seed``.
            known: What is known of each video, from a function of ``vdm.generation.tasks``.
            block_frames: Frames of a block, by default as in training.
            overlap: Frames of a block that are known from the block before, by default about half.
            method: How sampling is made consistent with known frames; by default as ``generate`` says.
            batch_size: Videos made at once, at most.
            output: ``videos``, or the ``latents`` that they would be decoded from.
            progress: Show a progress bar.
            options: Options that the model's conditioner declares, such as ``motion_bucket_id``.

        Raises:
            ValueError: In one line, if an argument is wrong or contradicts another.
        """
        chosen = {name: value for name, value in locals().items() if name in PLAIN}
        told = {name: checked(name, value, PLAIN[name]) for name, value in chosen.items()}
        check_kinds(labels, noise, known, method)
        size = ClipSize(*(told[name] or getattr(self.clip, name) for name in ("num_frames", "height", "width")))
        check_size(self.model, size)
        compression = self.model.encoder.compression
        block = block_size(compression, self.clip.num_frames, told["block_frames"], told["overlap"])
        used_sampler = changed(
            self.model.sampler if sampler is None else sampler, "sampler", "num_steps", told["num_steps"]
        )
        used_guidance = changed(
            self.model.guidance if guidance is None else guidance, "guidance", "scale", told["guidance_scale"]
        )
        with _set(self.model, used_sampler, used_guidance), self._with_options(options, told["fps"]):
            asked = self._conditions(prompts, labels, image, last_image, size, num_videos, seed)
            known = self._known(known or Known(), image, last_image, size, len(asked) // num_videos, num_videos)
            blocks = plan_blocks(size.num_frames, block, known.indices)
            content = generate(
                self.model,
                asked,
                size,
                seed,
                batch_size,
                negative,
                known,
                blocks,
                method,
                noise=noise,
                output=output,
                progress=progress,
            )
        used = {**told, **asdict(size), "sampler": repr(used_sampler), "guidance": repr(used_guidance), **options}
        settings = {name: value for name, value in used.items() if value is not None and name not in _NO_SETTINGS}
        return GeneratedVideos(content, told["fps"] or self.clip.fps, asked.captions, settings)

    def _conditions(
        self,
        prompts: str | Sequence[str] | Prompts | None,
        labels: int | str | Sequence[int | str] | None,
        image: Picture | Sequence[Picture] | None,
        last_image: Picture | Sequence[Picture] | None,
        size: ClipSize,
        num_videos: int,
        seed: int,
    ) -> Prompts:
        if isinstance(prompts, Prompts):
            if labels is not None or image is not None or last_image is not None or num_videos != 1:
                raise ValueError("prompts: have labels, images and number of videos in themselves; give them there")
            return prompts.to(self.device)
        if image is not None:
            refuse_unless_first_frame(self.model, "image")
        is_condition = image is not None and "image" in self.model.conditioner.takes
        frames = pictures_of(image, size, "image") if is_condition else None
        names = self.clip.label_names
        return conditions(self.model, captions_of(prompts), labels, frames, names, num_videos, seed)

    def _known(
        self,
        known: Known,
        image: Picture | Sequence[Picture] | None,
        last_image: Picture | Sequence[Picture] | None,
        size: ClipSize,
        num_prompts: int,
        num_videos: int,
    ) -> Known:
        """Return what is known of the videos, with the pictures that are no condition of the model."""
        first = None if "image" in self.model.conditioner.takes else image
        frames = [
            None if given is None else per_video(pictures_of(given, size, name), name, kind, num_prompts, num_videos)
            for given, name, kind in ((first, "image", "first frames"), (last_image, "last_image", "last frames"))
        ]
        return with_pictures(self.model, known, size.num_frames, *frames)

    @contextmanager
    def _with_options(self, told: Mapping[str, Any], fps: float | None) -> Iterator[None]:
        """Set options of the model's conditioner, until the block ends.

        Raises:
            ValueError: If it has no such option, or a value is not allowed.
        """
        conditioner = self.model.conditioner
        present = conditioner.options
        annotations = {} if present is None else annotations_of(type(present))
        for name, value in told.items():
            if name not in annotations:
                taken = {*inspect.signature(self.__call__).parameters} - {"options"} | annotations.keys()
                raise ValueError(f"{name}: no such option{nearest(name, taken)}")
            checked(name, value, annotations[name])
        if present is None:
            yield
            return
        conditioner.options = model_options(
            present, {"fps": fps, **told} if "fps" in annotations else told, self.clip.fps
        )
        try:
            yield
        finally:
            conditioner.options = present


def load_model(
    path: str | Path, ema: bool | str = True, guide: str | Path | None = None, allow_own_code: bool = False
) -> VideoPipeline:
    """Return the model of a run, or of one of its checkpoints, ready to make videos, on the CPU.

    ``VideoDiffusionModel.from_checkpoint`` returns the model alone, as it is trained.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Load EMA weights; a text names one of several averages.
        guide: Run or checkpoint of the autoguidance model: smaller or less trained (Karras et al. 2024).
        allow_own_code: Let the run's configuration name classes outside this project, which runs their code.

    Raises:
        ValueError: In one line, if there is no whole checkpoint, its weights don't fit its configuration, or the run
            lacks a record of its clips.
    """
    trained = RunConfig.read(Path(path), allow_own_code)
    model = load_with_guide(trained, latest_checkpoint(Path(path)), ema, guide, allow_own_code)
    return VideoPipeline(model, trained.clip)


@contextmanager
def _set(model: VideoDiffusionModel, sampler: Sampler, guidance: Guidance) -> Iterator[None]:
    """Replace a model's sampler and guidance until the block ends."""
    before = model.sampler, model.guidance
    model.sampler, model.guidance = sampler, guidance
    try:
        yield
    finally:
        model.sampler, model.guidance = before
