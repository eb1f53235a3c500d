"""Mean losses by noise level, gathered over batches and processes."""

import torch
from jaxtyping import Float
from torch import Tensor


class LevelMeans:
    """Weighted means of per-clip losses, over all levels and in equal bins of time.

    Args:
        num_bins: Number of bins of t in [0, 1].
        device: Where losses are summed.
    """

    def __init__(self, num_bins: int, device: torch.device | str = "cpu") -> None:
        self.num_bins = num_bins
        # Row 0 sums weight times loss, row 1 weights; float64, so that long sums lose nothing.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(2, num_bins, dtype=dtype, device=device)

    def add(self, loss: Float[Tensor, " b"], t: Float[Tensor, " b"], weight: Float[Tensor, " b"]) -> None:
        """Take in the losses of clips noised to time ``t``; clips of weight 0 don't count, whatever their loss."""
        bins = (t * self.num_bins).long().clamp(0, self.num_bins - 1).to(self.sums.device)
        rows = torch.stack([torch.where(weight > 0, weight * loss.detach(), 0), weight]).to(self.sums)
        self.sums.index_add_(1, bins, rows)

    def named(self, split: str) -> dict[str, float]:
        """Return the mean over all levels as ``SPLIT/loss``, and that of each bin with samples by its bounds."""
        total, weight = self.sums.sum(dim=1).tolist()
        found = {f"{split}/loss": total / weight} if weight > 0 else {}
        for index, (total, weight) in enumerate(self.sums.T.tolist()):
            if weight > 0:
                bounds = f"t={index / self.num_bins:.2f}-{(index + 1) / self.num_bins:.2f}"
                found[f"{split}/loss_by_level/{bounds}"] = total / weight
        return found
