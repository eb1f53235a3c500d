"""Sharded tensors in safetensors files: each process writes its pieces, and a reader sees whole tensors.

A whole tensor is stored under its name, so any reader of safetensors can read such a file. A piece is a contiguous
stretch of a tensor, flattened in row-major order. It is stored flat, under the tensor's name; the file's metadata have
its place: ``{"pieces": {NAME: {"shape": [...], "start": 0}}}``. Each process writes its own file; nothing is gathered.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.models.pretrained.stored import read_stretch, save_tensors
from vdm.records import checked


@dataclass(frozen=True)
class Piece:
    """A contiguous stretch of a tensor that was flattened in row-major order.

    Args:
        values: Its elements, in any shape.
        shape: Shape of the whole tensor.
        start: Index of the first element in the flattened tensor.
    """

    values: Tensor
    shape: tuple[int, ...]
    start: int = 0

    @classmethod
    def whole(cls, tensor: Tensor) -> "Piece":
        """Return all of a tensor as one piece."""
        return cls(tensor, tuple(tensor.shape))

    @property
    def is_whole(self) -> bool:
        """Whether the piece is the whole tensor."""
        return self.values.numel() == math.prod(self.shape)


def copied_to_memory(pieces: Mapping[str, Piece], former: Mapping[str, Piece]) -> dict[str, Piece]:
    """Copy pieces to the CPU's memory, where training does not change them.

    Args:
        pieces: Pieces to copy.
        former: Earlier copies that are not needed any more; their memory is reused, which saves most of the time.
    """
    copies: dict[str, Piece] = {}
    for name, piece in pieces.items():
        values = piece.values.detach()
        copy = former[name].values if name in former else None
        if copy is None or (copy.shape, copy.dtype, copy.stride()) != (values.shape, values.dtype, values.stride()):
            copy = torch.empty_like(values, device="cpu", pin_memory=values.is_cuda)
        copies[name] = Piece(copy.copy_(values, non_blocking=values.is_cuda), piece.shape, piece.start)
    if any(piece.values.is_cuda for piece in pieces.values()):
        torch.cuda.synchronize()
    return copies


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> None:
    """Write one process's pieces, which are in the CPU's memory, to one file."""
    tensors: dict[str, Tensor] = {}
    stretches: dict[str, dict[str, Any]] = {}
    for name, piece in pieces.items():
        dense = piece.values.contiguous()
        tensors[name] = dense.view(piece.shape) if piece.is_whole else dense.view(-1)
        if not piece.is_whole:
            stretches[name] = {"shape": list(piece.shape), "start": piece.start}
    save_tensors(tensors, path, {"pieces": json.dumps(stretches)} if stretches else None)


class PieceFiles:
    """The tensors of one kind in a checkpoint, read from the files of all processes that wrote it.

    Args:
        folder: Folder of the checkpoint.
        kind: Kind of tensors: the prefix of their files' names.
        further: Folders with further tensors.

    Raises:
        ValueError: If a file is damaged, pieces disagree on a tensor's shape, or a tensor is incomplete.
    """

    def __init__(self, folder: Path, kind: str, *further: Path) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of each tensor, by name."""
        self._stretches: dict[str, list[tuple[int, int, Any]]] = {}
        for path in (path for each in (folder, *further) for path in _files_of(each, kind)):
            try:
                self._add(path, safe_open(path, "pt"))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path}: not a whole safetensors file: {' '.join(str(error).split())}") from None
        for name, shape in self.shapes.items():
            self._stretches[name].sort(key=lambda stretch: stretch[:2])
            ends = [0, *(end for _, end, _ in self._stretches[name])]
            if [start for start, _, _ in self._stretches[name]] != ends[:-1] or ends[-1] != math.prod(shape):
                raise ValueError(f"{folder}: a part of {name} is missing")

    def _add(self, path: Path, file: Any) -> None:
        stretches = _stretches_of(path, file)
        for name in file.keys():  # noqa: SIM118 - not a mapping
            stored = tuple(file.get_slice(name).get_shape())
            stretch = stretches.get(name, {"shape": stored, "start": 0})
            shape = tuple(stretch["shape"])
            if self.shapes.setdefault(name, shape) != shape:
                raise ValueError(
                    f"{path}: {name}: a piece of a tensor of shape {shape}, and not of {self.shapes[name]}"
                )
            end = stretch["start"] + math.prod(stored)
            self._stretches.setdefault(name, []).append((stretch["start"], end, file))

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterable[str]:
        return iter(self.shapes)

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Return ``count`` elements of a flattened tensor from ``start`` on; little more is read from disk."""
        found = [
            read_stretch(file, name, max(start, begin) - begin, min(start + count, end) - begin)
            for begin, end, file in self._stretches[name]
            if max(start, begin) < min(start + count, end)
        ]
        return torch.cat(found) if found else torch.empty(0)

    def whole(self, name: str) -> Tensor:
        """Return a whole tensor."""
        shape = self.shapes[name]
        count = math.prod(shape)
        if count == 0:
            return self._stretches[name][0][2].get_tensor(name)
        return self.read(name, 0, count).view(shape)


def _files_of(folder: Path, kind: str) -> list[Path]:
    return sorted([*folder.glob(f"{kind}.safetensors"), *folder.glob(f"{kind}-*.safetensors")])


class _Stretch(TypedDict):
    shape: list[Annotated[int, Field(ge=0)]]
    start: Annotated[int, Field(ge=0)]


def _stretches_of(path: Path, file: Any) -> dict[str, _Stretch]:
    """Return the place of each piece in a file; tensors that are not listed are whole."""
    text = (file.metadata() or {}).get("pieces", "{}")
    source = f"{path}: its list of pieces"
    try:
        found = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{source}: can't be read as JSON: {error}") from None
    return checked(found, dict[str, _Stretch], source)
