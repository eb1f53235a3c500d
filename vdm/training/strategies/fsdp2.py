"""FSDP2: weights, gradients, EMA weights and the optimizer's state are sharded, block by block."""

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
from vdm.models.experts import EXPERTS, TwoExperts
from vdm.models.meta_weights import with_memory
from vdm.models.pretrained.stored import WeightFiles
from vdm.objectives.base import Objective
from vdm.ranges import Seconds
from vdm.training.block_options import blocks_of
from vdm.training.lightning_internals import module_hidden, note_device
from vdm.training.strategies.process_group import Backend, ProcessGroupStrategy


class DiffusionParts(Protocol):
    """The attributes of a training module that are used here."""

    model: VideoDiffusionModel
    objective: Objective


class FSDP2(ProcessGroupStrategy):
    """Fully sharded data parallel: a block's weights are gathered when it runs, and released afterwards.

    It inherits the handling of processes from Lightning's DDP strategy, but shards the model instead of wrapping it.

    Args:
        replicate: ``none``: all devices share one copy of the weights. ``nodes``: the devices of each node share one
            (hybrid sharding): more memory, and no gathering of weights between nodes.
        reshard_after_forward: Release a block's weights between its forward and its backward pass, and gather them
            again: less memory, more communication.
        offload: Keep weights, gradients and the optimizer's state in the CPU's memory.
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; ``None`` chooses by device.
        timeout_seconds: How long a process waits for others.
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
        self._initial_weights: WeightFiles | None = None

    def model_to_device(self) -> None:
        """Do nothing: ``configure_ddp`` moves the shards; the whole model may not fit."""

    def read_weights(self, model: VideoDiffusionModel, weights: WeightFiles | None) -> None:
        """Note the files, of which ``configure_ddp`` reads this process's slices."""
        self._initial_weights = weights

    def configure_ddp(self) -> None:
        """Shard the model instead of wrapping it; then read this process's slices of weights that had no memory."""
        assert self.lightning_module is not None
        module = cast(DiffusionParts, self.lightning_module)
        options = {"mesh": self._mesh(), "mp_policy": self._precision(), "offload_policy": self._offload_policy()}
        outside = self._outside(self.lightning_module)
        for parameter in self.lightning_module.parameters():
            parameter.data = parameter.data.contiguous()  # rows in channels-last memory are not contiguous
            if parameter in outside:
                parameter.data = parameter.data.to(self.root_device)
        note_device(self.lightning_module, self.root_device)
        for root in (module.model, module.objective):
            if not isinstance(root, nn.Module):  # an objective without weights
                continue
            methods = _own_methods(type(root))
            for _, block in blocks_of(root):
                fully_shard(block, reshard_after_forward=self.reshard_after_forward, ignored_params=outside, **options)
            for experts in [part for part in root.modules() if isinstance(part, TwoExperts)]:
                for name in EXPERTS:  # the weights outside of its blocks: those of an idle expert are not gathered
                    expert = experts.get_submodule(name)
                    fully_shard(expert, ignored_params=outside, **options)
            fully_shard(root, ignored_params=outside, **options)
            for name in methods:  # gather the weights for each public method
                register_fsdp_forward_method(root, name)
        for name, buffer in [*self.lightning_module.named_buffers()]:
            owner, _, own_name = name.rpartition(".")
            setattr(self.lightning_module.get_submodule(owner), own_name, buffer.to(self.root_device))
        self._fill(module.model)

    @torch.no_grad()
    def _fill(self, model: VideoDiffusionModel) -> None:
        """Give memory to slices of weights on the meta device, and read them from the files that were noted."""
        device = torch.device("cpu") if self.offload else self.root_device
        if any(weight.is_meta for weight in model.parameters()):
            model._apply(lambda weight: with_memory(weight, device))  # FSDP2's own, which takes note of the new slices
        if self._initial_weights is None:
            return
        stored = self._initial_weights.shapes
        for name, weight_slice in self.slices.of_checkpoint().items():
            if name in stored:
                weight_slice.values.copy_(weight_slice.read(self._initial_weights, name))

    def update_copies(self) -> None:
        """Release weights that were gathered before the change."""
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def teardown(self) -> None:
        """End without moving the model to the CPU: sharded weights do not allow it in the middle of a step."""
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
        """Gather weights in the precision of matrix products, and sum gradients in full precision.

        Inputs are not cast: times and noise are drawn in full precision.
        """
        products = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision_plugin.precision)
        return MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False)

    def _offload_policy(self) -> OffloadPolicy:
        return CPUOffloadPolicy(pin_memory=self._on_gpu()) if self.offload else OffloadPolicy()

    def _outside(self, module: nn.Module) -> set[nn.Parameter]:
        """Return the weights that are not sharded: those that are not saved, and those of the autoencoder."""
        saved: dict[str, Any] = module.state_dict()
        frozen = {p for name, p in module.named_parameters() if name not in saved}
        models = [weight_slice for weight_slice in module.modules() if isinstance(weight_slice, VideoDiffusionModel)]
        encoders = [model.encoder for model in models if isinstance(model.encoder, nn.Module)]
        return frozen.union(*(encoder.parameters() for encoder in encoders))


def _own_methods(kind: type[nn.Module]) -> list[str]:
    """Return the public methods that a class has beyond those of every module."""
    functions = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in functions if not name.startswith("_") and not hasattr(nn.Module, name)]
