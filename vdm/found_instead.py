"""Recognizes a file or folder that was given in place of another, and names the command that takes it.

The names of files are those that the rest of this project, diffusers and peft give them.
"""

import mimetypes
from pathlib import Path

_PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_MAX_LOOKED_AT = 1000
"""Maximum number of files of a folder that are examined."""


def found_instead(path: Path) -> str:
    """Return the end of a message about a wrong path: what it is, and which command takes it; empty if unknown.

    Example: ``; it is an export: `vdm import from=PATH to=RUN` makes a run of it``.
    """
    try:
        found = _of_folder(path) if path.is_dir() else _of_file(path) if path.is_file() else None
    except OSError:  # it may not be read
        return ""
    return "" if found is None else f"; it is {found}"


def is_export(folder: Path) -> bool:
    """Tell whether a folder is what ``vdm export`` wrote in this project's own format."""
    return (folder / "model.safetensors").is_file() and not (folder / "checkpoints").exists()


def has_index(folder: Path) -> bool:
    """Tell whether a folder has the index of a set of shards."""
    return (folder / "index.json").exists()


def _of_folder(path: Path) -> str | None:
    names = {entry.name for _, entry in zip(range(_MAX_LOOKED_AT), path.iterdir(), strict=False)}
    if "model_index.json" in names:
        return (
            f"a pipeline of diffusers: `vdm import from={path} to=RUN` makes a run of it, and model.pretrained={path}"
            " trains from it"
        )
    if "adapter_config.json" in names:
        return f"a LoRA, for peft and diffusers: `vdm train tune=lora tune.file={path}` trains it further"
    if "config.yaml" in names:
        if is_export(path):
            return f"an export: `vdm import from={path} to=RUN` makes a run of it"
        return f"a run: `vdm sample checkpoint={path}` samples from it, and init_from={path} trains from it"
    if has_index(path) and "shards.parquet" in names:
        return f"a set of shards: data.path={path} trains on it"
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.yaml").is_file():
        return f"a checkpoint: `vdm sample checkpoint={path}` samples from it, and init_from={path} trains from it"
    if path.name == "checkpoints" and (path.parent / "config.yaml").is_file():
        return f"all checkpoints of a run: give the run, {path.parent}, or one of them"
    if runs := sorted(name for name in names if (path / name / "config.yaml").is_file()):
        return f"a folder of runs: give one of them, such as {path / runs[-1]}"
    if any(name.endswith(".tar") for name in names):
        return f"a folder of tars without an index: `vdm-data index {path}` makes one"
    if any(_is_video(name) for name in names):
        return f"a folder of videos: `vdm-data build input={path} output=SHARDS` makes shards of them"
    return None


def _of_file(path: Path) -> str | None:
    if _is_video(path.name):
        return "a video: `vdm-data build input=FOLDER output=SHARDS` makes shards of a folder of videos"
    if path.suffix == ".safetensors":
        return (
            f"a file of weights: `vdm import from={path} to=RUN` makes a run of it if it is one of the authors of"
            " Stable Video Diffusion or Wan, and of a pipeline's folder"
        )
    if path.suffix == ".tar":
        return f"a shard: give the folder that it is in, {path.parent}"
    if path.suffix in _PICKLED:
        return "a pickle, which may run any code and is not read: give safetensors, in a folder of diffusers"
    return None


def _is_video(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith("video/")
