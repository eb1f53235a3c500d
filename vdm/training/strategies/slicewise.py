"""The common base of all strategies: each process clips, saves and loads the slices of the weights that it holds."""

import logging
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

from vdm.assembly.load import read_into
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.collectives import num_processes, rank, run_on_all
from vdm.checkpoints.frozen import is_frozen_folder_of, reference_to, verify_checkpoint
from vdm.checkpoints.latest import checkpoints_to_try, first_whole
from vdm.checkpoints.layout import checkpoints_of, frozen_weights_folder, step_of
from vdm.checkpoints.pieces import Piece, PieceFiles
from vdm.checkpoints.removal import set_aside_later
from vdm.checkpoints.snapshot import OPTIMIZER, WEIGHTS, SavedCheckpoint, ema_kinds
from vdm.checkpoints.writer import CheckpointWriter
from vdm.models.experts import TwoExperts
from vdm.models.meta_weights import materialize
from vdm.models.pretrained.stored import WeightFiles
from vdm.training.ema import EMA
from vdm.training.joint_optimizer import each_of
from vdm.training.resuming import checked_state
from vdm.training.run_lock import RunLock
from vdm.training.starts import record_resume
from vdm.training.strategies.module_slices import ModuleSlices
from vdm.training.strategies.weight_slices import (
    WeightSlice,
    load_optimizer_pieces,
    optimizer_pieces,
    sharded_slice,
    whole_slice,
)

_log = logging.getLogger(__name__)


class SlicewiseStrategy(Strategy):
    """A strategy whose processes save and load their slices of the weights, in one format for all strategies.

    Among the bases of a class it comes before Lightning's own strategy.
    """

    gradient_norm: Tensor = torch.tensor(float("nan"))
    """Norm of the last step's gradient before clipping."""

    is_rewound = False
    """Whether training goes on from an earlier checkpoint than the run's latest, chosen by the user."""
    is_left_out: Callable[[Float[Tensor, ""]], Bool[Tensor, ""]] | None = None
    """Decides from the norm of a step's gradient whether the step is skipped; all processes get the same answer."""

    idle_expert: str | None = None
    """The expert that the coming step leaves alone, if the network consists of two. Its weights have no gradients, so
    that optimizers skip them; a strategy under which they have zeros must skip them itself."""

    _frozen: Path | None = None
    """Folder of the model's weights that are not trained, once they are saved."""

    run_lock: RunLock | None = None
    """The lock on the run's folder, in the first process; checked before anything is written there."""

    def find_slice(self, parameter: nn.Parameter) -> WeightSlice | None:
        """Return this process's slice of a weight, once the strategy is set up; ``None`` if it holds nothing of it."""
        if isinstance(parameter, DTensor):
            return sharded_slice(parameter)
        return whole_slice(parameter, is_first_copy=rank() == 0)

    @cached_property
    def slices(self) -> ModuleSlices:
        """This process's slices of the weights."""
        assert self.lightning_module is not None
        return ModuleSlices(self.lightning_module, self.find_slice)

    def read_weights(self, model: VideoDiffusionModel, weights: WeightFiles | None) -> None:
        """Give memory to weights that a model was built without, and read them: here at once, and whole.

        Args:
            model: The model that will be trained.
            weights: Some or all of its weights. None, if a checkpoint will be loaded.
        """
        materialize(model)
        if weights is not None:
            read_into(model, weights)

    def update_copies(self) -> None:
        """Copy changed slices to wherever else the weights are kept. All processes call it together."""

    def place_experts(self, network: TwoExperts, ema: EMA) -> None:
        """Prepare for two experts whose averages are ``ema``; here they lie together."""

    @property
    def communication_seconds(self) -> float | None:
        """How long a step lately waited for gradients of other processes, beyond its own work; None if not known."""
        return None

    # Stepping

    @property
    def base_optimizer(self) -> Optimizer:
        """The optimizer of the tensors that hold the slices."""
        (optimizer,) = self.optimizers
        return optimizer

    def clip_gradients(self, optimizer: Optimizer, limit: float) -> None:
        """Scale each optimizer's gradient, over all processes, to a norm of at most ``limit``."""
        norms: list[Tensor] = []
        for each in each_of(optimizer):
            norm = nn.utils.clip_grad_norm_([p for group in each.param_groups for p in group["params"]], limit)
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self.gradient_norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        if self.is_left_out is not None:
            self._leave_out(optimizer, self.is_left_out(self.gradient_norm))

    def _leave_out(self, optimizer: Optimizer, decision: Bool[Tensor, ""]) -> None:
        """Make the coming step change neither weights nor moments, if so decided."""
        has_scaler = getattr(self.precision_plugin, "scaler", None) is not None
        if getattr(optimizer, "_step_supports_amp_scaling", False) and not has_scaler:
            # Fused optimizers read this flag on the device, so the GPU's queue does not run empty. It must be on the
            # device of the weights: with offloading that is the CPU.
            weight = optimizer.param_groups[0]["params"][0]
            optimizer.found_inf = decision.to(weight.device, torch.float32)  # type: ignore[attr-defined]
        elif decision:
            optimizer.zero_grad()  # optimizers skip weights without a gradient

    # Saving

    @cached_property
    def ema_writer(self) -> CheckpointWriter:
        """Writes snapshots of EMA weights in the background."""
        return CheckpointWriter(check=self.check_lock)

    @cached_property
    def writer(self) -> CheckpointWriter:
        """Writes checkpoints in the background.

        A checkpoint is completed after the EMA snapshots begun before it: a run that resumes from it would not make
        them again.
        """
        return CheckpointWriter(self.ema_writer, self.check_lock)

    def check_lock(self) -> None:
        """Refuse to write into a run's folder that was removed, or that another process has taken over.

        Raises:
            ValueError: In the first process, with the reason.
        """
        if self.run_lock is not None:
            self.run_lock.check()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Copy this process's slices to memory and begin to write them; ``writer`` completes the checkpoint."""
        assert storage_options is None, "this format has no storage options"
        del checkpoint["state_dict"]
        emas: Mapping[str, Mapping[str, Tensor]] = checkpoint.pop("ema")
        checkpoint["optimizer_states"] = [  # Lightning's key; the optimizer's tensors are saved as pieces
            {name: option for name, option in group.items() if name != "params"}
            for group in self.base_optimizer.param_groups
        ]
        frozen = self._reference_to_frozen(Path(filepath))
        pieces = {
            WEIGHTS: self._weight_pieces(lambda name: name not in self.slices.frozen_names),
            **{kind: self.ema_pieces(emas[name]) for name, kind in ema_kinds(list(emas)).items()},
            OPTIMIZER: optimizer_pieces(self.slices.trained_and_saved_here, self.base_optimizer),
        }
        self.writer.finish()
        self.writer.start(Path(filepath), pieces, checkpoint if rank() == 0 else None, frozen)

    def _weight_pieces(self, is_wanted: Callable[[str], bool]) -> dict[str, Piece]:
        """Return the pieces of weights that this process saves."""
        saved = {name: found for name, found in self.slices.saved_here().items() if is_wanted(name)}
        return {name: weight_slice.piece(weight_slice.values) for name, weight_slice in saved.items()}

    def _reference_to_frozen(self, checkpoint: Path) -> dict[str, Any] | None:
        """Save the weights that are not trained, unless the run has them, while training waits.

        Returns:
            The reference to them for a checkpoint, in the first process; None if there are none.
        """
        if not self.slices.frozen_names:
            return None
        run = checkpoint.parent.parent
        (is_there, *_) = run_on_all(lambda: is_frozen_folder_of(run, self._frozen))
        if not is_there:
            _log.info("saving the weights that are not trained, once for the run")
            self._frozen = frozen_weights_folder(run, step_of(checkpoint))
            once = CheckpointWriter(check=self.check_lock)
            once.start(self._frozen, {WEIGHTS: self._weight_pieces(self.slices.frozen_names.__contains__)}, None)
            once.finish()
        assert self._frozen is not None
        return reference_to(self._frozen) if rank() == 0 else None

    def ema_pieces(self, ema: Mapping[str, Tensor]) -> dict[str, Piece]:
        """Return the pieces of EMA weights that this process saves.

        Args:
            ema: EMA weights of all slices that this process trains, by name of the weight.
        """
        saved = self.slices.trained_and_saved_here
        return {name: weight_slice.piece(ema[name]) for name, weight_slice in saved.items()}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: ``save_checkpoint`` saves the weights as pieces."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """Return nothing: ``save_checkpoint`` saves the optimizer's state as pieces."""
        return {}

    # Loading

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Have Lightning load checkpoints after the set-up, when each process's slices are known."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Have Lightning call ``load_optimizer_state_dict``."""
        return True

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Open a checkpoint, or a run's latest whole one, after verifying every byte of it.

        If it belongs to the run in training, later checkpoints of the run, damaged or abandoned, are set aside.

        Args:
            checkpoint_path: Folder of a run or of a checkpoint.
            weights_only: Ignored: nothing in this format can run code.

        Raises:
            ValueError: If there is no whole checkpoint, or it is one of another model; the message names the file or
                the weight.
        """
        folders = run_on_all(lambda: checkpoints_to_try(Path(checkpoint_path)))[0]
        folder = first_whole(folders, _verify_together)
        if rank() == 0:
            self._set_aside_later(folder, is_chosen=folder == Path(checkpoint_path))
        self._loaded = SavedCheckpoint(folder)
        self._check_same_model(self._loaded)
        if self._loaded.frozen is not None and PieceFiles(self._loaded.frozen, WEIGHTS).shapes.keys() == (
            self.slices.frozen_names
        ):
            self._frozen = self._loaded.frozen
        checkpoint = checked_state(self._loaded.state(), folder)
        checkpoint["ema"] = {
            name: self._read_ema(files, f"{folder}: EMA {name}") for name, files in self._loaded.emas().items()
        }
        return checkpoint

    def _read_ema(self, files: PieceFiles, source: str) -> dict[str, Tensor]:
        """Read this process's slices of EMA weights."""
        trained = self.slices.trained
        for name, weight_slice in trained.items():
            if files.shapes.get(name) != weight_slice.shape:
                found = f"has shape {files.shapes[name]}" if name in files else "is missing"
                raise ValueError(f"{source}: {name} {found}, but the weight has shape {weight_slice.shape}")
        return {name: weight_slice.read(files, name) for name, weight_slice in trained.items()}

    def _set_aside_later(self, folder: Path, is_chosen: bool) -> None:
        assert self.lightning_module is not None
        run = Path(self.lightning_module.trainer.default_root_dir)
        if folder.resolve() in [path.resolve() for path in checkpoints_of(run)]:
            self.is_rewound = set_aside_later(run, folder) and is_chosen
            if is_chosen:
                record_resume(run, folder)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read this process's slices of the weights."""
        for name, weight_slice in self.slices.of_checkpoint().items():
            weight_slice.values.copy_(weight_slice.read(self._loaded.weights, name))
        self.update_copies()

    def _check_same_model(self, checkpoint: SavedCheckpoint) -> None:
        saved, own = checkpoint.weights.shapes, self.slices.of_checkpoint()
        different = sorted(set(self.slices.checkpoint_names) ^ set(saved))
        different += [name for name, found in own.items() if name in saved and saved[name] != found.shape]
        if different:
            raise ValueError(f"{checkpoint.folder}: weights of another model: it differs in {different[0]}")

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the optimizer's options, and its state of this process's slices.

        Raises:
            ValueError: If the checkpoint's optimizer has another number of groups of weights.
        """
        optimizer, saved = self.base_optimizer, checkpoint["optimizer_states"]
        if len(saved) != len(optimizer.param_groups):
            raise ValueError(
                f"{self._loaded.folder}: state.json: optimizer_states are {len(saved)}, but this optimizer has"
                f" {len(optimizer.param_groups)} groups of weights"
            )
        for group, options in zip(optimizer.param_groups, saved, strict=True):
            group.update(options)
        load_optimizer_pieces(self.slices.trained, optimizer, self._loaded.optimizer)
        del self._loaded


def _verify_together(folder: Path) -> None:
    """Verify every byte of a checkpoint, each process a share of its files, and agree on the result."""
    run_on_all(partial(verify_checkpoint, folder, rank(), num_processes()))
