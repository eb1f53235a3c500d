"""FSDP2: weights, gradients, averages and the optimizer's state are sharded, block by block."""

import inspect
from typing import Any, Literal, Protocol, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Objective
from vdm.ranges import Seconds
from vdm.training.block_options import blocks_of
from vdm.training.lightning_internals import module_hidden, note_device
from vdm.training.strategies.process_group import Backend, ProcessGroupStrategy


class DiffusionParts(Protocol):
    """What a training module shows of itself here."""

    model: VideoDiffusionModel
    objective: Objective


class FSDP2(ProcessGroupStrategy):
    """Fully sharded data parallel: a block's weights are gathered when it runs, and let go afterwards.

    Of Lightning's DDP it keeps all that concerns processes, and none of the wrapping of the model.

    Args:
        replicate: Across what each shard has copies. ``none``: all devices share one copy of the weights. ``nodes``:
            those of each node share one (hybrid sharding): more memory, and no gathering of weights between nodes.
        reshard_after_forward: Let a block's weights go between its forward and its backward pass, and gather them
            again: less memory, more communication.
        offload: Keep weights, gradients and the optimizer's state in the CPU's memory.
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
    """

    def __init__(
        self,
        replicate: Literal["none", "nodes"] = "none",
        reshard_after_forward: bool = True,
        offload: bool = False,
        process_group_backend: Backend | None = None,
        timeout_seconds: Seconds = 1800,
    ) -> None:
        super().__init__(process_group_backend, timeout_seconds)
        self.replicate = replicate
        self.reshard_after_forward = reshard_after_forward
        self.offload = offload

    def model_to_device(self) -> None:
        """Wait until ``configure_ddp`` has sharded the model: as a whole it may not fit."""

    def configure_ddp(self) -> None:
        """Shard the model in the place of wrapping it."""
        assert self.lightning_module is not None
        module = cast(DiffusionParts, self.lightning_module)
        options = {"mesh": self._mesh(), "mp_policy": self._precision(), "offload_policy": self._offload_policy()}
        outside = self._outside(self.lightning_module)
        for parameter in self.lightning_module.parameters():
            parameter.data = parameter.data.contiguous()  # rows of a tensor in channels-last memory are no one stretch
            if parameter in outside:
                parameter.data = parameter.data.to(self.root_device)
        note_device(self.lightning_module, self.root_device)
        for root in (module.model, module.objective):
            if not isinstance(root, nn.Module):  # an objective without modules
                continue
            methods = _own_methods(type(root))
            for _, block in blocks_of(root):
                fully_shard(block, reshard_after_forward=self.reshard_after_forward, ignored_params=outside, **options)
            fully_shard(root, ignored_params=outside, **options)
            for name in methods:  # whatever it is asked for, its weights are there
                register_fsdp_forward_method(root, name)
        for name, buffer in [*self.lightning_module.named_buffers()]:
            owner, _, own_name = name.rpartition(".")
            setattr(self.lightning_module.get_submodule(owner), own_name, buffer.to(self.root_device))

    def spread(self) -> None:
        """Let go of weights gathered before the change."""
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def teardown(self) -> None:
        """End without moving the model to the CPU, which sharded weights, maybe in mid-step, do not allow."""
        with module_hidden(self):
            super().teardown()

    def choose_backend(self) -> str:
        """Return the backend; with ``offload`` one for each device, since offloaded gradients are summed on CPUs."""
        return "cpu:gloo,cuda:nccl" if self.offload and self._on_gpu() else super().choose_backend()

    def _on_gpu(self) -> bool:
        return self.root_device.type == "cuda"

    def _mesh(self) -> DeviceMesh:
        kind = self.root_device.type
        if self.replicate == "none":
            return init_device_mesh(kind, (self.world_size,), mesh_dim_names=("shard",))
        sizes = (self.num_nodes, self.world_size // self.num_nodes)
        return init_device_mesh(kind, sizes, mesh_dim_names=("replicate", "shard"))

    def _precision(self) -> MixedPrecisionPolicy:
        """Gather weights in the precision of products, and sum gradients in full precision.

        What the model is given stays as it is: times and noise are drawn in full precision.
        """
        products = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision_plugin.precision)
        return MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False)

    def _offload_policy(self) -> OffloadPolicy:
        return CPUOffloadPolicy(pin_memory=self._on_gpu()) if self.offload else OffloadPolicy()

    def _outside(self, module: nn.Module) -> set[nn.Parameter]:
        """Return the weights of frozen parts, which run outside of the sharded forward pass or are not saved."""
        saved: dict[str, Any] = module.state_dict()
        frozen = {p for name, p in module.named_parameters() if name not in saved}
        models = [weight_slice for weight_slice in module.modules() if isinstance(weight_slice, VideoDiffusionModel)]
        encoders = [model.encoder for model in models if isinstance(model.encoder, nn.Module)]
        return frozen.union(*(encoder.parameters() for encoder in encoders))


def _own_methods(kind: type[nn.Module]) -> list[str]:
    """Return the public methods that a class has beyond those of every module."""
    functions = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in functions if not name.startswith("_") and not hasattr(nn.Module, name)]
