"""Tensors in ``.pth`` files, read without running code."""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def pickled_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors that ``torch.save`` wrote as a mapping; they stay on disk until they are used.

    Raises:
        ValueError: In one line, which does not name the file, if it holds anything else, or can't be read without
            running code.
    """
    if not file.is_file():
        raise ValueError("not a regular file")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # damaged files make torch raise errors of many kinds
        # Without torch's advice to run the code all the same.
        found = re.search(r"Unsupported (?:global: GLOBAL|operand|class) *\S*", str(error))
        reason = found.group() if found else " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(f"can't be read without running code: {reason}") from None
    if not isinstance(content, dict) or not all(_is_plain(name, tensor) for name, tensor in content.items()):
        raise ValueError("holds no mapping of names to tensors")
    return content


def _is_plain(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided


def shape_of(tensors: Mapping[str, Tensor], name: str, num_axes: int) -> list[int]:
    """Return the shape of a tensor of a file.

    Raises:
        ValueError: In one line, which does not name the file, if it is missing or has another number of axes.
    """
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    if tensors[name].ndim != num_axes:
        raise ValueError(f"{name} has shape {list(tensors[name].shape)}, but {num_axes} axes are needed")
    return list(tensors[name].shape)


@torch.no_grad()
def filled(make: Callable[[], nn.Module], tensors: dict[str, Tensor], name_in_file: Callable[[str], str]) -> Any:
    """Return a module with the weights of a file, in fp32.

    Args:
        make: Makes the module, none of whose buffers is left out of its state.
        tensors: The tensors of the file.
        name_in_file: Returns the name in the file of a weight of the module.

    Raises:
        ValueError: In one line, which does not name the file, if a weight is missing, unknown or of another shape.
    """
    if isinstance(torch.empty(0), FakeTensor):  # a plan needs no values
        return make()
    with torch.device("meta"):
        module = make().float()
    names = {name: name_in_file(name) for name in module.state_dict()}
    for name, weight in module.state_dict().items():
        if shape_of(tensors, names[name], weight.ndim) != list(weight.shape):
            found = list(tensors[names[name]].shape)
            raise ValueError(f"{names[name]} has shape {found}, but {list(weight.shape)} is needed")
        if tensors[names[name]].dtype.itemsize == 1:
            raise ValueError(f"{names[name]}: weights in eight bits can't be used; take the file in bf16, fp16 or fp32")
    if unknown := sorted(tensors.keys() - set(names.values())):
        raise ValueError(f"{unknown[0]} is not a weight of this model")
    module = module.to_empty(device=torch.get_default_device())
    for name, weight in module.state_dict().items():
        weight.copy_(tensors[names[name]])
    return module
