"""Files with the text embeddings of the clips of one source, kept until the shards are written."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_pipelines.encode.encoders import CaptionEncoder
from vdm.data.text_embeddings import TextEmbedding, write_text
from vdm.files import replacing
from vdm.regular_files import open_regular


def write_texts(path: Path, captions: Mapping[str, str], encoder: CaptionEncoder) -> None:
    """Embed the captions of clips and write them to a file atomically.

    Args:
        path: The file.
        captions: Caption by key of the clip.
        encoder: The text encoder.
    """
    embeddings = encoder.embed(captions.values())
    tensors = {
        f"{key}/{name}": tensor.clone()  # clips with the same caption share tensors, which safetensors refuses
        for key, caption in captions.items()
        for name, tensor in embeddings[caption]._asdict().items()
    }
    with replacing(path) as file:
        file.write(save(tensors))


def holds_texts(path: Path) -> bool:
    """Return whether the file exists and is as long as its header says."""
    try:
        with open_regular(path), safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def text_member(path: Path, key: str) -> bytes:
    """Return the content of a clip's ``.text.safetensors``."""
    with safe_open(path, "pt") as file:
        return write_text(TextEmbedding(file.get_tensor(f"{key}/tokens"), file.get_tensor(f"{key}/pooled")))
