"""What all strategies have in common: parts of weights, which are averaged, saved and loaded where they lie."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vdm.checkpoints.collectives import num_processes, rank, together
from vdm.checkpoints.folder import verify_folder
from vdm.checkpoints.pieces import Piece, PieceFiles
from vdm.checkpoints.runs import checkpoints_of, checkpoints_to_try, first_whole, set_aside_later
from vdm.checkpoints.snapshot import OPTIMIZER, WEIGHTS, SavedCheckpoint, ema_kinds
from vdm.checkpoints.writer import CheckpointWriter
from vdm.training.joint_optimizer import each_of
from vdm.training.resuming import checked_state
from vdm.training.run_lock import RunLock
from vdm.training.starts import note_taken
from vdm.training.strategies.weight_slices import (
    WeightSlice,
    load_optimizer_pieces,
    optimizer_pieces,
    sharded_slice,
    whole_slice,
)


class SlicewiseStrategy(Strategy):
    """A strategy whose processes save and load their parts of the weights, in a format that is the same for all.

    Goes before Lightning's own strategy among the bases of a class.
    """

    gradient_norm: Tensor = torch.tensor(float("nan"))
    """Norm of the last step's gradient before clipping."""

    is_left_out: Callable[[Float[Tensor, ""]], Bool[Tensor, ""]] | None = None
    """Decides, once a step's gradient is there, by its norm whether the step is left out: the same in all processes."""

    run_lock: RunLock | None = None
    """Of the first process on the run's folder: checked before anything is written there."""

    def find_slice(self, parameter: nn.Parameter) -> WeightSlice | None:
        """Return what this process holds of a weight, once the strategy is set up; ``None`` for nothing."""
        if isinstance(parameter, DTensor):
            return sharded_slice(parameter)
        return whole_slice(parameter, is_first_copy=rank() == 0)

    def spread(self) -> None:
        """Bring changed parts to wherever else the weights are kept. All processes call it together."""

    @property
    def base_optimizer(self) -> Optimizer:
        """The optimizer that knows the tensors in which parts are held."""
        (optimizer,) = self.optimizers
        return optimizer

    def clip_gradients(self, optimizer: Optimizer, limit: float) -> None:
        """Scale the gradient of each optimizer's weights, over all processes, to a norm of at most ``limit``."""
        norms: list[Tensor] = []
        for each in each_of(optimizer):
            norm = nn.utils.clip_grad_norm_([p for group in each.param_groups for p in group["params"]], limit)
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self.gradient_norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        if self.is_left_out is not None:
            self._leave_out(optimizer, self.is_left_out(self.gradient_norm))

    def _leave_out(self, optimizer: Optimizer, decision: Bool[Tensor, ""]) -> None:
        """Let the coming step of an optimizer change nothing, neither weights nor moments, if so decided."""
        has_scaler = getattr(self.precision_plugin, "scaler", None) is not None
        if getattr(optimizer, "_step_supports_amp_scaling", False) and not has_scaler:
            # Fused optimizers look at this on the device, so that a GPU's queue does not run empty. They would not wait
            # for a copy to the CPU, where offloaded weights are.
            weight = optimizer.param_groups[0]["params"][0]
            optimizer.found_inf = decision.to(weight.device, torch.float32)  # type: ignore[attr-defined]
        elif decision:
            optimizer.zero_grad()  # what has no gradient is not touched

    @cached_property
    def slices(self) -> dict[str, WeightSlice]:
        """This process's parts of all weights by fully qualified name."""
        assert self.lightning_module is not None
        found = {name: self.find_slice(p) for name, p in self.lightning_module.named_parameters()}
        return {name: weight_slice for name, weight_slice in found.items() if weight_slice is not None}

    @cached_property
    def trained_slices(self) -> dict[str, WeightSlice]:
        """Those of ``slices`` that are trained."""
        assert self.lightning_module is not None
        trained = {name for name, p in self.lightning_module.named_parameters() if p.requires_grad}
        return {name: weight_slice for name, weight_slice in self.slices.items() if name in trained}

    @cached_property
    def _saved_names(self) -> list[str]:
        """Names of all weights and buffers that belong into checkpoints."""
        assert self.lightning_module is not None
        return list(self.lightning_module.state_dict())

    # Saving

    @cached_property
    def ema_writer(self) -> CheckpointWriter:
        """Writes snapshots of averages in the background."""
        return CheckpointWriter(check=self.check_lock)

    @cached_property
    def writer(self) -> CheckpointWriter:
        """Writes checkpoints in the background.

        A run that goes on from a checkpoint does not come by the snapshots before it again, so these go first.
        """
        return CheckpointWriter(self.ema_writer, self.check_lock)

    def check_lock(self) -> None:
        """Refuse to write into a run's folder that is another's by now, or gone.

        Raises:
            ValueError: Saying which, in the first process.
        """
        if self.run_lock is not None:
            self.run_lock.check()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Copy this process's parts to memory and begin to write them; ``writer`` completes the checkpoint."""
        assert storage_options is None, "there is nothing to choose"
        del checkpoint["state_dict"]
        averages: Mapping[str, Mapping[str, Tensor]] = checkpoint.pop("ema")
        checkpoint["optimizer_states"] = [  # as Lightning calls it; the tensors are on their own
            {name: option for name, option in group.items() if name != "params"}
            for group in self.base_optimizer.param_groups
        ]
        weights = self._saved_slices()
        pieces = {
            WEIGHTS: {
                name: weight_slice.piece(weight_slice.values)
                for name, weight_slice in weights.items()
                if _is_saved(weight_slice)
            },
            **{kind: self.ema_pieces(averages[name]) for name, kind in ema_kinds(list(averages)).items()},
            OPTIMIZER: optimizer_pieces(self._first_copies, self.base_optimizer),
        }
        self.writer.finish()
        self.writer.start(Path(filepath), pieces, checkpoint if rank() == 0 else None)

    def ema_pieces(self, averages: Mapping[str, Tensor]) -> dict[str, Piece]:
        """Return what this process saves of averaged weights.

        Args:
            averages: Averages of all that this process holds, by name of the weight.
        """
        return {name: weight_slice.piece(averages[name]) for name, weight_slice in self._first_copies.items()}

    @cached_property
    def _first_copies(self) -> dict[str, WeightSlice]:
        """Those of ``trained_slices`` that this process is to save."""
        return {name: weight_slice for name, weight_slice in self.trained_slices.items() if _is_saved(weight_slice)}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: ``save_checkpoint`` takes the weights in parts."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """Return nothing: ``save_checkpoint`` takes the optimizer's state in parts."""
        return {}

    def _saved_slices(self) -> dict[str, WeightSlice]:
        """Return this process's parts of whatever belongs into checkpoints, tied weights under each of their names."""
        module = self.lightning_module
        assert module is not None
        others = {name: whole_slice(buffer, is_first_copy=rank() == 0) for name, buffer in module.named_buffers()}
        found = {**self.slices, **others}
        aliases = self._aliases
        return {name: found[aliases.get(name, name)] for name in self._saved_names if aliases.get(name, name) in found}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """The name in ``slices`` of each weight that has several."""
        assert self.lightning_module is not None
        names = {id(p): name for name, p in self.lightning_module.named_parameters()}
        everything = self.lightning_module.named_parameters(remove_duplicate=False)
        return {name: names[id(p)] for name, p in everything if names[id(p)] != name}

    # Loading

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Load when it is known which parts are whose."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Have ``load_optimizer_state_dict`` called."""
        return True

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Open a checkpoint, or a run's latest whole one, after checking every byte of it.

        Where it is one of the run that is trained, later ones, damaged or given up, are set aside.

        Args:
            checkpoint_path: Folder of a run or of a checkpoint.
            weights_only: Without effect: nothing in this format can run code.

        Raises:
            ValueError: If there is none, the only one is damaged, or it is one of another model; the message names the
                file, or a weight.
        """
        folders = together(lambda: checkpoints_to_try(Path(checkpoint_path)))[0]
        folder = first_whole(folders, _verify_together)
        if rank() == 0:
            self._set_aside_later(folder, is_chosen=folder == Path(checkpoint_path))
        self._loaded = SavedCheckpoint(folder)
        self._check_same_model(self._loaded)
        checkpoint = checked_state(self._loaded.state(), folder)
        checkpoint["ema"] = {
            average: self._own_slices(files, f"{folder}: average {average}")
            for average, files in self._loaded.averages().items()
        }
        return checkpoint

    def _own_slices(self, files: PieceFiles, source: str) -> dict[str, Tensor]:
        """Read this process's parts of an average of all weights that train."""
        for name, weight_slice in self.trained_slices.items():
            if files.shapes.get(name) != weight_slice.shape:
                found = f"has shape {files.shapes[name]}" if name in files else "is missing"
                raise ValueError(f"{source}: {name} {found}, but the weight has shape {weight_slice.shape}")
        return {name: weight_slice.read(files, name) for name, weight_slice in self.trained_slices.items()}

    def _set_aside_later(self, folder: Path, is_chosen: bool) -> None:
        assert self.lightning_module is not None
        run = Path(self.lightning_module.trainer.default_root_dir)
        if folder.resolve() in [path.resolve() for path in checkpoints_of(run)]:
            set_aside_later(run, folder)
            if is_chosen:
                note_taken(run, folder)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Fill this process's parts of the weights."""
        for name, weight_slice in self._saved_slices().items():
            weight_slice.values.copy_(weight_slice.read(self._loaded.weights, name))
        self.spread()

    def _check_same_model(self, checkpoint: SavedCheckpoint) -> None:
        saved = checkpoint.weights.shapes
        different = sorted(set(self._saved_names) ^ set(saved))
        different += [
            n for n, weight_slice in self._saved_slices().items() if n in saved and saved[n] != weight_slice.shape
        ]
        if different:
            raise ValueError(f"{checkpoint.folder}: weights of another model: it differs in {different[0]}")

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give the optimizer its options and what it kept for this process's parts."""
        optimizer, saved = self.base_optimizer, checkpoint["optimizer_states"]
        if len(saved) != len(optimizer.param_groups):
            raise ValueError(
                f"{self._loaded.folder}: state.json: optimizer_states are {len(saved)}, but this optimizer has"
                f" {len(optimizer.param_groups)} groups of weights"
            )
        for group, options in zip(optimizer.param_groups, saved, strict=True):
            group.update(options)
        load_optimizer_pieces(self.trained_slices, optimizer, self._loaded.optimizer)
        del self._loaded


def _is_saved(weight_slice: WeightSlice) -> bool:
    return weight_slice.is_first_copy and (
        weight_slice.values.numel() > 0 or weight_slice.shape == () or 0 in weight_slice.shape
    )


def _verify_together(folder: Path) -> None:
    """Check every byte of a checkpoint, each process a share of its files, and agree on the result."""
    together(partial(verify_folder, folder, rank(), num_processes()))
