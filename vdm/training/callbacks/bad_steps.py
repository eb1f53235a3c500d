"""Skips steps whose loss or gradient is not finite, and loss spikes, in all processes alike."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
from annotated_types import Gt
from jaxtyping import Bool, Float, Int
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed

from vdm.checkpoints.collectives import all_gather
from vdm.checkpoints.history import Event, append_event
from vdm.ranges import CountOrZero, Folder, Positive
from vdm.training.loggers.base import run_loggers
from vdm.training.module import DiffusionModule
from vdm.training.rollback import roll_back
from vdm.types import ClipBatch

MEAN_DECAY = 0.99
"""Decay of the running mean of losses in each step."""
MEAN_STEPS = 100
"""Steps in the running mean before a loss can count as a spike."""
NUM_NAMED = 8
"""Most clips named in the log; the report has all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Clips:
    """The clips of a micro-batch, for the report."""

    keys: tuple[str, ...]
    positions: Int[Tensor, " b"]
    weights: Float[Tensor, " b"]
    losses: Float[Tensor, " b"]


class _Step:
    """A finished optimizer step, whose decision is being copied from the device."""

    def __init__(self, number: int, figures: Float[Tensor, " 3"], clips: Sequence[_Clips]) -> None:
        self.number, self.clips = number, clips
        self._figures, self._arrived = figures, None
        if figures.is_cuda:
            # An asynchronous copy: nothing waits for the device until the figures are read.
            self._figures = torch.empty_like(figures, device="cpu", pin_memory=True).copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def figures(self) -> tuple[bool, float, float]:
        """Return whether the step was skipped, its loss and the norm of its gradient."""
        if self._arrived is not None:
            self._arrived.synchronize()
        bad, loss, norm = self._figures.tolist()
        return bool(bad), loss, norm


class LeaveOutBadSteps(Callback):
    """Skips optimizer steps whose loss or gradient is not finite, or whose loss is a spike.

    A skipped step changes neither weights nor the optimizer's moments; its samples count as seen, and the schedule
    advances. All processes decide by the same sums, between backward pass and update. ``RUN/bad_steps.jsonl`` lists the
    samples of each skipped step with their losses. Under ``skip``, the decision about a step is read after the next
    step, so that no device waits for it, but always before a checkpoint, a validation and the end.

    Args:
        run: Folder of the run.
        policy: ``skip`` continues from the present weights; ``rollback`` restores the latest checkpoint, and continues
            with the samples after the bad step.
        spike_factor: A loss above this multiple of the running mean is a spike; ``None`` disables the rule.
        max_in_a_row: Training ends after more consecutive bad steps than this.
    """

    def __init__(
        self,
        run: Folder,
        policy: Literal["skip", "rollback"] = "skip",
        spike_factor: Annotated[Positive, Gt(1)] | None = None,
        max_in_a_row: CountOrZero = 10,
    ) -> None:
        if spike_factor is not None and not spike_factor > 1:
            raise ValueError(f"spike_factor must be above 1, but is {spike_factor}")
        if max_in_a_row < 0:
            raise ValueError(f"max_in_a_row must be at least 0, but is {max_in_a_row}")
        self.run = Path(run)
        self.policy = policy
        self.spike_factor = spike_factor
        self.max_in_a_row = max_in_a_row
        self.mean_loss, self.num_means = torch.zeros(()), torch.zeros(())
        self.in_a_row = 0
        self.num_bad = 0
        self.last_bad_step = 0
        self._unread: _Step | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Have the strategy ask ``_decide`` before each update."""
        self.mean_loss, self.num_means = self.mean_loss.to(pl_module.device), self.num_means.to(pl_module.device)
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._trainer, self._module = trainer, pl_module
        pl_module.num_skipped_steps = self.num_bad
        self._begin(trainer, pl_module)
        pl_module.strategy.is_left_out = self._decide

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: DiffusionModule, loss: Tensor) -> None:
        """Add up this process's share of the step's loss, scaled as fp16 training scales it."""
        self._loss = self._loss + loss.detach()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: DiffusionModule,
        outputs: Mapping[str, Any],
        batch: ClipBatch,
        batch_idx: int,
    ) -> None:
        """At the end of a step, record it, and handle the step before, whose decision has arrived by now."""
        self._clips.append(_Clips(batch.keys, batch.positions, batch.weights, outputs["loss_per_clip"]))
        if trainer.global_step == self._number:
            return  # between micro-batches of one step
        figures = torch.stack([self._decision.float(), self._step_loss, pl_module.grad_norm.to(self._step_loss)])
        before, self._unread = self._unread, _Step(trainer.global_step, figures, self._clips)
        if before is not None:
            self._read(before)
        if self.policy == "rollback":
            self._read_all()
        self._begin(trainer, pl_module)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Handle the latest step."""
        self._read_all()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Handle the last step."""
        self._read_all()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later decisions depend on, after handling the latest step."""
        self._read_all()
        numbers = {"in_a_row": self.in_a_row, "last_bad_step": self.last_bad_step, "num_bad": self.num_bad}
        return {"mean_loss": self.mean_loss, "num_means": self.num_means, **numbers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, so that decisions are those of an uninterrupted run."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _begin(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Begin the next step."""
        self._number = trainer.global_step
        self._loss = torch.zeros((), device=module.device)
        self._step_loss = torch.zeros((), device=module.device)
        self._decision = torch.zeros((), dtype=torch.bool, device=module.device)
        self._clips: list[_Clips] = []

    def _decide(self, norm: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Decide whether the coming update is skipped; only under fp16 does this wait for the device."""
        loss = self._loss.float() if self._scaler is None else self._loss.float() / self._scaler.get_scale()
        sums = torch.stack([loss, norm.detach().to(self._loss.device).float()])
        if distributed.is_initialized():
            distributed.all_reduce(sums)
            sums /= distributed.get_world_size()
        loss, norm = sums.unbind()
        # A loss scaler tries larger scales until gradients overflow, so infinite gradients are normal under fp16.
        bad = ~loss.isfinite() if self._scaler is not None else ~sums.isfinite().all()
        if self.spike_factor is not None:
            bad |= (self.num_means >= MEAN_STEPS) & (loss > self.spike_factor * self.mean_loss)
        # The plain mean of the first losses, and an exponential one later.
        share = torch.clamp(1 / (self.num_means + 1), min=1 - MEAN_DECAY)
        self.mean_loss = torch.where(bad, self.mean_loss, torch.lerp(self.mean_loss, loss, share))
        self.num_means = torch.where(bad, self.num_means, self.num_means + 1)
        self._step_loss, self._decision = loss, bad
        return bad

    def _read_all(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            self._read(unread)

    def _read(self, step: _Step) -> None:
        """Read whether a step was skipped, and act by the policy."""
        bad, loss, norm = step.figures()
        if bad:
            self._go_on_after_bad_step(step, loss, norm)
        elif step.number > self.last_bad_step:
            self.in_a_row = 0

    def _go_on_after_bad_step(self, step: _Step, loss: float, norm: float) -> None:
        self.in_a_row += 1
        self.num_bad += 1
        self._module.num_skipped_steps = self.num_bad
        self.last_bad_step = max(self.last_bad_step, step.number)
        clips = sorted((clip for clips in all_gather(_described(step.clips)) for clip in clips), key=_worst_first)
        reason = f"loss {loss:.4g}, gradient norm {norm:.4g}"
        if self.in_a_row > self.max_in_a_row:
            raise ValueError(
                f"bad_steps: {self.in_a_row} steps in a row were bad, the last with {reason}, clips {_named(clips)}; "
                "the checkpoints are not affected. Resume with bad_steps.max_in_a_row=N to go on all the same, or "
                "start from a checkpoint with a lower optimizer.lr"
            )
        went_back = self.policy == "rollback" and roll_back(self._trainer, self._module, self.run)
        if self._trainer.is_global_zero:
            back_to = self._trainer.global_step if went_back else None
            done = "left out" if back_to is None else f"back to step {back_to}"
            for logger in run_loggers(self._trainer) if went_back else ():
                logger.go_back(self._trainer.global_step)
            _log.warning("Step %d was bad: %s; %s. Clips: %s", step.number, reason, done, _named(clips))
            report = {"step": step.number, "went_back_to": back_to}
            report |= {"loss": _number(loss), "gradient_norm": _number(norm)}
            report["clips"] = [clip | {"loss": _number(clip["loss"])} for clip in clips]
            with (self.run / "bad_steps.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(report, allow_nan=False) + "\n")
            if back_to is not None:
                append_event(
                    self.run,
                    Event(
                        event="rollback",
                        time=time.time(),
                        step=back_to,
                        position=self._module.data.position,
                        from_step=step.number,
                        reason=f"step {step.number} was bad: {reason}",
                    ),
                )


def _described(clips: Sequence[_Clips]) -> list[dict[str, Any]]:
    """Return key, position and loss of each clip with a weight above 0."""
    return [
        {"key": key, "position": position, "loss": loss}
        for batch in clips
        for key, position, loss, weight in zip(
            batch.keys, batch.positions.tolist(), batch.losses.tolist(), batch.weights.tolist(), strict=True
        )
        if weight > 0
    ]


def _worst_first(clip: Mapping[str, Any]) -> tuple[bool, float, int]:
    loss = clip["loss"]
    return math.isfinite(loss), -loss if math.isfinite(loss) else 0.0, clip["position"]


def _named(clips: list[dict[str, Any]]) -> str:
    names = [f"{clip['key']} (position {clip['position']}, loss {clip['loss']:.4g})" for clip in clips[:NUM_NAMED]]
    return ", ".join(names) + (f" and {len(clips) - NUM_NAMED} more" if len(clips) > NUM_NAMED else "")


def _number(value: float) -> float | str:
    """Return a value that JSON can hold."""
    return value if math.isfinite(value) else repr(value)
