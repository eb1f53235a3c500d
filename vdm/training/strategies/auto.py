"""Automatic choice of the strategy."""

import logging

from torch import nn

from vdm.ranges import CountOrZero
from vdm.training.devices import Devices
from vdm.training.strategies.ddp import DataParallel
from vdm.training.strategies.fsdp2 import FSDP2
from vdm.training.strategies.single import SingleDevice
from vdm.training.strategies.slicewise import SlicewiseStrategy

_BYTES_PER_TRAINED_WEIGHT = 16
"""An fp32 weight, its gradient and Adam's two moments."""
_BYTES_PER_COPY = 4
"""A frozen fp32 weight, or an EMA weight."""
_SHARE_FOR_WEIGHTS = 0.5
"""Share of a device's memory for all of these; the rest is for activations."""
_GIB = 2**30

_log = logging.getLogger(__name__)


def auto(model: nn.Module, devices: Devices, num_emas: CountOrZero) -> SlicewiseStrategy:
    """Choose the simplest strategy whose weights, gradients, moments and EMAs leave room for activations.

    It is ``single`` on one device, ``ddp`` if each device can hold all of them, ``fsdp2`` with ``replicate=nodes`` if
    the devices of a node can together, and otherwise ``fsdp2``, even if they leave no room there. ``vdm plan`` counts
    more exactly.

    Args:
        model: The model, from whose numbers of trained and frozen weights the size is estimated.
        devices: Devices of the run.
        num_emas: Number of EMAs of the weights.
    """
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    needed = (_BYTES_PER_TRAINED_WEIGHT + _BYTES_PER_COPY * num_emas) * weights + _BYTES_PER_COPY * frozen
    room = _SHARE_FOR_WEIGHTS * devices.memory_bytes
    others = f" and {frozen / 1e6:.1f} M frozen ones" if frozen else ""
    size = f"{weights / 1e6:.1f} M weights{others} take {needed / _GIB:.2f} GiB with gradients, moments and EMAs"
    share = f"{_SHARE_FOR_WEIGHTS:.0%} of the {devices.memory_bytes / _GIB:.1f} GiB of each process"
    if devices.number == 1:
        chosen: SlicewiseStrategy = SingleDevice(devices)
        reason = f"single, since there is one device; {size}"
    elif needed <= room:
        chosen = DataParallel()
        reason = f"ddp on {devices.number} devices, since {size}, at most {share}"
    elif devices.num_nodes > 1 and needed <= room * devices.per_node:
        chosen = FSDP2(replicate="nodes")
        reason = f"fsdp2 with replicate=nodes, since {size}: more than {share}, but each node can hold them together"
    else:
        chosen = FSDP2()
        reason = f"fsdp2 on {devices.number} devices, since {size}: more than {share}"
    _log.info("strategy=auto: %s", reason)
    return chosen
