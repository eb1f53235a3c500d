"""The training step."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vdm import randomness
from vdm.assembly.model import VideoDiffusionModel
from vdm.data.datamodule import ClipDataModule
from vdm.models.experts import TwoExperts, agreeing
from vdm.objectives.base import Objective, losses_of
from vdm.objectives.batch_randomness import HeldOutRandomness, PrefetchedNoise, TrainingRandomness
from vdm.objectives.condition_dropout import ConditionDropout, Shares
from vdm.objectives.latents import latents_of
from vdm.prompts import Prompts
from vdm.ranges import Seed
from vdm.training.clock import TrainingClock
from vdm.training.ema import EMA
from vdm.training.joint_optimizer import optimizer_of
from vdm.training.level_means import LevelMeans
from vdm.training.lightning_internals import put_between_steps
from vdm.training.loggers.base import run_loggers
from vdm.training.lr_schedules import LRSchedule
from vdm.training.resuming import follow_schedule
from vdm.training.step_experts import ExpertSchedule, StepExpert, owners
from vdm.training.step_flops import StepFlops
from vdm.training.strategies.slicewise import SlicewiseStrategy
from vdm.types import ClipBatch

_log = logging.getLogger(__name__)
NUM_LEVEL_BINS = 10
"""Bins of t in which losses are reported."""


def log_scalars(trainer: lightning.Trainer, scalars: dict[str, float]) -> None:
    """Log figures under the number of optimizer steps done; Lightning's own log lags behind by one in validation."""
    module: Any = trainer.lightning_module
    module.scalars.update(scalars)
    module.logged_at.update(dict.fromkeys(scalars, trainer.global_step))
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)


class DiffusionModule(lightning.LightningModule):
    """Trains a video diffusion model, which is validated and sampled with EMA weights.

    Args:
        model: The model.
        objective: Computes a loss per clip from latents.
        optimizer: Makes the optimizer of a list of parameters.
        lr_schedule: Factor of the learning rate at each step.
        condition_dropout: Share of clips without a condition, by the condition's name; see ``ConditionDropout``.
        seed: Seed of noise, noise levels and drop-out.
        ema: EMAs of the weights.
        experts: Which of the network's two experts trains in which step, if it consists of two.
    """

    def __init__(
        self,
        model: VideoDiffusionModel,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        lr_schedule: LRSchedule,
        condition_dropout: Shares,
        seed: Seed,
        ema: EMA,
        experts: ExpertSchedule,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.ema = ema
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.condition_dropout = ConditionDropout(condition_dropout)
        self.seed = seed
        self.schedule_of_experts = experts
        self.expert = StepExpert()
        """The expert of the present optimizer step."""
        self.scalars: dict[str, float] = {}
        """The latest value of each logged scalar, by name."""
        self.logged_at: dict[str, int] = {}
        """The step at which each scalar was logged last."""
        self.higher_is_better: set[str] = set()
        """Scalars of which higher values are better, by name."""
        self.clock = TrainingClock()
        """Time that training was interrupted, by validation and the like."""
        self.flops = StepFlops(self)
        """Operations of this process's training steps."""
        self.num_skipped_steps = 0
        """Bad steps of this run so far that were skipped, or from which training went back."""
        self.has_begun = False
        """Whether training had any step to do."""
        self.is_validation_whole = True
        """Whether the latest validation saw all of its clips; callbacks that stop it early set this to ``False``."""

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Any]:
        """Compute the loss of a micro-batch: clips → latents → objective → loss per clip → weighted sum.

        All randomness is a function of (seed, position), so it does not matter which process trains on a clip.
        """
        positions = batch.positions.tolist()
        self._seed_network_dropout(positions[0])
        self._begin_step()
        randomness = TrainingRandomness(
            self.seed,
            positions,
            global_batch_size=self.data.global_batch_size,
            condition_dropout=self.condition_dropout,
            prefetched_noise=self._noise_ahead(batch),
            within=self.expert.times,
        )
        with self.flops.counting(batch), self.expert.alone(self.model.network):
            losses = losses_of(self.objective, self.model, latents_of(self.model, batch, randomness), randomness)

        # A damaged sample has weight 0; `where` is needed because 0 times NaN is NaN. The trainer divides the sum over
        # micro-batches by their number and averages over processes; the scale turns that into the mean over the batch.
        weights = batch.weights.to(self.device, non_blocking=True)
        counted = torch.where(weights > 0, weights * losses.per_clip, 0)
        total = counted.sum() * self.data.loss_scale(self.trainer.world_size)
        scalars = {name: values.detach() for name, values in losses.scalars.items()}
        per_clip = losses.per_clip.detach()
        return {"loss": total, "loss_per_clip": per_clip, "t": losses.t, "weight": weights, "scalars": scalars}

    @torch.no_grad()
    def prompts_of(self, held_out: ClipBatch) -> Prompts:
        """Return the prompts of held-out clips: their own captions, classes and further conditions."""
        return latents_of(self.model, held_out, HeldOutRandomness(held_out.keys)).prompts

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then update the EMAs and count the samples, so that the step's checkpoint includes both.

        An expert that the step does not use is left alone: its weights have no gradients, and no decay.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()  # frees memory; Lightning would keep the gradients during the next forward pass
        self.ema.update(idle=self.expert.idle)
        self.data.consumed(self.data.global_batch_size)

    def on_validation_epoch_start(self) -> None:
        """Validate the EMA weights, with which videos are made."""
        self.ema.swap()
        self.is_validation_whole = True
        self.validation_losses = self.level_means()

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Add up the loss of held-out clips, whose noise and noise level are functions of the clip's key."""
        randomness = HeldOutRandomness(batch.keys)
        with agreeing(self.model.network, self._needed_by_any):
            losses = losses_of(self.objective, self.model, latents_of(self.model, batch, randomness), randomness)
        weights = batch.weights.to(self.device, non_blocking=True)
        self.validation_losses.add(losses.per_clip, losses.t, weights, losses.scalars)

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss over all processes, unless validation was stopped early."""
        self.ema.swap()
        if not self.is_validation_whole:
            return
        self.validation_losses.reduce(self.trainer.strategy)
        log_scalars(self.trainer, self.validation_losses.named("val"))
        edges, heights = self.validation_losses.bars()
        for logger in run_loggers(self.trainer):
            logger.log_histogram("val/loss_by_level", edges, heights, self.trainer.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        """Make the optimizer of the model and of the objective's own modules, and the schedule, which counts steps."""
        optimizer = optimizer_of(self.model, self.objective, self.make_optimizer)
        # A lambda, because LambdaLR saves the attributes of a callable object, and loading would restore old ones.
        schedule = LambdaLR(optimizer, lambda step: self.lr_schedule(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of the whole gradient, over all processes; ``None`` and 0 mean no bound."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # Lightning leaves unscaling to fused optimizers, which do it after clipping: too late to compute a norm.
            scaler.unscale_(optimizer)
        self.strategy.clip_gradients(optimizer, gradient_clip_val or float("inf"))

    @property
    def grad_norm(self) -> Tensor:
        """Norm of the last step's gradient, before clipping."""
        return self.strategy.gradient_norm

    def on_fit_start(self) -> None:
        """Start the EMAs, sharded and placed as the strategy keeps the weights."""
        weights = {name: weight_slice.values for name, weight_slice in self.strategy.slices.trained.items()}
        self.ema.follow(weights, self.data.global_batch_size, self.strategy.update_copies, owners(self))
        if isinstance(self.model.network, TwoExperts):
            self.strategy.place_experts(self.model.network, self.ema)

    def on_train_start(self) -> None:
        """Apply the configured learning-rate schedule, which may be longer than when the run was saved."""
        self.has_begun = True
        (schedule,) = self.trainer.lr_scheduler_configs
        before, now = follow_schedule(cast(LambdaLR, schedule.scheduler))
        if before != now:
            _log.info("learning rate %g -> %g at step %d", before, now, self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the EMA weights."""
        checkpoint["ema"] = self.ema.weights
        checkpoint["ema_names"] = list(self.ema.weights)
        checkpoint["ema_updates"] = self.ema.num_updates
        checkpoint["ema_updates_of"] = self.ema.num_updates_of

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the EMA weights, and resume at the beginning of a step."""
        put_between_steps(checkpoint, self.data.accumulation(self.trainer.world_size))
        self.ema.load_state(checkpoint)

    @property
    def strategy(self) -> SlicewiseStrategy:
        """The strategy, which knows the slices of weights that this process updates."""
        return cast(SlicewiseStrategy, self.trainer.strategy)

    @property
    def data(self) -> ClipDataModule:
        """The data module in training."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it

    def level_means(self) -> LevelMeans:
        """Return mean losses by noise level, and by expert if the network consists of two."""
        network = self.model.network
        boundary = network.boundary if isinstance(network, TwoExperts) else None
        return LevelMeans(NUM_LEVEL_BINS, self.device, boundary)

    def _begin_step(self) -> None:
        """Find the expert of the optimizer step, the same in all of its micro-batches."""
        self.expert = self.schedule_of_experts.step(*self.data.bucket_of_step())
        self.strategy.idle_expert = self.expert.idle

    def _needed_by_any(self, needed: Sequence[bool]) -> list[bool]:
        """Return which experts any process needs, so that all gather the same weights."""
        counts = torch.tensor(needed, dtype=torch.float32, device=self.device)
        return (self.trainer.strategy.reduce(counts, reduce_op="sum") > 0).tolist()  # pyright: ignore

    def _noise_ahead(self, batch: ClipBatch) -> PrefetchedNoise | None:
        num_images = 0 if batch.images is None else batch.images.pixels.shape[2]
        return (
            None if batch.noise is None else PrefetchedNoise(batch.noise, self.model.diffusion.noise_prior, num_images)
        )

    def _seed_network_dropout(self, position: int) -> None:
        """Make drop-out inside the network a function of (seed, first position of the micro-batch)."""
        torch.manual_seed(randomness.generator(self.seed, "network drop-out", position).initial_seed())
