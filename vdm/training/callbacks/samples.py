"""Sample videos during training, from the same prompts and noise each time."""

from pathlib import Path
from typing import Annotated, Any

import lightning
import numpy as np
from annotated_types import Interval, Len
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from vdm.checkpoints.collectives import run_on_all
from vdm.generation.generate import generate
from vdm.generation.video_files import DEFAULT_FPS, write_grid
from vdm.prompts import Prompts
from vdm.ranges import Count, Folder, Seed, Text
from vdm.training.module import DiffusionModule
from vdm.types import ClipSize


class SampleVideos(Callback):
    """Writes ``samples/step=…/grid.mp4`` and ``grid.png`` into the run's folder, and logs them.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one set of samples to the next; the last step always has one.
        prompts: Captions; ``None`` takes captions, classes and first frames of held-out clips.
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
        if self.captions is not None or held_out is None:
            self.prompts = pl_module.model.prompts(self.captions or [""] * self.num_videos)
        else:
            with trainer.precision_plugin.forward_context():
                self.prompts = pl_module.prompts_of(held_out.to(pl_module.device))

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Sample after every ``every_steps`` steps."""
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
        run_on_all(module.strategy.check_lock)
        # All processes sample the same videos, since each may have only a shard of the weights.
        was_training = module.model.training
        module.model.eval()
        # In the precision of training, in which sharded weights are gathered, and in batches of training's size.
        with module.ema.swapped_in(), trainer.precision_plugin.forward_context():
            size = ClipSize(*module.data.clip_shape)
            videos = generate(module.model, self.prompts, size, self.seed, module.data.micro_batch_size)
        module.model.train(was_training)
        if trainer.is_global_zero:
            folder = self.run / "samples" / f"step={step:08d}"
            paths = write_grid(folder, list(videos), self.fps, self.prompts.captions)
            for logger in trainer.loggers:
                _show(logger, *paths, step, self.prompts)
        trainer.strategy.barrier("samples")


def _show(logger: Any, mp4: Path, png: Path, step: int, prompts: Prompts) -> None:
    caption = "; ".join(filter(None, prompts.captions))
    if isinstance(logger, WandbLogger):
        import wandb  # heavy, and needed by this logger alone

        video = wandb.Video(str(mp4), caption=caption, format="mp4")
        logger.experiment.log({"samples": video, "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image("samples", np.asarray(Image.open(png)), step, dataformats="HWC")
