"""``vdm-data build``: videos, or moving digits, to shards."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.assemble import assemble, choose_splits
from data_pipelines.parts import Part, find_part, make_part, restore_parts
from data_pipelines.progress import progress_bar
from data_pipelines.report import Report, all_faults, digest_of, print_faults, print_summary, read_report, write_report
from data_pipelines.settings import MOVING_DIGITS, BuildSettings, parse
from data_pipelines.sources import Inputs, Source, printable
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.data.shards import ShardIndex, read_index, write_json

SETTINGS_NAME = "build.json"
"""Records what the set is built with, from the first moment on."""
PARTS_NAME = ".parts"
"""Sub-folder of finished sources; removed when the shards are complete."""


def run(config: DictConfig) -> int:
    """Build what ``conf/build.yaml`` says; see ``build``."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return build(parse(BuildSettings, {str(key): value for key, value in values.items()}))


def build(settings: BuildSettings) -> int:
    """Build a set of shards, or what is missing of it.

    Returns:
        0, or 1 if some file could not be used as it should; those are listed.

    Raises:
        ValueError: In one line, if nothing could be built.
    """
    inputs = _read_inputs(settings)
    _claim_output(settings)
    folder = settings.output / PARTS_NAME
    folder.mkdir(exist_ok=True)

    report = read_report(settings.output)
    parts = _finish_parts(inputs.sources, folder, report, settings.num_workers)
    splits = choose_splits(
        [part.source for part in parts if part.num_clips], settings.validation_fraction, settings.seed
    )
    any_fault = print_faults(parts, inputs)
    if not splits:
        _release_output(settings.output)
        raise ValueError(f"input={settings.input}: none of its {len(parts)} files gave a clip, for the reasons above")

    index = _finished_index(settings.output) if report and report.digest == digest_of(parts, inputs) else None
    if index is None:
        parts = _restore(inputs.sources, parts, settings, folder)
        index = assemble(parts, splits, inputs, settings, folder)
        write_report(settings.output, Report(tuple(parts), splits, digest_of(parts, inputs)), inputs)
    shutil.rmtree(folder)
    print_summary(settings.output, index, len(all_faults(parts, inputs)))
    return int(any_fault)


def _read_inputs(settings: BuildSettings) -> Inputs:
    if settings.input == MOVING_DIGITS:
        from data_pipelines.moving_digits import read_moving_digits  # scikit-learn, which videos do not need

        return read_moving_digits(settings)
    from data_pipelines.video_folder import read_video_folder

    return read_video_folder(settings)


def _recorded(settings: BuildSettings) -> dict[str, Any]:
    """Return the settings on which the shards depend, by the names that the user knows."""
    recorded: dict[str, Any] = {"input": settings.input}
    if settings.input == MOVING_DIGITS:
        recorded["moving_digits.clips_per_handwriting"] = settings.moving_digits.clips_per_handwriting
    else:
        recorded["input"] = printable(Path(settings.input).resolve())
    recorded |= {f"clip.{name}": value for name, value in asdict(settings.resolved_clip()).items()}
    for name in ("validation_fraction", "samples_per_shard", "seed"):
        recorded[name] = getattr(settings, name)
    return recorded


def _claim_output(settings: BuildSettings) -> None:
    """Make the output folder, or check that what is in it was begun with the same settings."""
    output, wanted = settings.output, _recorded(settings)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output={output}: can't be made a folder: {error.strerror}") from None
    if not any(output.iterdir()):
        write_json(output / SETTINGS_NAME, wanted, indent=1)
        return
    try:
        found = json.loads((output / SETTINGS_NAME).read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"output={output}: is not empty and not from vdm-data build; choose another folder") from None
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"output={output}: was built with {key}={found.get(key)}, not {value}; "
                "choose another output, or delete this one to build it anew"
            )


def _release_output(output: Path) -> None:
    """Leave no trace of a build that gave nothing, so that it can be tried again with other settings."""
    shutil.rmtree(output / PARTS_NAME)
    (output / SETTINGS_NAME).unlink()
    if not any(output.iterdir()):
        output.rmdir()


def _finish_parts(
    sources: Sequence[Source], folder: Path, report: Report | None, num_workers: int | None
) -> list[Part]:
    """Return the part of every source: kept from before where the source is unchanged, else made now."""
    reported = {(part.source, part.fingerprint): part for part in (report.parts if report else ())}
    known: dict[str, Part] = {}
    for source in sources:
        part = find_part(source.name, folder) or reported.get((source.name, source.fingerprint))
        if part is not None and part.fingerprint == source.fingerprint:
            known[source.name] = part
    made = _make_parts([source for source in sources if source.name not in known], folder, num_workers)
    return [(known | made)[source.name] for source in sources]


def _make_parts(sources: Sequence[Source], folder: Path, num_workers: int | None) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    num_clips = 0
    work = map_in_processes(partial(make_part, folder=folder), sources, num_workers)
    with progress_bar(len(sources), "cutting clips", "file") as bar:
        for source, result in work:
            if isinstance(result, WorkerDiedError):
                result = Part(source.name, fingerprint="", num_clips=0, fault=str(result))
            parts[source.name] = result
            num_clips += result.num_clips
            bar.set_postfix(clips=num_clips, refresh=False)
            bar.update()
    return parts


def _restore(sources: Sequence[Source], parts: Sequence[Part], settings: BuildSettings, folder: Path) -> list[Part]:
    """Make sure that every part is in ``folder``, out of the finished shards where they are intact."""
    missing = [part for part in parts if part.num_clips and find_part(part.source, folder) != part]
    restored = {part.source for part in restore_parts(missing, settings.output, folder)}
    lost = {part.source for part in missing} - restored
    made = _make_parts([source for source in sources if source.name in lost], folder, settings.num_workers)
    return [made.get(part.source, part) for part in parts]


def _finished_index(output: Path) -> ShardIndex | None:
    try:
        return read_index(output)
    except ValueError:  # interrupted, or a shard was lost since
        return None
