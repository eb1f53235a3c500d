"""Captions by an image-to-text model of transformers: BLIP, GIT, vision encoder-decoders ..."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from jaxtyping import UInt8
from safetensors import SafetensorError

from data_pipelines.encode.frozen import device
from vdm.extras import needs_extra
from vdm.models.component_config import check_component
from vdm.ranges import Location, NumSteps, Size, Text


class TransformersCaptioner:
    """Captions the middle frame of a clip by greedy or beam search, which always gives the same caption.

    Args:
        name_or_path: Folder saved by transformers, with the processor, or a name on the hub.
        prompt: Text that the model continues, for models that take one; it is not part of the caption.
        max_new_tokens: Maximum length of the caption.
        num_beams: Number of beams; 1 is greedy search.
        short_side: Pixels of the shorter side of the picture before the model's own processor scales it.
    """

    def __init__(
        self,
        name_or_path: Location,
        prompt: Text | None = None,
        max_new_tokens: NumSteps = 40,
        num_beams: Annotated[int, Interval(ge=1, le=1000)] = 3,
        short_side: Annotated[Size, Ge(32)] = 384,
    ) -> None:
        with needs_extra("pretrained", "captions by transformers"):
            from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor
        self.name, self.prompt, self.short_side = name_or_path, prompt, short_side
        self.options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False}
        try:
            if Path(name_or_path).is_dir():
                check_component(Path(name_or_path))
            # Without trust_remote_code, transformers would ask on the terminal whether code of the folder may run.
            self.processor: Any = AutoProcessor.from_pretrained(name_or_path, trust_remote_code=False)
            self.image_processor: Any = self.processor
            if not hasattr(
                self.processor, "image_processor"
            ):  # a tokenizer alone: encoder-decoders have no joint processor
                self.image_processor = AutoImageProcessor.from_pretrained(name_or_path, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                name_or_path, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"name_or_path: can't load a captioning model from {name_or_path}: {first}") from None
        if prompt is not None and self.image_processor is not self.processor:
            raise ValueError(f"prompt={prompt!r}: {type(model).__name__} takes none")
        self.model: Any = model.eval().requires_grad_(False)
        self.model.to(device())

    @torch.no_grad()
    def __call__(self, video: UInt8[np.ndarray, "t h w c"]) -> str:
        """See ``Captioner``."""
        tokens = self.model.generate(**self._inputs(video[len(video) // 2]), **self.options)
        caption: str = self.processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        return caption.removeprefix(self.prompt or "").strip()

    def _inputs(self, picture: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
        text = {} if self.prompt is None else {"text": self.prompt}
        inputs = dict(self.image_processor(images=picture, return_tensors="pt", **text).to(device()))
        inputs.pop("token_type_ids", None)  # tokenizers make them, and no captioning model takes them
        if self.prompt is not None and self.model.config.model_type == "git":
            # The tokenizer adds an end token to the prompt; BLIP removes it by itself.
            inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
        return inputs
