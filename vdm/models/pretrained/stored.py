"""Tensors in safetensors files, read on access."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vdm.models.pretrained.inside import check_regular


class WeightFiles(Protocol):
    """Named weights in files, of which each process reads its own slices."""

    @property
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """The shape of each weight; no weight is read."""
        ...

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Return ``count`` elements of a flattened weight from ``start`` on; little more is read from disk."""
        ...


class StoredTensors(Mapping[str, Tensor]):
    """A mapping of names to tensors in one or more files; each access reads one tensor and caches nothing.

    Args:
        places: File, and name in that file, of each tensor.
        files: The opened files.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str]], files: Mapping[Path, Any]) -> None:
        self._places, self._files = places, files

    @classmethod
    def open(cls, paths: Iterable[Path]) -> Self:
        """Open files and read the names of their tensors.

        Raises:
            ValueError: If a file can't be read, or two files hold the same name.
        """
        places: dict[str, tuple[Path, str]] = {}
        files: dict[Path, Any] = {}
        for path in paths:
            # pread instead of mmap: mapped pages would count as a second copy of the weights.
            files[path] = _opened(path, "pread")
            for name in files[path].keys():  # noqa: SIM118 - not a dictionary, and not iterable
                if name in places:
                    raise ValueError(f"{path}: {name} is also in {places[name][0].name}")
                places[name] = path, name
        return cls(places, files)

    def renamed(self, names: Mapping[str, str]) -> "StoredTensors":
        """Return the tensors that ``names`` maps to new names, under these."""
        places = {new: self._places[old] for old, new in names.items() if old in self._places}
        return StoredTensors(places, self._files)

    @classmethod
    def joined(cls, parts: Mapping[str, "StoredTensors"]) -> Self:
        """Return the tensors of several sources, each under its name after that of the source and a dot."""
        places = {f"{part}.{name}": place for part, stored in parts.items() for name, place in stored._places.items()}
        return cls(places, {path: file for stored in parts.values() for path, file in stored._files.items()})

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of each tensor; no tensor is read."""
        return self._shapes

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        return {new: list(self._files[path].get_slice(old).get_shape()) for new, (path, old) in self._places.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each tensor as safetensors writes it, such as ``BF16``; no tensor is read."""
        return {new: self._files[path].get_slice(old).get_dtype() for new, (path, old) in self._places.items()}

    def metadata(self, file: Path) -> dict[str, str]:
        """Return what one of the files says of itself."""
        return self._files[file].metadata() or {}

    def file(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self._places[name][0]

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Return ``count`` elements of a flattened tensor from ``start`` on; little more is read from disk.

        Raises:
            ValueError: If the file has been removed or cut off since it was opened.
        """
        if count == 0:
            return torch.empty(0)
        path, stored = self._places[name]
        # pread would read the whole tensor for any part of it. The result is a view of the mapped file, whose pages are
        # released with it, since nothing else keeps this mapping.
        return read_stretch(_opened(path, "mmap"), stored, start, start + count)

    def __getitem__(self, name: str) -> Tensor:
        path, stored = self._places[name]
        return self._files[path].get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OSError: If it can't be written, for example since the disk is full; safetensors raises its own error then.
    """
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:
        refused = re.search(r"\(os error (\d+)\)", str(error))
        if refused is None:
            raise
        number = int(refused.group(1))
        raise OSError(number, os.strerror(number), str(path)) from None


def check_names(stored: StoredTensors, module: nn.Module, source: object) -> None:
    """Refuse weights whose names and shapes are not exactly those of ``module``, and weights in eight bits.

    Args:
        stored: The weights, by the module's names.
        module: The module, possibly on the meta device.
        source: File or folder of the weights, for messages.

    Raises:
        ValueError: Naming the first weight that is missing, unknown, of another shape or in eight bits.
    """
    refuse_eight_bits(stored, source)
    own = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    found = stored.shapes
    for name in sorted(own.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{source}: {name} is missing")
        if name not in own:
            raise ValueError(f"{source}: {name} is not a weight of this model")
        if own[name] != found[name]:
            raise ValueError(f"{source}: {name} has shape {found[name]}, but the model's has {own[name]}")


_EIGHT_BITS = frozenset({"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8"})
"""Names of types in safetensors."""
_SCALES = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale")
"""Names, beside those of weights in eight bits, of what they are to be multiplied by."""


def refuse_eight_bits(stored: StoredTensors, source: object) -> None:
    """Refuse weights that are stored in eight bits; without their scales, they would be read as other weights.

    Raises:
        ValueError: Naming the first such weight.
    """
    scaled = (name for name in stored if name.rpartition(".")[2] == "scaled_fp8" or name.endswith(_SCALES))
    small = (name for name, dtype in stored.dtypes.items() if dtype in _EIGHT_BITS)
    if found := next(scaled, None) or next(small, None):
        raise ValueError(
            f"{source}: {found}: weights in eight bits (fp8) can't be trained; take the model in bf16, fp16 or fp32"
        )


@torch.no_grad()
def load(stored: WeightFiles, module: nn.Module, prefix: str = "") -> None:
    """Copy weights into a module one at a time, so that there is never a second copy of all of them.

    Args:
        stored: Some or all of the module's weights, by its names after ``prefix``.
        module: The module.
        prefix: What each name begins with in the files.
    """
    shapes = stored.shapes
    for name, tensor in module.state_dict().items():
        if f"{prefix}{name}" in shapes:
            tensor.copy_(stored.read(f"{prefix}{name}", 0, tensor.numel()).view(tensor.shape))


def read_stretch(file: Any, name: str, start: int, end: int) -> Tensor:
    """Read elements ``start`` to ``end`` of a tensor in an opened safetensors file, by whole rows."""
    stored = file.get_slice(name)
    shape = stored.get_shape()
    if not shape:
        return file.get_tensor(name).view(1)
    row = math.prod(shape[1:])
    first, last = start // row, -(-end // row)
    return stored[first:last].reshape(-1)[start - first * row : end - first * row]


def _opened(path: Path, backend: Literal["mmap", "pread"]) -> Any:
    try:
        check_regular(path)
        return safe_open(path, framework="pt", backend=backend)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {' '.join(str(error).split())}") from None
