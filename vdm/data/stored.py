"""Stored latents and text embeddings of a run's sets, and whether they fit together."""

from collections.abc import Mapping, Sequence
from typing import Any

from vdm.data.latents import LatentShape
from vdm.data.sets import ShardSet
from vdm.data.shards import EMPTY_TEXT_NAME, Shape, StoredLatents, StoredText, checksum
from vdm.data.storage import open_folder, read_whole
from vdm.data.text_embeddings import TextEmbedding, UnusableTextError, read_text

MAX_EMPTY_TEXT_BYTES = 1 << 28


def common_latents(sets: Sequence[ShardSet], clip_shapes: Sequence[Shape]) -> StoredLatents:
    """Return the latents that all sets have.

    Raises:
        ValueError: In one line, if a set has none, or they are of another encoder, or a shape of clips has none.
    """
    found: list[StoredLatents] = []
    shapes: dict[Shape, LatentShape] = {}
    for one in sets:
        if one.index.latents is None:
            raise ValueError(f"{one.path}: the set has no latents; stored_latents=false trains on its pixels")
        found.append(one.index.latents)
        shapes |= one.index.latents.shapes
    _check_same_encoder(sets, [latents.encoder for latents in found], "latents")
    for shape in clip_shapes:
        if shape not in shapes:
            paths = ", ".join(one.path for one in sets)
            raise ValueError(f"{paths}: the index has no latents for clips of {'x'.join(map(str, shape))}")
    return StoredLatents(found[0].encoder, shapes)


def common_text(sets: Sequence[ShardSet]) -> StoredText:
    """Return the description of the text embeddings of all sets.

    Raises:
        ValueError: In one line, if a set has none, or they are of another encoder.
    """
    found: list[StoredText] = []
    for one in sets:
        if one.index.text is None:
            raise ValueError(f"{one.path}: the set has no text embeddings; stored_text=false encodes its captions")
        found.append(one.index.text)
    _check_same_encoder(sets, [text.encoder for text in found], "text embeddings")
    return found[0]


def read_empty_text(one: ShardSet) -> TextEmbedding:
    """Read the text embedding of the empty caption that a set with text embeddings has.

    Raises:
        ValueError: In one line, if it is missing or damaged.
    """
    text, folder = one.index.text, open_folder(one.path)
    assert text is not None
    where = folder.path_of(EMPTY_TEXT_NAME)
    try:
        data = read_whole(folder, EMPTY_TEXT_NAME, MAX_EMPTY_TEXT_BYTES)
        if checksum(data) != text.empty_checksum:
            raise ValueError(f"{where}: its checksum is not the one in the index; encode the set again")
        return read_text(data, text.channels)
    except FileNotFoundError:
        raise ValueError(f"{where}: no such file, though the index speaks of it; encode the set again") from None
    except OSError as error:
        raise ValueError(f"{where}: can't be read: {error}") from None
    except UnusableTextError as error:
        raise ValueError(f"{where}: {error}; encode the set again") from None


def differences(stored: Mapping[str, Any], configured: Mapping[str, Any]) -> str:
    """Return the differences between the encoder of a set and the configured one, in few words; empty if none.

    Args:
        stored: The encoder in a set's index; only the keys of ``configured`` are compared.
        configured: The encoder's ``identity()``.
    """
    return ", ".join(
        f"{key} {stored.get(key)} where {value} is configured"
        for key, value in configured.items()
        if stored.get(key) != value
    )


def _check_same_encoder(sets: Sequence[ShardSet], encoders: Sequence[Mapping[str, Any]], what: str) -> None:
    for one, encoder in zip(sets, encoders, strict=True):
        if _compared(encoder) != _compared(encoders[0]):
            raise ValueError(f"{one.path}: its {what} are of another encoder than those of {sets[0].path}")


def _compared(encoder: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in encoder.items() if key != "name"}
