"""Pretrained modules that are not trained."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vdm.models.component_config import check_component


class Frozen(nn.Module):
    """Base class of model parts that wrap a frozen pretrained module.

    The pretrained weights are not part of checkpoints: they are not saved, and loading a checkpoint does not expect
    them. Outputs must not depend on whether they are computed in training, under autocast or in advance; subclasses
    therefore call the module within ``full_precision``.

    Args:
        frozen: The pretrained module.
    """

    def __init__(self, frozen: nn.Module) -> None:
        super().__init__()
        # Any, since type checkers take a module's attributes for Tensor or Module, which lack the libraries' methods.
        self.frozen: Any = frozen.requires_grad_(False).eval()
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def identity(self) -> dict[str, Any]:
        """Return the properties that determine the module's output, among them a checksum of its weights.

        They are stored beside precomputed outputs and compared before those are used. Subclasses add what else their
        output depends on.
        """
        return {"class": type(self.frozen).__name__, "weights": tensors_checksum(self.frozen.state_dict())}

    def full_precision(self) -> torch.autocast:
        """Return a context without autocast; some of these modules overflow in half precision."""
        return torch.autocast(next(self.frozen.parameters()).device.type, enabled=False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""The owner is optional: a few models, such as ``t5-small``, have none."""


def loaded(load: Callable[[], Any], name_or_path: str, subfolder: str) -> Any:
    """Load a component of a pipeline, and turn the libraries' errors into one line.

    Args:
        load: Loads the component with diffusers or transformers.
        name_or_path: Folder of the pipeline, or its name on the hub, for messages.
        subfolder: The component's folder in it.

    Raises:
        ValueError: One line, if the libraries can't load the component.
    """
    if not Path(name_or_path).is_dir() and not _HUB_NAME.fullmatch(name_or_path):
        raise ValueError(f"name_or_path: {name_or_path}: no such folder, nor a name on the hub, which is OWNER/MODEL")
    place = f"{name_or_path}/{subfolder}".rstrip("/")
    try:
        if Path(place).is_dir():
            check_component(Path(place))
        with _without_bar():
            return load()
    except ImportError:
        raise ValueError(f"{place}: needs diffusers and transformers; install the extra 'pretrained'") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"name_or_path: can't load {place}: {str(error).strip().splitlines()[0]}") from None


@contextmanager
def _without_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar for each part that it reads; the hub's client shows its downloads."""
    try:
        from huggingface_hub.utils import enable_progress_bars
        from transformers.utils import logging
    except ImportError:
        yield
        return
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the 128-bit blake2b digest, in hexadecimal, of tensors cast to fp32 and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _drop_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}frozen.")]:
        del state[name]


def _forgive_frozen(module: nn.Module, keys: Any) -> None:
    frozen = module.get_submodule("frozen")
    own = {f"frozen.{name}" for name, _ in frozen.named_parameters(remove_duplicate=False)}
    own |= {f"frozen.{name}" for name, _ in frozen.named_buffers(remove_duplicate=False)}
    missing = keys.missing_keys
    missing[:] = [name for name in missing if f"frozen.{name.rpartition('frozen.')[2]}" not in own]
