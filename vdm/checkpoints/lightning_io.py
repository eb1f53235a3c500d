"""Lightning's checkpoints in the project's format.

A checkpoint is a folder::

    model.safetensors   the state dict, by fully qualified names
    ema.safetensors     averaged weights, where the checkpoint has an entry "ema": {name: tensor}
    state.json          the rest: optimizer, schedules, loops, callbacks, position ...
    state.safetensors   ... and its tensors
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


class SafetensorsCheckpointIO(CheckpointIO):
    """Writes and reads what ``trainer.save_checkpoint`` and ``trainer.fit(ckpt_path=...)`` handle; local paths only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole, or not at all.

        Raises:
            ValueError: If it holds what the format can't, e.g. a function.
        """
        assert storage_options is None, "there is nothing to choose"
        rest = {name: value for name, value in checkpoint.items() if name not in ("state_dict", "ema")}
        state, tensors = split(rest, "checkpoint")
        weights = {MODEL_NAME: checkpoint["state_dict"], EMA_NAME: checkpoint.get("ema"), STATE_NAME: tensors}

        def write(folder: Path) -> None:
            for name, content in weights.items():
                if content is not None:
                    _save_tensors(content, folder / name)
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
        tensors = load_file(folder / STATE_NAME, device=device)
        checkpoint = join(json.loads((folder / STATE_JSON_NAME).read_text(encoding="utf-8")), tensors)
        checkpoint["state_dict"] = load_file(folder / MODEL_NAME, device=device)
        if (folder / EMA_NAME).exists():
            checkpoint["ema"] = load_file(folder / EMA_NAME, device=device)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint's folder."""
        remove_folder(Path(path))


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
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
