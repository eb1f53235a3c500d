"""The slice of a weight that one process keeps and updates.

Under every strategy this is a contiguous stretch of the weight, flattened in row-major order: all of it (one device,
DDP), some rows (FSDP2), or any stretch (ZeRO, which flattens many weights into one buffer and splits that). The
optimizer's state of a weight, and its EMA, are split in the same way. So each process updates, saves and loads its
slices without the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer

from vdm.checkpoints.pieces import Piece, PieceFiles
from vdm.models.pretrained.stored import WeightFiles


@dataclass(frozen=True)
class WeightSlice:
    """A contiguous stretch of a flattened weight.

    Args:
        held_in: The optimizer's tensor: the weight itself, or a buffer of many weights.
        view: Returns the slice's view of ``held_in``, or of a tensor with the same layout, such as a moment.
        shape: Shape of the whole weight.
        start: Index of the slice's first element in the flattened weight.
        is_first_copy: Whether no earlier process holds the same slice; the first one saves it.
    """

    held_in: Tensor
    view: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    start: int
    is_first_copy: bool

    @property
    def values(self) -> Tensor:
        """A view of the slice in full precision, for reading and writing."""
        return self.view(self.held_in.detach())

    def piece(self, values: Tensor) -> Piece:
        """Return values with the layout of this slice as a piece of a whole tensor."""
        return Piece(values, self.shape, self.start)

    def read(self, files: WeightFiles, name: str) -> Tensor:
        """Return this slice of a stored tensor, in the shape of ``values``."""
        like = self.values
        return files.read(name, self.start, like.numel()).view(like.shape)


def whole_slice(tensor: Tensor, is_first_copy: bool) -> WeightSlice:
    """Return the slice of a tensor that each process holds in full."""
    return WeightSlice(tensor, lambda like: like, tuple(tensor.shape), 0, is_first_copy)


def sharded_slice(tensor: DTensor) -> WeightSlice:
    """Return the slice of a tensor that FSDP2 sharded by rows, with or without a replica in each node."""
    sizes = tensor.device_mesh.shape
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None
    first_row, is_first_copy = 0, True
    for size, place, placement in zip(sizes, coordinate, tensor.placements, strict=True):
        if isinstance(placement, Shard):
            assert placement.dim == 0
            first_row = min(place * math.ceil(tensor.shape[0] / size), tensor.shape[0])
        else:
            assert isinstance(placement, Replicate)
            is_first_copy &= place == 0
    start = first_row * math.prod(tensor.shape[1:])
    return WeightSlice(tensor, lambda like: like.to_local(), tuple(tensor.shape), start, is_first_copy)  # type: ignore[attr-defined]


def flat_slice(
    buffer: Tensor, offset: int, count: int, shape: tuple[int, ...], start: int, is_first_copy: bool
) -> WeightSlice:
    """Return the slice of ``count`` elements of a weight at ``offset`` in a flat buffer."""
    return WeightSlice(buffer, lambda like: like.view(-1).narrow(0, offset, count), shape, start, is_first_copy)


def optimizer_pieces(slices: dict[str, WeightSlice], optimizer: Optimizer) -> dict[str, Piece]:
    """Return the optimizer's state of each weight, as KIND/NAME.

    Raises:
        ValueError: If the state has values that are not tensors.
    """
    pieces: dict[str, Piece] = {}
    for name, weight_slice in slices.items():
        for kind, value in optimizer.state.get(weight_slice.held_in, {}).items():
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise ValueError(f"optimizer: '{kind}' is a {type(value).__name__}, and only tensors can be saved")
            if value.shape == weight_slice.held_in.shape:
                pieces[f"{kind}/{name}"] = weight_slice.piece(weight_slice.view(value))
            elif weight_slice.start == 0:  # a value for the whole weight, such as the count of steps
                pieces[f"{kind}/{name}"] = Piece.whole(value)
    return pieces


@torch.no_grad()
def load_optimizer_pieces(slices: dict[str, WeightSlice], optimizer: Optimizer, files: PieceFiles) -> None:
    """Restore the state of each weight in an optimizer, which may have done no step yet, or more than were saved."""
    saved_names = {saved.partition("/")[2] for saved in files.shapes}
    with_state = {id(each.held_in) for name, each in slices.items() if name in saved_names}
    for each in slices.values():
        if id(each.held_in) not in with_state:  # of an expert that had done no step then
            optimizer.state.pop(each.held_in, None)
    # Fused kernels need the count of steps on the device of the weights, others on the CPU.
    fused_groups = [group for group in optimizer.param_groups if group.get("fused") or group.get("capturable")]
    fused = {id(weight) for group in fused_groups for weight in group["params"]}
    for saved in files.shapes:
        kind, _, name = saved.partition("/")
        if name not in slices:
            continue
        weight_slice = slices[name]
        state = optimizer.state[weight_slice.held_in]
        if files.shapes[saved] == weight_slice.shape and weight_slice.shape != ():
            if kind not in state:
                state[kind] = torch.zeros_like(weight_slice.held_in.detach())
            weight_slice.view(state[kind]).copy_(weight_slice.read(files, saved))
        else:
            value = files.whole(saved)
            state[kind] = value.to(weight_slice.held_in.device) if id(weight_slice.held_in) in fused else value
