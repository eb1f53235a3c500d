"""Stage encode: the sources of the kept clips, and the embeddings of their captions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.assemble import StoredEncodings
from data_pipelines.clips import ChosenClip, VideoFile, choose
from data_pipelines.encode.encoders import CaptionEncoder, ClipEncoder, Precision
from data_pipelines.manifest import ClipRow, by_source
from data_pipelines.progress import progress_bar
from data_pipelines.sources import source_key
from data_pipelines.stages.work_items import WorkFolder, digest
from vdm.data.shards import StoredText, checksum


@dataclass(frozen=True)
class Encoders:
    """The configured encoders; None stores no latents or no text embeddings."""

    clips: ClipEncoder | None
    captions: CaptionEncoder | None

    @staticmethod
    def of(
        encoder: Mapping[str, Any] | None, text_encoder: Mapping[str, Any] | None, precision: Precision
    ) -> "Encoders":
        """Return the encoders with these configurations."""
        return Encoders(
            None if encoder is None else ClipEncoder(json.dumps(encoder, sort_keys=True), precision),
            None if text_encoder is None else CaptionEncoder(json.dumps(text_encoder, sort_keys=True), precision),
        )


def sources_of(
    rows: Sequence[ClipRow], videos: Mapping[str, VideoFile], stored: StoredEncodings, precision: str
) -> list[VideoFile]:
    """Return the files as sources of these clips alone; their fingerprints cover all that encoded clips depend on."""
    latents = None if stored.latents is None else [dict(stored.latents.encoder), precision]
    found: list[VideoFile] = []
    for source, clips in by_source(rows).items():
        video = choose(videos[source], (ChosenClip(row.key, row.start_seconds, _metadata(row)) for row in clips))
        chosen = [asdict(clip) for clip in video.chosen or ()]
        found.append(replace(video, fingerprint=digest(video.fingerprint, chosen, asdict(video.settings), latents)))
    return found


def _metadata(row: ClipRow) -> dict[str, Any]:
    """Return the entries of ``KEY.json`` that curation adds."""
    return {"shot": row.shot, **row.scores}


def embed_texts(rows: Sequence[ClipRow], encoder: CaptionEncoder, folder: WorkFolder) -> StoredEncodings:
    """Embed the captions of all clips, except those embedded before, and the empty caption.

    Raises:
        ValueError: If the text encoder can't be loaded, or captions could not be embedded.
    """
    from data_pipelines.encode.texts import holds_texts  # both import torch, which clips alone do not need
    from vdm.data.text_embeddings import write_text

    identity = encoder.identity()
    empty = encoder.embed([""])[""]
    results = folder.results("text")
    results.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    todo: dict[str, tuple[Path, dict[str, str]]] = {}
    for source, clips in by_source(rows).items():
        captions = {row.key: row.caption for row in clips}
        name = f"{source_key(source)}-{digest(captions, dict(identity), encoder.precision)}"
        paths[source] = results / f"{name}.safetensors"
        if not holds_texts(paths[source]):
            todo[name] = paths[source], captions
    with progress_bar(len(todo), "embedding captions", "file") as bar:
        for name, fault in folder.executor.run(partial(_embed, encoder), todo, folder.locks / "text"):
            if fault is not None:
                raise ValueError(f"text_encoder: captions of {name} could not be embedded: {fault}")
            bar.update()
    data = write_text(empty)
    return StoredEncodings(
        text=StoredText(identity, empty.tokens.shape[1], checksum(data)), texts=paths, empty_text=data
    )


def _embed(encoder: CaptionEncoder, task: tuple[Path, dict[str, str]]) -> None:
    from data_pipelines.encode.texts import write_texts

    write_texts(*task, encoder)
