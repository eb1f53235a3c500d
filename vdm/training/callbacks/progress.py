"""A progress bar over optimizer steps."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm


class StepProgressBar(ProgressBar):
    """Shows steps done and left, a running mean of the loss, and clips per second."""

    _SMOOTHING = 0.05
    _SECONDS_BETWEEN_UPDATES = 0.2

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm | None = None
        self._loss: Tensor | None = None

    def disable(self) -> None:
        """Hide the bar; Lightning calls this on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean of the loss, if there is one."""
        loss = math.nan if self._loss is None else self._loss.item()
        return {"loss": loss} if math.isfinite(loss) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the running mean of the loss."""
        self._loss = torch.tensor(float(state_dict["loss"]))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar at the current step."""
        self._loss = None if self._loss is None else self._loss.to(pl_module.device)
        self._bar = tqdm(
            total=trainer.max_steps if trainer.max_steps > 0 else None,
            initial=trainer.global_step,
            desc="training",
            unit="step",
            disable=not self._enabled,
            dynamic_ncols=True,
        )
        self._start = time.perf_counter()
        self._shown = 0.0
        self._start_position = trainer.datamodule.position  # type: ignore[attr-defined]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Mapping[str, Any],
        batch: object,
        batch_idx: int,
    ) -> None:
        """Advance by the steps done since the last call."""
        if self._bar is None or self._bar.disable or trainer.global_step == self._bar.n:
            return
        # The mean stays a tensor until it is shown: reading it would make the GPU's queue run empty.
        loss = _mean_loss(outputs["loss_per_clip"], outputs["weight"])
        if self._loss is not None:
            loss = torch.where(loss.isnan(), self._loss, self._loss.lerp(loss, self._SMOOTHING))
        smoothed = self._loss = loss
        now = time.perf_counter()
        if now - self._shown >= self._SECONDS_BETWEEN_UPDATES or trainer.global_step == trainer.max_steps:
            num_clips = trainer.datamodule.position - self._start_position  # type: ignore[attr-defined]
            rate = num_clips / (now - self._start)
            self._bar.set_postfix_str(f"loss {smoothed.item():.4f}, {rate:.1f} clips/s", refresh=False)
            with suppress(OSError):  # the terminal is gone
                self._bar.update(trainer.global_step - self._bar.n)
            self._shown = now

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, *args: object) -> None:
        """Close the bar, so that later output begins on a new line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal is gone
                self._bar.close()
            self._bar = None


def _mean_loss(loss_per_clip: Float[Tensor, " b"], weight: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the mean over clips with a weight above 0 and a loss; NaN if there are none."""
    return torch.where(weight > 0, loss_per_clip, torch.nan).nanmean()
