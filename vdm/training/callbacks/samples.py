"""Sample videos during training, from the same prompts and noise each time."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import lightning
from annotated_types import Interval, Len
from jaxtyping import UInt8
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from vdm.checkpoints.collectives import run_on_all
from vdm.files import write_json
from vdm.generation.generate import generate
from vdm.generation.known_frames import known_as_in_training
from vdm.generation.tasks import Known
from vdm.generation.video_files import DEFAULT_FPS, file_name, write_grid, write_mp4
from vdm.objectives.latents import pixels_of
from vdm.ranges import Count, Folder, Seed, Text
from vdm.training.loggers.base import LoggedVideo, run_loggers
from vdm.training.module import DiffusionModule
from vdm.types import ClipSize

PROMPTS_NAME = "prompts.json"
"""File beside sampled videos: for each its file, its prompt, and the real clip that has this prompt."""


class SampleVideos(Callback):
    """Writes ``samples/step=…/`` in the run's folder, and logs it: each video, ``grid.mp4``, ``grid.png`` and prompts.

    ``samples/references`` has the held-out clips whose prompts are sampled.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one set of samples to the next; the last step always has one.
        prompts: Captions; ``None`` takes captions, classes and known frames of held-out clips.
        num_videos: Number of held-out clips if there are no prompts.
        seed: Seed of the noise.
    """

    def __init__(
        self,
        run: Folder,
        every_steps: Count,
        prompts: Annotated[list[Text], Len(1, 10_000)] | None = None,
        num_videos: Annotated[int, Interval(ge=1, le=10_000)] = 8,
        seed: Seed = 0,
    ) -> None:
        for name, value in (("every_steps", every_steps), ("num_videos", num_videos)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self.run = Path(run)
        self.every_steps = every_steps
        self.captions = prompts
        self.num_videos = num_videos
        self.seed = seed
        self.sampled_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Choose the prompts."""
        self.sampled_step = trainer.global_step
        held_out = pl_module.data.held_out_clips(self.num_videos)
        self.fps = pl_module.data.fps or DEFAULT_FPS
        self._references: Sequence[Path | None]
        if self.captions is not None or held_out is None:
            self.prompts = pl_module.model.prompts(self.captions or [""] * self.num_videos)
            self.shown = self.prompts.captions
            self._references, self._known = [None] * len(self.prompts), Known()
            return
        held_out = held_out.to(pl_module.device)
        with trainer.precision_plugin.forward_context():
            self.prompts = pl_module.prompts_of(held_out)
            real = pixels_of(pl_module.model, held_out)
            self._known = known_as_in_training(pl_module.model, lambda: real)
        names = [*pl_module.data.label_names, ""]  # the last one for a label of -1
        pairs = zip(held_out.captions, held_out.labels.tolist(), strict=True)
        self.shown = tuple(caption or names[label] for caption, label in pairs)
        folder = self.run / "samples" / "references"
        self._references = [folder / file_name(number, "") for number in range(len(real))]
        if trainer.is_global_zero:
            _write_videos(self._references, real, self.shown, self.fps)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Sample after every ``every_steps`` steps."""
        self.sampled_step = min(self.sampled_step, trainer.global_step)  # training may have gone back
        if trainer.global_step % self.every_steps == 0:
            self.sample(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Sample the final weights, unless training was stopped early."""
        if trainer.global_step >= trainer.max_steps > 0:
            self.sample(trainer, pl_module)

    def sample(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Sample unless this step has been sampled already."""
        step = trainer.global_step
        if step == self.sampled_step:
            return
        self.sampled_step = step
        module.strategy.writer.finish()  # sampling may fail; the checkpoint in progress must not be lost
        with module.clock.interruption("sampling"):
            self._sample(trainer, module, step)

    def _sample(self, trainer: lightning.Trainer, module: DiffusionModule, step: int) -> None:
        run_on_all(module.strategy.check_lock)
        # All processes sample the same videos, since each may have only a shard of the weights.
        was_training = module.model.training
        module.model.eval()
        # In the precision of training, in which sharded weights are gathered, and in batches of training's size.
        with module.ema.swapped_in(), trainer.precision_plugin.forward_context():
            size = ClipSize(*module.data.clip_shape)
            batch_size = module.data.micro_batch_size
            videos = generate(module.model, self.prompts, size, self.seed, batch_size, "", self._known)
        module.model.train(was_training)
        if trainer.is_global_zero:
            self._write(trainer, videos, step)
        trainer.strategy.barrier("samples")

    def _write(self, trainer: lightning.Trainer, videos: UInt8[Tensor, "b c t h w"], step: int) -> None:
        """Write the videos, singly and as a grid, and log them."""
        folder = self.run / "samples" / f"step={step:08d}"
        _, png = write_grid(folder, list(videos), self.fps, self.shown)
        files = [folder / file_name(number, "") for number in range(len(videos))]
        _write_videos(files, videos, self.shown, self.fps)
        logged = [LoggedVideo(*each) for each in zip(files, self.shown, self._references, strict=True)]
        write_json(folder / PROMPTS_NAME, [_described(video, folder) for video in logged], indent=1)
        for logger in run_loggers(trainer):
            logger.log_videos("sample/videos", logged, step)
            logger.log_picture("sample/film_strips", png, "; ".join(filter(None, self.shown)), step)


def _write_videos(
    files: Sequence[Path], videos: UInt8[Tensor, "b c t h w"], captions: Sequence[str], fps: float
) -> None:
    """Write mp4 files, in place of those of an earlier start of the run."""
    for file, video, caption in zip(files, videos, captions, strict=True):
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(file, video, fps, {"title": caption})


def _described(video: LoggedVideo, folder: Path) -> dict[str, str | None]:
    reference = None if video.reference is None else os.path.relpath(video.reference, folder)
    return {"video": video.file.name, "caption": video.caption, "reference": reference}
