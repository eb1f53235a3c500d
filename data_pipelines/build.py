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
    claim_output,
    kept_from_others,
    remove_leftovers,
    remove_work,
)
from data_pipelines.report import all_faults, print_faults, print_summary
from data_pipelines.settings import MOVING_DIGITS, BuildSettings
from data_pipelines.shard_set import Workshop, encode_parts, write_set
from data_pipelines.sources import Inputs, Source
from vdm.cli.next_step import command, say_next
from vdm.config import build as build_component
from vdm.config.options import parse
from vdm.files import write_json
from vdm.text import well_formed

_COMMAND = "vdm-data build"
PARTS_NAME = ".parts"
"""Sub-folder of finished sources; removed when the shards are complete."""


def run(config: DictConfig) -> int:
    """Build what ``conf/build.yaml`` says; see ``build``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return build(parse(BuildSettings, values))


def build(settings: BuildSettings) -> int:
    """Build a set of shards, or what is missing of it.

    Returns:
        0, or 1 if some file could not be used as it should; those are listed.

    Raises:
        ValueError: In one line, if nothing could be built.
    """
    inputs = _read_inputs(settings)
    _check_parts(settings.output)
    recorded = _recorded(settings)
    is_new = not check_output(settings.output, _COMMAND, recorded)
    claim_output(settings.output, _COMMAND, recorded)
    with kept_from_others(settings.output, settings.output / PARTS_NAME):
        if is_new:  # another may have recorded its own at the same time
            write_json(settings.output / SETTINGS_NAME, recorded, indent=1)
        return _build(settings, inputs)


def _build(settings: BuildSettings, inputs: Inputs[Source]) -> int:
    """Build in a folder that is this process's own."""
    folder = settings.output / PARTS_NAME
    remove_leftovers(folder)
    workshop = Workshop(folder, folder / "claims", LocalExecutor(settings.num_workers))
    parts = encode_parts(inputs.sources, settings.output, workshop)
    any_fault = print_faults(parts, inputs)
    if not any(part.num_clips for part in parts):
        _release_output(settings.output)
        raise ValueError(f"input={settings.input}: none of its {len(parts)} files gave a clip, for the reasons above")
    index = write_set(parts, inputs, settings.of_set(), workshop)
    remove_work(folder)
    print_summary(settings.output, index, len(all_faults(parts, inputs)))
    say_next(command("vdm-data show", str(settings.output)), command("vdm train", data__path=settings.output))
    return int(any_fault)


def _check_parts(output: Path) -> None:
    """Refuse a sub-folder that this program did not make: it is deleted with all that is in it.

    Raises:
        ValueError: In one line, if there is one.
    """
    parts = output / PARTS_NAME
    is_ours = (output / SETTINGS_NAME).is_file() and parts.is_dir() and not parts.is_symlink()
    if os.path.lexists(parts) and not is_ours:
        raise ValueError(f"output={output}: has a {PARTS_NAME} that is not from vdm-data build; choose another folder")


def _read_inputs(settings: BuildSettings) -> Inputs[Source]:
    if settings.source is not None:
        defaults = {"input": settings.input, "clip": settings.resolved_clip(), "excluded": [settings.output]}
        return build_component(settings.source, "source", defaults=defaults)
    if settings.input == MOVING_DIGITS:
        from data_pipelines.moving_digits import read_moving_digits  # scikit-learn, which videos do not need

        return read_moving_digits(settings)
    from data_pipelines.video_folder import read_video_folder

    return read_video_folder(
        settings.input, settings.manifest, [settings.output], settings.resolved_clip(), settings.hdr
    )


def _recorded(settings: BuildSettings) -> dict[str, Any]:
    """Return the settings on which the shards depend, by the names that the user knows."""
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
    """Leave no trace of a build that gave nothing, so that it can be tried again with other settings."""
    remove_work(output / PARTS_NAME)
    (output / SETTINGS_NAME).unlink()
    if not any(output.iterdir()):
        output.rmdir()
