"""The stages of curation, as one run goes through them: each takes the rows of the one before and returns its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from data_pipelines.annotations import Annotation, label_names
from data_pipelines.assemble import Stored
from data_pipelines.clips import VideoFile
from data_pipelines.curate_settings import CurateSettings, Stage
from data_pipelines.histograms import draw_histograms
from data_pipelines.manifest import ClipRow, Row, VideoRow, kept, write_rows
from data_pipelines.report import all_faults, print_faults, print_summary
from data_pipelines.shard_set import Workshop, encode_parts, write_set
from data_pipelines.sources import Inputs
from data_pipelines.stages.caption import annotate, caption
from data_pipelines.stages.cut import cut_clips
from data_pipelines.stages.encode import Encoders, embed_texts, sources_of
from data_pipelines.stages.judge import KNOWN, drop_duplicates, judge
from data_pipelines.stages.measure import NOT_SEEN, measure
from data_pipelines.stages.probe import probe
from data_pipelines.stages.summary import summary
from data_pipelines.stages.units import Outcome, WorkFolder
from data_pipelines.stages.verify import check_all
from data_pipelines.verify import verify_set
from vdm.text import printable


class Curation:
    """One run through the stages.

    Args:
        settings: Of the run.
        inputs: Files, and what people wrote about them.
        folder: Where results are kept, and who does the work.
    """

    def __init__(self, settings: CurateSettings, inputs: Inputs[VideoFile], folder: WorkFolder) -> None:
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.videos = {video.name: video for video in inputs.sources}
        self.faults: dict[str, str] = dict(inputs.faults)
        """By file, what was wrong with it in any stage."""
        self.workshop = Workshop(folder.path / "parts", folder.claims, folder.executor)
        self.encoders = Encoders.of(settings.encoder, settings.text_encoder, settings.precision)
        self.stored = Stored()
        if self.encoders.clips is not None and settings.runs("encode"):  # found out before the other stages take hours
            clip = settings.resolved_clip()
            self.stored = Stored(latents=self.encoders.clips.stored((clip.num_frames, clip.height, clip.width)))
        self.code = 0

    def probe(self, rows: Sequence[VideoRow]) -> list[VideoRow]:
        """Return a row for each file."""
        outcomes = probe(self.inputs.sources, self.settings.drop_exact_duplicates, self.folder)
        return self._hand_on("probe", self._collect(outcomes), VideoRow)

    def cut(self, rows: Sequence[VideoRow]) -> list[ClipRow]:
        """Return a row for each clip."""
        videos = [self.videos[row.source] for row in rows]
        clips = self._collect(cut_clips(videos, self.settings.shots, self.settings.cut_margin_seconds, self.folder))
        num_shots = len({(row.source, row.shot) for row in clips})
        return self._hand_on("cut", clips, ClipRow, f"of {len(videos)} files, {num_shots} shots")

    def filter(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Drop what breaks limits: first those on what is known, so that the rest alone need be measured."""
        chosen, limits = self.settings.filter, self.settings.filter.checked_limits()
        known = judge(rows, {name: limit for name, limit in limits.items() if name in KNOWN})
        measured, faults = measure(kept(known), self.videos, chosen.scores, self.folder)
        self.faults = {**faults, **self.faults}
        by_key = {row.key: row for row in drop_duplicates(judge(measured, limits), chosen.near_duplicate_bits)}
        judged = [by_key.get(row.key, row) for row in known]
        picture = self.folder.path / "filter.png"
        draw_histograms(picture, judged, limits)
        return self._hand_on("filter", judged, ClipRow, f"histograms: {picture}")

    def caption(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Give each clip what people wrote about its file, else what the captioner says of it."""
        annotated = annotate(rows, self.inputs.annotations)
        if self.settings.captioner is not None:
            silent = [row for row in annotated if self.settings.recaption or not row.caption]
            said, faults = caption(silent, self.videos, self.settings.captioner, self.folder)
            self.faults = {**faults, **self.faults}
            by_key = {row.key: row for row in said}
            annotated = [by_key.get(row.key, row) for row in annotated]
        clips = kept(annotated)
        without, several = sum(not row.caption for row in clips), sum(bool(self._more_captions(row)) for row in clips)
        more = [f"without a caption: {without}"] if without else []
        if several and self.encoders.captions is not None:
            more.append(f"with several captions, of which the first is embedded and the others are left out: {several}")
        return self._hand_on("caption", annotated, ClipRow, "; ".join(more))

    def _more_captions(self, row: ClipRow) -> tuple[str, ...]:
        """Return what people wrote about a clip's file besides its caption."""
        is_written = row.caption_from == "annotation" and row.source in self.inputs.annotations
        return self.inputs.annotations[row.source].more_captions if is_written else ()

    def encode(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Compress the clips and encode what is to lie beside them."""
        if self.encoders.captions is not None:
            self.stored = replace(embed_texts(rows, self.encoders.captions, self.folder), latents=self.stored.latents)
        sources = sources_of(rows, self.videos, self.stored, self.settings.precision)
        self.parts = encode_parts(sources, self.settings.output, self.workshop, self.encoders.clips)
        self.sources = tuple(sources)
        encoded = {key for part in self.parts for key in part.keys}
        judged = [row if row.key in encoded else replace(row, dropped=NOT_SEEN) for row in rows]
        return self._hand_on("encode", judged, ClipRow)

    def write(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Write the shards of both splits and their index."""
        is_embedded = self.encoders.captions is not None  # the embedding is that of one caption
        annotations = {
            row.key: Annotation(row.caption, row.label, () if is_embedded else self._more_captions(row)) for row in rows
        }
        inputs = replace(
            self.inputs,
            sources=self.sources,
            labels=label_names(annotations.values()),
            annotations=annotations,
            faults=self.faults,
        )
        index = write_set(self.parts, inputs, self.settings.of_set(), self.workshop, self.stored, self.encoders.clips)
        write_rows(self.folder.manifest("write"), ClipRow, rows)
        print_summary(self.settings.output, index, len(all_faults(self.parts, inputs)))
        return list(rows)

    def verify(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """Check every byte of the set against its index."""
        self.code = verify_set(self.settings.output, decode=False, check_all=partial(check_all, folder=self.folder))
        return list(rows)

    def end(self) -> int:
        """Print what was wrong with files, and return the exit code."""
        parts = getattr(self, "parts", [])
        any_fault = print_faults(parts, replace(self.inputs, faults=self.faults))
        return int(any_fault or self.code)

    def _collect(self, outcomes: Mapping[str, Outcome[Row]]) -> list[Row]:
        """Return the rows of all files and remember their faults."""
        for source, outcome in outcomes.items():
            if outcome.fault is not None:
                self.faults.setdefault(source, outcome.fault)
        return [row for outcome in outcomes.values() for row in outcome.rows]

    def _hand_on(self, stage: Stage, rows: Sequence[Row], kind: type[Row], more: str = "") -> list[Row]:
        """Write the rows of a stage, print what was dropped, and return those that the next stage gets."""
        write_rows(self.folder.manifest(stage), kind, rows)
        print(printable(summary(stage, rows, more)))
        if not kept(rows):
            self.end()
            raise ValueError(f"input={self.settings.input}: nothing is left after the stage {stage}")
        return kept(rows)
