"""Tensors in ``.pth`` files, read without running code."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def filled(module: nn.Module, tensors: dict[str, Tensor], names: dict[str, str]) -> Any:
    """Return a module that was built on the meta device with the weights of a file, in fp32.

    Args:
        module: The module, none of whose buffers is left out of its state.
        tensors: The tensors of the file.
        names: Name in the file of each weight of the module.

    Raises:
        ValueError: In one line that names the first weight that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    for name, stored in names.items():
        if stored not in tensors:
            raise ValueError(f"{stored} is missing")
        if tensors[stored].shape != own[name].shape:
            found, wanted = list(tensors[stored].shape), list(own[name].shape)
            raise ValueError(f"{stored} has shape {found}, but {wanted} is needed")
    if unknown := sorted(tensors.keys() - set(names.values())):
        raise ValueError(f"{unknown[0]} is not a weight of this model")
    assert own.keys() == names.keys()
    module = module.float().to_empty(device=torch.get_default_device())
    for name, weight in module.state_dict().items():
        weight.copy_(tensors[names[name]])
    return module
