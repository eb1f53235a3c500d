"""``vdm-data build``: videos, or moving digits, to shards."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.executors.local import LocalExecutor
from data_pipelines.output_folder import (
    SETTINGS_NAME,
    check_output,
    output_lock,
    prepare_output,
    remove_leftovers,
    remove_work,
)
from data_pipelines.report import all_faults, print_faults, print_summary
from data_pipelines.settings import MOVING_DIGITS, BuildSettings
from data_pipelines.shard_set import SetBuild, encode_sources, write_set
from data_pipelines.sources import Inputs, Source
from vdm.cli.next_step import command, say_next
from vdm.config import build as build_component
from vdm.config.options import parse
from vdm.files import write_json
from vdm.text import well_formed

_COMMAND = "vdm-data build"
WORK_NAME = ".parts"
"""Sub-folder of intermediate files; removed when the shards are complete."""


def run(config: DictConfig) -> int:
    """Build what ``conf/build.yaml`` says; see ``build``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return build(parse(BuildSettings, values))


def build(settings: BuildSettings) -> int:
    """Build a set of shards, or complete an interrupted build.

    Returns:
        0, or 1 if some files have faults, which are listed.

    Raises:
        ValueError: In one line, if nothing could be built.
    """
    inputs = _read_inputs(settings)
    _check_work_folder(settings.output)
    recorded = _recorded(settings)
    is_new = not check_output(settings.output, _COMMAND, recorded)
    prepare_output(settings.output, _COMMAND, recorded)
    with output_lock(settings.output, settings.output / WORK_NAME):
        if is_new:  # another process may have recorded its settings at the same time
            write_json(settings.output / SETTINGS_NAME, recorded, indent=1)
        return _build(settings, inputs)


def _build(settings: BuildSettings, inputs: Inputs[Source]) -> int:
    """Build in a folder that this process has locked."""
    folder = settings.output / WORK_NAME
    remove_leftovers(folder)
    set_build = SetBuild(folder, folder / "locks", LocalExecutor(settings.num_workers))
    encoded_sources = encode_sources(inputs.sources, settings.output, set_build)
    any_fault = print_faults(encoded_sources, inputs)
    if not any(encoded.num_clips for encoded in encoded_sources):
        _release_output(settings.output)
        raise ValueError(
            f"input={settings.input}: none of its {len(encoded_sources)} files gave a clip, for the reasons above"
        )
    index = write_set(encoded_sources, inputs, settings.of_set(), set_build)
    remove_work(folder)
    print_summary(settings.output, index, len(all_faults(encoded_sources, inputs)))
    say_next(command("vdm-data show", str(settings.output)), command("vdm train", data__path=settings.output))
    return int(any_fault)


def _check_work_folder(output: Path) -> None:
    """Refuse a sub-folder of intermediate files that this program did not make, since it is deleted in the end.

    Raises:
        ValueError: In one line.
    """
    work = output / WORK_NAME
    is_ours = (output / SETTINGS_NAME).is_file() and work.is_dir() and not work.is_symlink()
    if os.path.lexists(work) and not is_ours:
        raise ValueError(f"output={output}: has a {WORK_NAME} that is not from vdm-data build; choose another folder")


def _read_inputs(settings: BuildSettings) -> Inputs[Source]:
    if settings.source is not None:
        defaults = {"input": settings.input, "clip": settings.resolved_clip(), "excluded": [settings.output]}
        return build_component(settings.source, "source", defaults=defaults)
    if settings.input == MOVING_DIGITS:
        from data_pipelines.moving_digits import read_moving_digits  # imports scikit-learn, which videos do not need

        return read_moving_digits(settings)
    from data_pipelines.video_folder import read_video_folder

    return read_video_folder(
        settings.input, settings.manifest, [settings.output], settings.resolved_clip(), settings.hdr
    )


def _recorded(settings: BuildSettings) -> dict[str, Any]:
    """Return the settings on which the shards depend, by their keys on the command line."""
    recorded: dict[str, Any] = {"input": settings.input}
    if settings.source is not None:
        recorded["source"] = settings.source
    elif settings.input == MOVING_DIGITS:
        recorded["moving_digits.clips_per_handwriting"] = settings.moving_digits.clips_per_handwriting
    else:
        recorded["input"] = well_formed(str(Path(settings.input).resolve()))
        recorded["hdr"] = settings.hdr
    recorded |= {f"clip.{name}": value for name, value in asdict(settings.resolved_clip()).items()}
    for name in ("validation_fraction", "samples_per_shard", "seed"):
        recorded[name] = getattr(settings, name)
    return recorded


def _release_output(output: Path) -> None:
    """Remove all traces of a build without clips, so that other settings can be tried in the same folder."""
    remove_work(output / WORK_NAME)
    (output / SETTINGS_NAME).unlink()
    if not any(output.iterdir()):
        output.rmdir()
