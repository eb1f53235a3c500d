"""Mean losses by noise level, and means of an objective's further scalars, over batches and processes."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from vdm.models.experts import EXPERTS


class LevelMeans:
    """Weighted means of per-clip losses, over all levels and in equal bins of time.

    Args:
        num_bins: Number of bins of t in [0, 1].
        device: Where losses are summed.
        boundary: Time from which on the expert for high noise levels is used; None if there are no two experts.
    """

    def __init__(self, num_bins: int, device: torch.device | str = "cpu", boundary: float | None = None) -> None:
        self.num_bins, self.boundary = num_bins, boundary
        # Row 0 sums weight times loss, row 1 weights; float64, so that long sums lose no precision.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(2, num_bins, dtype=dtype, device=device)
        self._of_experts = self.sums.new_zeros(2, len(EXPERTS))
        self._scalars: dict[str, Tensor] = {}

    def add(
        self,
        loss: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        weight: Float[Tensor, " b"],
        scalars: Mapping[str, Float[Tensor, " b"]] | None = None,
    ) -> None:
        """Add the losses of clips that were noised to time ``t``; clips of weight 0 are ignored, whatever their loss.

        Args:
            loss: Loss of each clip.
            t: Time of each clip.
            weight: Weight of each clip.
            scalars: Further scalars of each clip, by name: the same names in each call.
        """
        bins = (t * self.num_bins).long().clamp(0, self.num_bins - 1).to(self.sums.device)
        rows = torch.stack([torch.where(weight > 0, weight * loss.detach(), 0), weight]).to(self.sums)
        self.sums.index_add_(1, bins, rows)
        if self.boundary is not None:
            self._of_experts.index_add_(1, (t < self.boundary).long().to(self.sums.device), rows)
        for name, values in (scalars or {}).items():
            total = torch.where(weight > 0, weight * values.detach(), 0).sum().to(self.sums)
            self._scalars[name] = self._scalars.get(name, 0) + total

    def reduce(self, strategy: Strategy) -> None:
        """Add up the sums of all processes, which call this together."""
        if self.boundary is not None:
            self._of_experts = strategy.reduce(self._of_experts, reduce_op="sum")  # pyright: ignore[reportAttributeAccessIssue]
        self.sums = strategy.reduce(self.sums, reduce_op="sum")  # pyright: ignore[reportAttributeAccessIssue]
        for name in sorted(self._scalars):
            self._scalars[name] = strategy.reduce(self._scalars[name], reduce_op="sum")  # pyright: ignore[reportArgumentType]

    def bars(self) -> tuple[list[float], list[float]]:
        """Return the edges of the bins of t, and the mean loss in each; 0 where there were no samples."""
        edges = [index / self.num_bins for index in range(self.num_bins + 1)]
        return edges, [total / weight if weight > 0 else 0.0 for total, weight in self.sums.T.tolist()]

    def named(self, split: str) -> dict[str, float]:
        """Return all means by name.

        ``SPLIT/loss`` is the mean over all levels, ``SPLIT/loss_by_level/t=FROM-TO`` that of each bin with samples,
        ``SPLIT/loss_by_expert/EXPERT`` that of each of two experts with samples, and ``SPLIT/NAME`` that of each
        further scalar.
        """
        total, weight = self.sums.sum(dim=1).tolist()
        if weight == 0:
            return {}
        found = {f"{split}/loss": total / weight}
        found |= {f"{split}/{name}": float(values) / weight for name, values in self._scalars.items()}
        for index, (total, of_bin) in enumerate(self.sums.T.tolist()):
            if of_bin > 0:
                bounds = f"t={index / self.num_bins:.2f}-{(index + 1) / self.num_bins:.2f}"
                found[f"{split}/loss_by_level/{bounds}"] = total / of_bin
        for expert, (total, of_expert) in zip(EXPERTS, self._of_experts.T.tolist(), strict=True):
            if of_expert > 0:
                found[f"{split}/loss_by_expert/{expert}"] = total / of_expert
        return found
