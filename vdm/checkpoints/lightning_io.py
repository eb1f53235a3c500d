"""Lightning's checkpoints in the project's format.

A checkpoint is a folder::

    model.safetensors   the state dict, by fully qualified names
    ema.safetensors     averaged weights, where the checkpoint has an entry "ema": {name: tensor}
    state.json          the order of the weights' names, which safetensors does not keep, and
                        the rest: optimizer, schedules, loops, callbacks, position ...
    state.safetensors   ... whose tensors are here
    checksums.json      size and checksum of each file
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors.torch import load_file, save_file
from torch import Tensor

from vdm.checkpoints.folder import remove_folder, verify_folder, write_folder
from vdm.checkpoints.tree import join, split

MODEL_NAME, EMA_NAME, STATE_NAME = "model.safetensors", "ema.safetensors", "state.safetensors"
STATE_JSON_NAME = "state.json"

_FILES = {"state_dict": MODEL_NAME, "ema": EMA_NAME}


class SafetensorsCheckpointIO(CheckpointIO):
    """Writes and reads what ``trainer.save_checkpoint`` and ``trainer.fit(ckpt_path=...)`` handle; local paths only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole, or not at all.

        Raises:
            ValueError: If it holds what the format can't, e.g. a function.
        """
        assert storage_options is None, "there is nothing to choose"
        weights = {name: checkpoint[name] for name in _FILES if name in checkpoint}
        rest, tensors = split({name: checkpoint[name] for name in checkpoint if name not in _FILES}, "checkpoint")
        state = {"order": {name: list(content) for name, content in weights.items()}, "checkpoint": rest}

        def write(folder: Path) -> None:
            _save_tensors(tensors, folder / STATE_NAME)
            for name, content in weights.items():
                _save_tensors(content, folder / _FILES[name])
            (folder / STATE_JSON_NAME).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")

        write_folder(Path(path), write)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint after checking every byte of it.

        Args:
            path: Folder of the checkpoint.
            map_location: Device of its tensors; anything but a device or its name means the CPU.
            weights_only: Without effect: nothing in this format can run code.

        Raises:
            ValueError: If it is incomplete or damaged; the message names the file.
        """
        folder = Path(path)
        verify_folder(folder)
        device = str(map_location) if map_location is not None and not callable(map_location) else "cpu"
        state = json.loads((folder / STATE_JSON_NAME).read_text(encoding="utf-8"))
        checkpoint = join(state["checkpoint"], load_file(folder / STATE_NAME, device=device))
        for name, order in state["order"].items():
            weights = load_file(folder / _FILES[name], device=device)
            checkpoint[name] = {weight: weights[weight] for weight in order}
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint's folder."""
        remove_folder(Path(path))


def _save_tensors(tensors: Mapping[str, Any], path: Path) -> None:
    """Write tensors to one file; those that share memory, as tied weights do, are written each in full."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{path.stem}: '{name}' is a {type(tensor).__qualname__}, and only tensors can be saved")
        dense = tensor.detach().cpu().contiguous()
        storage = dense.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != dense.nbytes:
            dense = dense.clone()
        seen.add(dense.untyped_storage().data_ptr())
        separate[name] = dense
    save_file(separate, path)
