"""Videos for other benchmarks' tools, which need an environment of their own, under the names that they expect.

- VBench (Huang et al. 2024; its ``prompts/README.md``): ``PROMPT-INDEX.mp4``, five videos of each prompt.
- EvalCrafter (Liu et al. 2024; its ``README.md``): ``0000.mp4`` for the first prompt, and so on.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.collectives import num_processes, rank, run_on_all
from vdm.cli.options.evaluate import EvaluateOptions
from vdm.cli.sample_folder import make_output_folder
from vdm.config import ConfigError
from vdm.evaluation.sources.base import blocks_of_rank
from vdm.files import write_json
from vdm.generation.generate import generate
from vdm.generation.requests import read_prompts
from vdm.generation.video_files import write_mp4
from vdm.outside import read_json
from vdm.types import ClipSize

_VBENCH_VIDEOS = 5
"""Videos of each prompt, by VBench's protocol."""
_MAX_NAME_BYTES = 255
_RECORD = "made_with.json"
"""What the videos of a folder are made with."""


def export_videos(
    options: EvaluateOptions, model: VideoDiffusionModel, size: ClipSize, fps: float, made: Mapping[str, Any]
) -> None:
    """Sample the videos that are not there yet, so that a stopped export goes on; the processes share them.

    Args:
        options: Options of the command.
        model: The model, with the sampler and guidance to sample with.
        size: Size of the videos.
        fps: Their frames per second.
        made: What the videos are made with; a folder has those of one model alone.

    Raises:
        ConfigError: If there are no prompts, or one can't be the name of a file.
    """
    assert options.export is not None, "there is a folder to export to"
    captions = read_prompts(None, None if options.prompts_file is None else str(options.prompts_file))
    if captions is None:
        raise ConfigError("prompts_file: no value given; export= samples the prompts of the benchmark's file")
    names, asked = _names(captions, options.export_for)
    folder = options.export
    run_on_all(lambda: _begin(folder, {**made, "prompts": asked}) if rank() == 0 else None)
    paths = [options.export / name for name in names]
    blocks = blocks_of_rank(len(paths), options.batch_size, rank(), num_processes())

    def sample() -> None:
        with tqdm(total=sum(map(len, blocks)), desc="videos", unit="video", disable=rank() > 0) as bar:
            for block in blocks:
                if not all(paths[number].is_file() for number in block):
                    prompts = model.prompts([asked[number] for number in block])
                    videos = generate(model, prompts, size, options.seed, options.batch_size, first=block.start)
                    for number, video in zip(block, videos, strict=True):
                        write_mp4(paths[number], video, fps, {"title": asked[number]})
                bar.update(len(block))

    run_on_all(sample)
    if rank() == 0:
        print(f"Wrote {len(paths)} videos to {options.export}")
        print(f"In an environment of its own: {_command(options)}")


def _begin(folder: Path, made: Mapping[str, Any]) -> None:
    """Record what the videos are made with, and refuse a folder of others.

    Raises:
        ConfigError: If the folder has videos that were made with something else, or can't be written to.
    """
    make_output_folder(folder, "export")
    record = folder / _RECORD
    if record.exists():
        before = read_json(record)
        differing = [key for key in made if json.dumps(before.get(key)) != json.dumps(made[key])]
        if differing:
            raise ConfigError(f"export={folder}: has videos that were made with another {', '.join(differing)}")
    elif any(folder.glob("*.mp4")):
        raise ConfigError(f"export={folder}: has videos that no export has made")
    write_json(record, made, indent=1)


def _names(captions: Sequence[str], tool: str) -> tuple[list[str], list[str]]:
    """Return the name and the caption of each video."""
    if tool == "evalcrafter":
        return [f"{number:04d}.mp4" for number in range(len(captions))], list(captions)
    distinct = list(dict.fromkeys(captions))  # VBench's file of all dimensions repeats prompts
    asked = [caption for caption in distinct for _ in range(_VBENCH_VIDEOS)]
    names = [f"{caption}-{index}.mp4" for caption in distinct for index in range(_VBENCH_VIDEOS)]
    for caption, name in zip(asked, names, strict=True):
        if "/" in name or name.startswith(".") or not name.isprintable() or len(name.encode()) > _MAX_NAME_BYTES:
            raise ConfigError(f"prompts_file={caption[:60]!r}: can't be the name of a file, which VBench asks for")
    return names, asked


def _command(options: EvaluateOptions) -> str:
    if options.export_for == "evalcrafter":
        return f"bash start.sh EVALCRAFTER {options.export}"
    return f"vbench evaluate --videos_path {options.export} --dimension DIMENSION"
