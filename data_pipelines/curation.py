"""The stages of ``vdm-data curate``, one method each: probe, cut, filter, caption, encode, write, verify."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from data_pipelines.annotations import Annotation, label_names
from data_pipelines.assemble import StoredEncodings
from data_pipelines.clips import VideoFile
from data_pipelines.curate_settings import CurateSettings, Stage
from data_pipelines.encoded_sources import EncodedSource
from data_pipelines.histograms import draw_histograms
from data_pipelines.manifest import ClipRow, Row, VideoRow, kept, write_rows
from data_pipelines.report import all_faults, print_faults, print_summary
from data_pipelines.shard_set import SetBuild, encode_sources, write_set
from data_pipelines.sources import Inputs
from data_pipelines.stages.caption import annotate, caption
from data_pipelines.stages.cut import cut_clips
from data_pipelines.stages.encode import Encoders, embed_texts, sources_of
from data_pipelines.stages.limits import KNOWN, apply_limits, drop_duplicates
from data_pipelines.stages.measure import NOT_DECODED_AGAIN, measure
from data_pipelines.stages.probe import probe
from data_pipelines.stages.summary import summary
from data_pipelines.stages.verify import check_all
from data_pipelines.stages.work_items import FileResult, WorkFolder
from data_pipelines.verify import verify_set
from vdm.data.shards import StoredLatents
from vdm.text import printable


@dataclass(frozen=True)
class EncodedClips:
    """The result of the stage encode."""

    rows: Sequence[ClipRow]
    """The clips that were encoded."""
    sources: Sequence[VideoFile]
    """Their files, as sources of these clips alone."""
    encoded_sources: Sequence[EncodedSource]
    """One record a source, in the same order."""
    stored: StoredEncodings
    """Latents and text embeddings that are stored beside the clips."""


class Curation:
    """One run through the stages.

    Every stage returns the rows that it kept, which the next stage receives. Its table in the work folder also has the
    rows that it dropped, with the reason.

    Args:
        settings: Settings of the run.
        inputs: The files, with the captions and labels that people wrote.
        folder: Keeps the results of the stages; its executor does the work.

    Raises:
        ValueError: In one line, if the autoencoder can't be loaded or does not take clips of the configured shape.
    """

    def __init__(self, settings: CurateSettings, inputs: Inputs[VideoFile], folder: WorkFolder) -> None:
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.videos = {video.name: video for video in inputs.sources}
        self.faults: dict[str, str] = dict(inputs.faults)
        """By file, the first fault that was found in any stage."""
        self.set_build = SetBuild(folder.path / "parts", folder.locks, folder.executor)
        self.encoders = Encoders.of(settings.encoder, settings.text_encoder, settings.precision)
        self.latents = self._stored_latents()

    def _stored_latents(self) -> StoredLatents | None:
        """Describe the latents that will be stored; this checks the autoencoder before the other stages take hours."""
        if self.encoders.clips is None or not self.settings.runs("encode"):
            return None
        clip = self.settings.resolved_clip()
        return self.encoders.clips.stored((clip.num_frames, clip.height, clip.width))

    def run(self) -> int:
        """Run the stages in order, up to ``settings.until``.

        Returns:
            The exit code: 1 if some file or the finished set has faults, which are listed; else 0.

        Raises:
            ValueError: In one line, if a stage leaves nothing to go on with.
        """
        last = self.settings.until or "verify"
        videos = self.probe()
        if last == "probe":
            return self._end()
        clips = self.cut(videos)
        if last == "cut":
            return self._end()
        clips = self.filter(clips)
        if last == "filter":
            return self._end()
        clips = self.caption(clips)
        if last == "caption":
            return self._end()
        encoded = self.encode(clips)
        if last == "encode":
            return self._end(encoded.encoded_sources)
        self.write(encoded)
        if last == "write":
            return self._end(encoded.encoded_sources)
        return self._end(encoded.encoded_sources, self.verify())

    def probe(self) -> list[VideoRow]:
        """Return a row for each file."""
        results = probe(self.inputs.sources, self.settings.drop_exact_duplicates, self.folder)
        return self._finish_stage("probe", self._collect(results), VideoRow)

    def cut(self, rows: Sequence[VideoRow]) -> list[ClipRow]:
        """Return a row for each clip of the files."""
        videos = [self.videos[row.source] for row in rows]
        clips = self._collect(cut_clips(videos, self.settings.shots, self.settings.cut_margin_seconds, self.folder))
        num_shots = len({(row.source, row.shot) for row in clips})
        return self._finish_stage("cut", clips, ClipRow, f"of {len(videos)} files, {num_shots} shots")

    def filter(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Drop clips that break a limit, and near duplicates.

        Limits on known values are applied first, so that only the remaining clips need be measured.
        """
        chosen, limits = self.settings.filter, self.settings.filter.checked_limits()
        by_known_values = apply_limits(rows, {name: limit for name, limit in limits.items() if name in KNOWN})
        measured, faults = measure(kept(by_known_values), self.videos, chosen.scores, self.folder)
        self.faults = {**faults, **self.faults}
        filtered = drop_duplicates(apply_limits(measured, limits), chosen.near_duplicate_bits)
        by_key = {row.key: row for row in filtered}
        merged = [by_key.get(row.key, row) for row in by_known_values]
        picture = self.folder.path / "filter.png"
        draw_histograms(picture, merged, limits)
        return self._finish_stage("filter", merged, ClipRow, f"histograms: {picture}")

    def caption(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Give each clip the caption that people wrote for its file, else one by the captioner."""
        annotated = annotate(rows, self.inputs.annotations)
        if self.settings.captioner is not None:
            uncaptioned = [row for row in annotated if self.settings.recaption or not row.caption]
            captioned, faults = caption(uncaptioned, self.videos, self.settings.captioner, self.folder)
            self.faults = {**faults, **self.faults}
            by_key = {row.key: row for row in captioned}
            annotated = [by_key.get(row.key, row) for row in annotated]
        clips = kept(annotated)
        without, several = sum(not row.caption for row in clips), sum(bool(self._more_captions(row)) for row in clips)
        more = [f"without a caption: {without}"] if without else []
        if several and self.encoders.captions is not None:
            more.append(f"with several captions, of which the first is embedded and the others are left out: {several}")
        return self._finish_stage("caption", annotated, ClipRow, "; ".join(more))

    def encode(self, rows: Sequence[ClipRow]) -> EncodedClips:
        """Compress the clips; compute the latents and text embeddings that are stored beside them."""
        stored = StoredEncodings(latents=self.latents)
        if self.encoders.captions is not None:
            stored = replace(embed_texts(rows, self.encoders.captions, self.folder), latents=self.latents)
        sources = sources_of(rows, self.videos, stored, self.settings.precision)
        encoded_sources = encode_sources(sources, self.settings.output, self.set_build, self.encoders.clips)
        keys = {key for encoded in encoded_sources for key in encoded.keys}
        checked = [row if row.key in keys else replace(row, dropped=NOT_DECODED_AGAIN) for row in rows]
        encoded_rows = self._finish_stage("encode", checked, ClipRow, encoded_sources=encoded_sources)
        return EncodedClips(encoded_rows, sources, encoded_sources, stored)

    def write(self, clips: EncodedClips) -> None:
        """Write the shards of both splits and their index."""
        is_embedded = self.encoders.captions is not None  # the embedding is of the first caption only
        annotations = {
            row.key: Annotation(row.caption, row.label, () if is_embedded else self._more_captions(row))
            for row in clips.rows
        }
        inputs = replace(
            self.inputs,
            sources=tuple(clips.sources),
            labels=label_names(annotations.values()),
            annotations=annotations,
            faults=self.faults,
        )
        of_set, encoder = self.settings.of_set(), self.encoders.clips
        index = write_set(clips.encoded_sources, inputs, of_set, self.set_build, clips.stored, encoder)
        write_rows(self.folder.manifest("write"), ClipRow, clips.rows)
        print_summary(self.settings.output, index, len(all_faults(clips.encoded_sources, inputs)))

    def verify(self) -> int:
        """Check every byte of the set against its index; return 1 if there is a fault, else 0."""
        return verify_set(self.settings.output, decode=False, check_all=partial(check_all, folder=self.folder))

    def _more_captions(self, row: ClipRow) -> tuple[str, ...]:
        """Return the further captions that people wrote for a clip's file."""
        is_written = row.caption_from == "annotation" and row.source in self.inputs.annotations
        return self.inputs.annotations[row.source].more_captions if is_written else ()

    def _collect(self, results: Mapping[str, FileResult[Row]]) -> list[Row]:
        """Return the rows of all files, and record their faults."""
        for source, result in results.items():
            if result.fault is not None:
                self.faults.setdefault(source, result.fault)
        return [row for result in results.values() for row in result.rows]

    def _finish_stage(
        self,
        stage: Stage,
        rows: Sequence[Row],
        kind: type[Row],
        more: str = "",
        encoded_sources: Sequence[EncodedSource] = (),
    ) -> list[Row]:
        """Write the table of a stage, print its summary, and return the rows that it kept.

        Raises:
            ValueError: If there are none, after all faults have been printed.
        """
        write_rows(self.folder.manifest(stage), kind, rows)
        print(printable(summary(stage, rows, more)))
        if not kept(rows):
            self._end(encoded_sources)
            raise ValueError(f"input={self.settings.input}: nothing is left after the stage {stage}")
        return kept(rows)

    def _end(self, encoded_sources: Sequence[EncodedSource] = (), code: int = 0) -> int:
        """Print the faults of all files, and return the exit code of the run."""
        any_fault = print_faults(encoded_sources, replace(self.inputs, faults=self.faults))
        return int(any_fault or code)
