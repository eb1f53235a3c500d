"""The training step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vdm import randomness
from vdm.data.datamodule import ClipDataModule
from vdm.generation.model import VideoDiffusionModel
from vdm.ranges import Seed, Share
from vdm.training.ema import EMA
from vdm.training.level_means import LevelMeans
from vdm.training.lr_schedules import LRSchedule
from vdm.training.resuming import put_between_steps
from vdm.training.strategies.base import PartwiseStrategy
from vdm.types import ClipBatch, Prompts

NUM_LEVEL_BINS = 10
"""Bins of t in which losses are reported."""


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of clips trained without conditions, so that guidance has an unconditional model to start from.

    Args:
        all: Share that loses every condition.
        text: Share of the rest that loses its caption.
        label: Share of the rest that loses its class.
        image: Share of the rest that loses its first frame's latents.
        image_token: Share of the rest that loses the embedding of what its first frame shows.
    """

    all: Share = 0.1
    text: Share = 0.0
    label: Share = 0.0
    image: Share = 0.0
    image_token: Share = 0.0

    def __post_init__(self) -> None:
        for name in ("all", "text", "label", "image", "image_token"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], but is {getattr(self, name)}")

    def apply(self, prompts: Prompts, seed: int, positions: Iterable[int]) -> Prompts:
        """Drop conditions as a function of (seed, position)."""
        positions = list(positions)

        def dropped(name: str) -> Bool[Tensor, " b"]:
            return randomness.uniform(seed, f"drop {name}", positions) < getattr(self, name)

        everything = dropped("all")
        return prompts.drop(*(everything | dropped(name) for name in ("text", "label", "image", "image_token")))


def log_scalars(trainer: lightning.Trainer, scalars: dict[str, float]) -> None:
    """Log scalars under the number of optimizer steps done; Lightning's own log lags behind by one in validation."""
    trainer.lightning_module.scalars.update(scalars)  # type: ignore[union-attr, operator]  # it is a DiffusionModule
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)


class DiffusionModule(lightning.LightningModule):
    """Trains a video diffusion model; its weights are averaged for validation and sampling.

    Args:
        model: The model.
        optimizer: Makes an optimizer of parameters.
        lr_schedule: Factor of the learning rate at each step.
        condition_dropout: How often conditions are left out.
        seed: Seed of noise, noise levels and drop-out.
        ema: Averages of the weights.
    """

    def __init__(
        self,
        model: VideoDiffusionModel,
        optimizer: Callable[..., Optimizer],
        lr_schedule: LRSchedule,
        condition_dropout: ConditionDropout,
        seed: Seed,
        ema: EMA,
    ) -> None:
        super().__init__()
        self.model = model
        self.ema = ema
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.condition_dropout = condition_dropout
        self.seed = seed
        self.scalars: dict[str, float] = {}
        """The latest value of all that was logged, by name."""
        self.is_validation_whole = True
        """Whether the latest validation saw all of its clips; who breaks it off says so here."""

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """Clip → latents → noised latents → network → loss per clip.

        All that is random is a function of (seed, position), so it does not matter which process trains on a clip.
        """
        positions = batch.positions.tolist()
        self._seed_network_dropout(positions[0])
        x0 = self._latents(batch)
        noise = self.draw_noise(batch, tuple(x0.shape[1:])).to(x0)
        t = self.model.diffusion.draw_times(self.seed, batch.positions, self.data.global_batch_size).to(x0)
        prompts, image_prompts = self._prompts(batch, x0, self.seed, positions)
        prompts = self.condition_dropout.apply(prompts, self.seed, positions)
        if image_prompts is not None:
            owners = [p for p in positions for _ in range(len(image_prompts) // len(positions))]
            image_prompts = self.condition_dropout.apply(image_prompts, self.seed, owners)

        loss = self.model.denoising_loss(x0, noise, t, prompts, image_prompts)

        # A bad sample has weight 0; `where`, since 0 times NaN is NaN. The trainer divides the sum over micro-batches
        # by their number and averages over processes; the scale makes that the mean over the whole batch.
        counted = torch.where(batch.weights > 0, batch.weights * loss, 0)
        total = counted.sum() * self.data.loss_scale(self.trainer.world_size)
        return {"loss": total, "loss_per_clip": loss.detach(), "t": t, "weight": batch.weights}

    def _latents(self, batch: ClipBatch) -> Float[Tensor, "b c t h w"]:
        """Return the clean latents of the clips' frames, followed by those of their independent images."""
        x0 = self.model.encoder.encode(batch.video) if batch.latents is None else batch.latents.float()
        if batch.images is None:
            return x0
        images = self.model.encoder.encode(rearrange(batch.images.pixels, "b c k h w -> (b k) c 1 h w"))
        return torch.cat([x0, rearrange(images, "(b k) c 1 h w -> b c k h w", b=len(batch))], dim=2)

    def draw_noise(self, batch: ClipBatch, shape: tuple[int, ...]) -> Float[Tensor, "b c t h w"]:
        """Draw the noise of clips, and for each of their independent images that of a clip of one frame."""
        channels, num_frames, height, width = shape
        num_images = 0 if batch.images is None else batch.images.pixels.shape[2]
        positions, prior = batch.positions.tolist(), self.model.diffusion.noise_prior
        clips = prior(self.seed, "noise", positions, (channels, num_frames - num_images, height, width))
        image = (channels, 1, height, width)
        images = [prior(self.seed, f"noise of image {k}", positions, image) for k in range(num_images)]
        return torch.cat([clips, *images], dim=2)

    def _prompts(
        self, batch: ClipBatch, x0: Float[Tensor, "b c t h w"], seed: int, draws: Sequence[int | str]
    ) -> tuple[Prompts, Prompts | None]:
        """Return the conditions of the clips, with their first frame, and of their independent images."""
        prompts = self.model.conditioner.of_clips(batch, x0, self.model.encoder, seed, draws)
        if batch.images is None:
            return prompts, None
        captions = tuple(caption for of_clip in batch.images.captions for caption in of_clip)
        crops = None if batch.images.crops is None else rearrange(batch.images.crops, "b k n -> (b k) n")
        return prompts, Prompts(captions, rearrange(batch.images.labels, "b k -> (b k)"), crops=crops)

    @torch.no_grad()
    def prompts_of(self, held_out: ClipBatch) -> Prompts:
        """Return what held-out clips are asked for: what they are."""
        return self._prompts(held_out, self._latents(held_out), 0, held_out.keys)[0]

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then average the weights and count the samples: both belong to the step, and to its checkpoint."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()  # Lightning would keep the gradients until after the next forward pass
        self.ema.update()
        self.data.consumed(self.data.global_batch_size)

    def on_validation_epoch_start(self) -> None:
        """Validate the averaged weights, with which videos are made."""
        self.ema.swap()
        self.is_validation_whole = True
        self.validation_losses = LevelMeans(NUM_LEVEL_BINS, self.device)

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """The loss of held-out clips, with noise and noise level that are functions of the clip's key."""
        x0 = self._latents(batch)
        noise = self.model.diffusion.noise_prior(0, "validation noise", batch.keys, tuple(x0.shape[1:])).to(x0)
        t = randomness.uniform(0, "validation noise level", batch.keys).to(x0)
        prompts, _ = self._prompts(batch, x0, 0, batch.keys)
        self.validation_losses.add(self.model.denoising_loss(x0, noise, t, prompts), t, batch.weights)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over all processes, unless validation was broken off."""
        self.ema.swap()
        if not self.is_validation_whole:
            return
        self.validation_losses.sums = self.trainer.strategy.reduce(self.validation_losses.sums, reduce_op="sum")
        log_scalars(self.trainer, self.validation_losses.named("val"))

    def configure_optimizers(self) -> dict[str, Any]:
        """Make the optimizer of all weights that train, and its schedule by steps."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        schedule = LambdaLR(optimizer, self.lr_schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm of the whole gradient, over all processes; None and 0 are no bound."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # Lightning leaves this to fused optimizers, which would do it after clipping: too late for a norm.
            scaler.unscale_(optimizer)
        self.strategy.clip_gradients(optimizer, gradient_clip_val or float("inf"))

    @property
    def grad_norm(self) -> Tensor:
        """Norm of the last step's gradient before clipping."""
        return self.strategy.gradient_norm

    def on_fit_start(self) -> None:
        """Begin to average the weights, where and as the strategy keeps them."""
        weights = {name: part.values for name, part in self.strategy.trained_parts.items()}
        self.ema.follow(weights, self.data.global_batch_size, self.strategy.spread)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the averages."""
        checkpoint["ema"] = self.ema.averages
        checkpoint["ema_names"] = list(self.ema.averages)
        checkpoint["ema_updates"] = self.ema.num_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back the averages, and go on at the beginning of a step."""
        put_between_steps(checkpoint, self.data.accumulation(self.trainer.world_size))
        self.ema.load(checkpoint["ema"], checkpoint["ema_updates"])

    @property
    def strategy(self) -> PartwiseStrategy:
        """Knows which weights this process updates."""
        return cast(PartwiseStrategy, self.trainer.strategy)

    @property
    def data(self) -> ClipDataModule:
        """The data in training."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it

    def _seed_network_dropout(self, position: int) -> None:
        """Make drop-out inside the network a function of (seed, first position of the micro-batch)."""
        torch.manual_seed(randomness.generator(self.seed, "network drop-out", position).initial_seed())
