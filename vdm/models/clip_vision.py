"""Vision encoders of CLIP in transformers, as published video models have them in their pipelines' folders."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from vdm.models.frozen import Frozen, loaded
from vdm.outside import read_json, typed

Kind = TypeVar("Kind")


class ClipVision(Frozen):
    """A vision encoder of CLIP. Subclasses set the buffers by which its pixels are normalized.

    Args:
        class_name: The encoder's class in transformers.
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The encoder's folder in it.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        class_name: Literal["CLIPVisionModel", "CLIPVisionModelWithProjection"],
        name_or_path: str,
        subfolder: str,
        variant: str | None,
    ) -> None:
        def load() -> nn.Module:
            import transformers

            return getattr(transformers, class_name).from_pretrained(
                name_or_path, subfolder=subfolder, variant=variant, use_safetensors=True, dtype=torch.float32
            )

        super().__init__(loaded(load, name_or_path, subfolder))

    def set_statistics(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        """Set mean and standard deviation of RGB pixels from 0 to 1."""
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, rearrange(torch.tensor(values), "c -> c 1 1"), persistent=False)


def read_preprocessing(kind: type[Kind], name_or_path: str, subfolder: str) -> Kind:
    """Return the keys that ``kind`` has of the ``preprocessor_config.json`` in a folder of a pipeline.

    Args:
        kind: A dataclass with the keys and their types.
        name_or_path: Folder of the pipeline, or its name on the hub.
        subfolder: The folder in it.

    Raises:
        ValueError: In one line, if it can't be read, or a value is not supported.
    """

    def load() -> dict[str, Any]:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor.get_image_processor_dict(name_or_path, subfolder=subfolder)[0]

    folder = Path(name_or_path) / subfolder
    file = folder / "preprocessor_config.json"
    return typed(kind, read_json(file) if folder.is_dir() else loaded(load, name_or_path, subfolder), file)
