"""The content of a checkpoint: one process's share while it is saved, and the whole when it is read.

A checkpoint is a folder::

    model.safetensors       weights by fully qualified names; model-00001.safetensors ... those of further processes
    frozen.json             where the model's weights are that are not trained, if any: see frozen.py
    ema.safetensors         EMA weights, if any, by the same names: the default for sampling
    ema.NAME.safetensors    further EMAs
    optimizer.safetensors   the optimizer's state of each weight, as KIND/NAME, e.g. exp_avg/model.network.exit.bias
    state.json              the rest: the optimizer's options, schedules, loops, callbacks, position ...
    state.safetensors       ... and its tensors
    checksums.json          size and checksum of each file

Its meaning depends neither on the number of processes that wrote it nor on how they sharded the weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.folder import describe_file, write_folder
from vdm.checkpoints.frozen import FROZEN_FILE, frozen_folder_of
from vdm.checkpoints.pieces import Piece, PieceFiles, copied_to_memory, write_pieces
from vdm.checkpoints.tree import Json, join, split
from vdm.files import MALFORMED
from vdm.records import read_record

WEIGHTS, EMA, OPTIMIZER, STATE = "model", "ema", "optimizer", "state"
_STATE_JSON_NAME = "state.json"


def ema_kinds(names: Sequence[str]) -> dict[str, str]:
    """Return the kind of pieces for each EMA; the first one is the default for sampling."""
    return {name: EMA if index == 0 else f"{EMA}.{name}" for index, name in enumerate(names)}


MAX_STATE_BYTES = 1 << 30
"""Limit of ``state.json``, which may hold the states of a user's own callbacks."""


class _EMANames(TypedDict, total=False):
    ema_names: list[str]


@dataclass(frozen=True)
class Snapshot:
    """One process's share of a checkpoint, in the CPU's memory.

    Args:
        pieces: Pieces of tensors by kind and name.
        state: The rest, without its tensors, in the first process; ``None`` in all others.
        frozen: Reference to the weights that are not trained, in the first process, if there are any.
    """

    pieces: Mapping[str, Mapping[str, Piece]]
    state: Json = field(default=None)
    frozen: Json = field(default=None)

    @classmethod
    def take(
        cls,
        pieces: Mapping[str, Mapping[str, Piece]],
        state: Mapping[str, Any] | None,
        former: "Snapshot | None" = None,
        frozen: Mapping[str, Any] | None = None,
    ) -> "Snapshot":
        """Copy the values to be saved, so that training can continue.

        Args:
            pieces: Pieces of tensors by kind and name.
            state: The rest, in the first process.
            former: A snapshot that is on disk already; its memory is reused.
            frozen: Reference to the weights that are not trained, in the first process, if there are any.

        Raises:
            ValueError: If ``state`` holds a value that the format can't hold, such as a function.
        """
        rest, tensors = split(dict(state), "checkpoint") if state is not None else (None, {})
        of_state = {name: Piece.whole(tensor) for name, tensor in tensors.items()}
        everything = {**pieces, **({STATE: of_state} if state is not None else {})}
        memory = former.pieces if former is not None else {}
        copies = {kind: copied_to_memory(of_kind, memory.get(kind, {})) for kind, of_kind in everything.items()}
        return cls(copies, rest, None if frozen is None else dict(frozen))

    def write(self, folder: Path, rank: int = 0) -> dict[str, dict[str, Any]]:
        """Write this process's files into a folder, and return the result of ``describe_file`` for each, by name."""
        paths: list[Path] = []
        for kind, pieces in self.pieces.items():
            path = folder / (f"{kind}.safetensors" if rank == 0 else f"{kind}-{rank:05d}.safetensors")
            if rank == 0 or pieces:
                write_pieces(path, pieces)
                paths.append(path)
        for name, content in ((_STATE_JSON_NAME, self.state), (FROZEN_FILE, self.frozen)):
            if content is not None:
                path = folder / name
                path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
                paths.append(path)
        return {path.name: describe_file(path) for path in paths}


class SavedCheckpoint:
    """A checkpoint on disk; its tensors are read on demand.

    Args:
        folder: Folder of a whole checkpoint: see ``verify_checkpoint``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frozen = frozen_folder_of(folder)
        """Folder of weights that the checkpoint refers to, if any."""
        self.weights = PieceFiles(folder, WEIGHTS, *([] if self.frozen is None else [self.frozen]))
        self.ema = PieceFiles(folder, EMA)
        self.optimizer = PieceFiles(folder, OPTIMIZER)

    def emas(self) -> dict[str, PieceFiles]:
        """Return the EMA weights by name of the EMA; the first are those of ``ema``."""
        names = read_record(self.folder / _STATE_JSON_NAME, _EMANames, MAX_STATE_BYTES).get("ema_names", [])
        return {name: PieceFiles(self.folder, kind) for name, kind in ema_kinds(names).items()}

    def named_ema(self, name: str) -> PieceFiles:
        """Return the weights of one EMA.

        Raises:
            ValueError: If there is no EMA of that name.
        """
        emas = self.emas()
        if name not in emas:
            has = f"{', '.join(emas)}; true takes the first" if emas else "none of a name; true or false"
            raise ValueError(f"ema={name}: EMAs in {self.folder}: {has}, false the weights as trained")
        return emas[name]

    def state(self) -> dict[str, Any]:
        """Return everything but weights, EMA weights and the optimizer's state of each weight.

        Raises:
            ValueError: If it is damaged.
        """
        path = self.folder / _STATE_JSON_NAME
        state = read_record(path, dict[str, Any], MAX_STATE_BYTES)
        tensors = PieceFiles(self.folder, STATE)
        try:
            return join(state, {name: tensors.whole(name) for name in tensors.shapes})
        except MALFORMED as error:
            raise ValueError(f"{path}: damaged: {type(error).__name__}: {error}") from None


def save_weights(folder: Path, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint of weights, and optionally EMA weights, without a training state."""
    pieces = {WEIGHTS: {name: Piece.whole(tensor) for name, tensor in weights.items()}}
    if ema is not None:
        pieces[EMA] = {name: Piece.whole(tensor) for name, tensor in ema.items()}
    write_folder(folder, Snapshot.take(pieces, {}).write)
