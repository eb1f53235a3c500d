"""DeepSpeed ZeRO: the optimizer's state (stage 1), gradients (2) and weights (3) are sharded."""

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn
from torch.optim import Optimizer

from vdm.ranges import Seconds
from vdm.training.lightning_internals import completes_step, run_hooks_before_step, set_precision_plugin
from vdm.training.strategies.process_group import Backend, ProcessGroupStrategy
from vdm.training.strategies.weight_slices import WeightSlice, flat_slice, whole_slice
from vdm.training.strategies.zero_experts import skip_idle_expert

_PRECISIONS = ("32-true", "bf16-mixed")
LARGEST_BUCKET = 200_000_000
"""Most weights whose gradients are communicated at a time."""
GATHERED_AHEAD = 50_000_000
"""Most weights that stage 3 gathers ahead of their use, or keeps for their next use. It is DeepSpeed's default for the
former; its default for the latter would keep all of a network of less than half a billion weights."""
PERSISTENT_WEIGHT = 100_000
"""Largest weight that stage 3 does not shard: DeepSpeed's default."""


def _deepspeed() -> Any:
    """Import DeepSpeed, which is heavy and optional, once its accelerator has been chosen."""
    return importlib.import_module("deepspeed")


class DeepSpeedZeRO(ProcessGroupStrategy):
    """DeepSpeed's engine in place of DDP's wrapper (Rajbhandari et al. 2020).

    It inherits the handling of processes from Lightning's DDP strategy. Lightning's own DeepSpeed strategy refuses CPUs
    and saves pickles. Weights are fp32, also under mixed precision, as under the other strategies.

    Args:
        stage: Sharded are the optimizer's state (1), also gradients (2), also weights (3); EMA weights always.
        offload_optimizer: Keep the optimizer's state in the CPU's memory and step there.
        offload_parameters: Keep weights in the CPU's memory; only in stage 3.
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; ``None`` chooses by device.
        timeout_seconds: How long a process waits for others.
    """

    def __init__(
        self,
        stage: Literal[1, 2, 3],
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        process_group_backend: Backend | None = None,
        timeout_seconds: Seconds = 1800,
    ) -> None:
        if importlib.util.find_spec("deepspeed") is None:
            raise ValueError("deepspeed is not installed: install the extra 'deepspeed', or choose strategy=fsdp2")
        if offload_parameters and stage != 3:
            raise ValueError(f"offload_parameters=true needs stage=3, but stage is {stage}")
        super().__init__(process_group_backend, timeout_seconds)
        self.stage = stage
        self.offload_optimizer = offload_optimizer
        self.offload_parameters = offload_parameters

    @property
    def precision_plugin(self) -> Precision:
        """Lightning's plug-in for mixed precision.

        Raises:
            ValueError: If it is set to a precision that DeepSpeed lacks.
        """
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if plugin is not None and plugin.precision not in _PRECISIONS:
            raise ValueError(f"precision={plugin.precision}: under DeepSpeed it is one of {', '.join(_PRECISIONS)}")
        set_precision_plugin(self, plugin)

    def setup_environment(self) -> None:
        """Initialize DeepSpeed on Lightning's process group."""
        super().setup_environment()
        if self.root_device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ |= {"RANK": str(self.global_rank), "LOCAL_RANK": str(self.local_rank)}
        deepspeed = _deepspeed()
        deepspeed.utils.logging.logger.setLevel(logging.WARNING)
        if self.root_device.type == "cpu":
            # Otherwise it compiles an operation for inference, which takes a minute and is not used in training.
            deepspeed.ops.__compatible_ops__ = {}
        deepspeed.init_distributed(self.process_group_backend, auto_mpi_discovery=False, dist_init_required=False)

    def configure_ddp(self) -> None:
        """Do nothing: the model is wrapped together with its optimizer."""

    def setup_optimizers(self, trainer: lightning.Trainer) -> None:
        """Wrap model and optimizer in DeepSpeed's engine."""
        super().setup_optimizers(trainer)
        (optimizer,) = self.optimizers
        model = self.lightning_module
        assert model is not None
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed flattens them in memory order
        self.model, zero_optimizer, _, _ = _deepspeed().initialize(
            model=model,
            optimizer=optimizer,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            config=self._config(trainer.gradient_clip_val or 0.0),
            dist_init_required=False,
        )
        if self.stage == 3 and not self.offload_optimizer:
            _step_in_place(zero_optimizer)
        self.optimizers = [zero_optimizer]
        self._decide_by_norm(zero_optimizer)
        skip_idle_expert(zero_optimizer, self.stage, self.offload_optimizer, lambda: self.idle_expert)

    def _decide_by_norm(self, zero: Any) -> None:
        """Have DeepSpeed skip a step if ``is_left_out`` decides so, as it does if the norm is not finite."""
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        compute = getattr(zero, name)

        def computed() -> Any:
            found = compute()
            norms = torch.as_tensor(found) if self.stage < 3 else torch.stack([torch.as_tensor(norm) for norm in found])
            norm = torch.where((norms >= 0).all(), torch.linalg.vector_norm(norms), torch.nan)  # -1: not finite
            if self.is_left_out is None or not self.is_left_out(norm):
                return found
            return torch.full_like(norm, torch.inf) if self.stage < 3 else [torch.full_like(norm, torch.inf)]

        setattr(zero, name, computed)

    def _config(self, clip: float) -> dict[str, Any]:
        assert self.lightning_module is not None
        num_weights = sum(p.numel() for p in self.lightning_module.parameters())
        bucket = min(LARGEST_BUCKET, num_weights // 16 * 2)  # DeepSpeed refuses odd sizes
        pinned = {"device": "cpu", "pin_memory": self.root_device.type != "cpu"}
        zero: dict[str, Any] = {"stage": self.stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
        # Stage 3 leaves small weights whole, as gathering costs more; by default that is nearly all of a small network.
        zero |= {"stage3_param_persistence_threshold": min(PERSISTENT_WEIGHT, num_weights // 1000)}
        zero |= {"stage3_max_live_parameters": GATHERED_AHEAD, "stage3_max_reuse_distance": GATHERED_AHEAD}
        zero |= {"stage3_prefetch_bucket_size": GATHERED_AHEAD}
        zero |= {"offload_optimizer": pinned} if self.offload_optimizer else {}
        zero |= {"offload_param": pinned} if self.offload_parameters else {}
        return {
            "train_micro_batch_size_per_gpu": 1,  # used only in its logs
            "gradient_accumulation_steps": 1,  # Lightning divides by their number; ``backward`` marks the last one
            "gradient_clipping": clip,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }

    def block_backward_sync(self) -> AbstractContextManager[None]:
        """Do nothing: ``backward`` decides when gradients are reduced."""
        return nullcontext()

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Have the engine accumulate gradients, and reduce them in the last micro-batch of a step."""
        assert self.lightning_module is not None
        is_last = completes_step(self.lightning_module.trainer)
        self.model.set_gradient_accumulation_boundary(is_last)  # type: ignore[union-attr]  # it is an engine
        self.model.backward(closure_loss)  # type: ignore[union-attr]
        return closure_loss

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: lightning.LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the last micro-batch, then have the engine clip and step."""
        assert self.lightning_module is not None
        result = closure()
        run_hooks_before_step(self.precision_plugin, self.lightning_module, optimizer)
        self.model.step()  # type: ignore[union-attr]
        self.gradient_norm = torch.as_tensor(self.model.get_global_grad_norm())  # type: ignore[union-attr]
        return result

    def clip_gradients(self, optimizer: Optimizer, limit: float) -> None:
        """Do nothing: the engine clips in its step."""

    @property
    def base_optimizer(self) -> Optimizer:
        """The optimizer of flat buffers inside DeepSpeed's optimizer."""
        return self._zero_optimizer.optimizer

    @property
    def _zero_optimizer(self) -> Any:
        (optimizer,) = self.optimizers
        return optimizer

    def find_slice(self, parameter: nn.Parameter) -> WeightSlice | None:
        """Return this process's slice of a weight in DeepSpeed's fp32 buffers."""
        if hasattr(parameter, "ds_id"):
            return self._slice_in_stage_3(parameter)
        if not parameter.requires_grad:
            return whole_slice(parameter, is_first_copy=self.global_rank == 0)
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]  # set by DeepSpeed
        if mapping is None:
            return None
        buffer = self._zero_optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
        return flat_slice(buffer, there.start, here.numel, tuple(parameter.shape), here.start, is_first_copy=True)

    def _slice_in_stage_3(self, parameter: Any) -> WeightSlice | None:
        """Return this process's slice of a weight; all slices are equally long, the last one padded."""
        zero = self._zero_optimizer
        if parameter.requires_grad:
            group, offset, share = zero.grad_position[zero.get_param_id(parameter)]
            buffer = zero.fp32_partitioned_groups_flat[group]
        else:
            buffer, offset, share = parameter.ds_tensor, 0, parameter.ds_tensor.numel()
        start = share * self.global_rank
        count = min(share, parameter.ds_numel - start)
        if count <= 0:
            return None
        return flat_slice(buffer, offset, count, tuple(parameter.ds_shape), start, is_first_copy=True)

    def update_copies(self) -> None:
        """Copy the fp32 weights to the model's weights in all processes, as the optimizer does after a step."""
        zero = self._zero_optimizer
        if self.stage < 3:
            zero.update_lp_params()
            return
        zero._partition_all_parameters()
        for group in range(len(zero.fp16_groups)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)

    def teardown(self) -> None:
        """Remove DeepSpeed's hooks from the model."""
        if self.model is not self.lightning_module:
            self.model.destroy()  # type: ignore[union-attr]
            self.model = self.lightning_module
        super().teardown()


def _step_in_place(zero: Any) -> None:
    """Have stage 3 step the fp32 shards themselves instead of a copy.

    DeepSpeed intends this, but compares a device with its name, which are never equal.
    """
    for stepped, share in zip(zero.fp32_partitioned_groups_flat, zero.fp16_partitioned_groups_flat, strict=True):
        if (stepped.dtype, stepped.device) == (share.dtype, share.device):
            stepped.data = share.data
