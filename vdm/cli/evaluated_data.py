"""The data of ``vdm evaluate``: that of the run, or another set."""

from pathlib import Path
from typing import Any

from vdm.checkpoints.data_path import resolve_data_path
from vdm.checkpoints.run_config import CLIP_SAMPLING, DATA_MODULE, RunConfig
from vdm.cli.options.evaluate import EvaluateOptions
from vdm.config import ConfigError, build
from vdm.data.datamodule import ClipDataModule
from vdm.data.shard_lists import listed_sets


def held_out_data(options: EvaluateOptions, trained: RunConfig) -> ClipDataModule:
    """Return the run's data set, or another, in batches for evaluation.

    Of the run's data options, only the sampling of clips is taken over, and the path if it is a folder here: a run from
    elsewhere does not decide what is written, cached or contacted.
    """
    batch_size = options.batch_size
    node = {
        **(trained.data_module or {"_target_": DATA_MODULE, "clips": _clips(trained)}),
        "path": options.data_path or own_path(trained),
        "seed": trained.data.seed,
        "global_batch_size": batch_size,
        "micro_batch_size": batch_size,
        "num_workers": 0,
        "num_images_per_clip": 0,
        "overfit_one_batch": False,
        "stored_latents": False,  # measures clips of pixels
        "stored_text": False,
        "max_validation_clips": options.max_clips,
    }
    allowed = None if trained.data_module is not None else ("vdm.data",)
    data: ClipDataModule = build(node, "data", allowed)
    try:
        data.check()
    except ValueError as error:
        raise ConfigError(f"data_path: {error}") from error
    return data


def _clips(trained: RunConfig) -> dict[str, Any] | None:
    return trained.data.clips and {**trained.data.clips, "_target_": CLIP_SAMPLING}


def own_path(trained: RunConfig) -> Any:
    """Return the path of the run's data."""
    if trained.data_module is not None:
        return trained.data_module.get("path")
    path = trained.data.path
    if path is None:
        raise ConfigError("data_path: no value given; the run was imported, and has no data of its own")
    path = resolve_data_path(path, trained.started_in)
    for folder in path if isinstance(path, dict) else [path]:
        if not _is_here(folder):
            raise ConfigError(
                f"data_path: no value given; the run was trained on {folder}, which is no folder of this machine"
            )
    return path


def _is_here(path: str) -> bool:
    """Tell whether all sets of a list are folders of this machine."""
    try:
        return all(Path(one.path).is_dir() for one in listed_sets(path))
    except ValueError:
        return False
