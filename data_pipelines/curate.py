"""``vdm-data curate``: raw videos to shards of chosen clips, stage by stage.

Each stage takes the rows that the one before it kept, and its own rows are a table in the work folder. What a stage
made of a file is kept there too, under a name that changes when the result would: run again, the command does what is
missing or concerned by a changed setting, and nothing else.
"""

from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.curate_settings import STAGES, CurateSettings, Stage
from data_pipelines.curation import Curation
from data_pipelines.executors.base import Executor
from data_pipelines.missing import check_installed
from data_pipelines.output_folder import claim_output, locked
from data_pipelines.stages.measure import check_hashes
from data_pipelines.stages.units import WorkFolder
from data_pipelines.video_folder import read_video_folder
from vdm.cli.next_step import command, say_next
from vdm.config import build, check
from vdm.config.options import parse
from vdm.text import printable, well_formed

_MODELS: tuple[tuple[str, Stage, str], ...] = (
    ("captioner", "caption", "transformers"),
    ("encoder", "encode", "diffusers"),
    ("text_encoder", "encode", "transformers"),
)
"""What loads pretrained models, in which stage, and whose they are."""


def run(config: DictConfig) -> int:
    """Curate what ``conf/curate.yaml`` says; see ``curate``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return curate(parse(CurateSettings, values))


def curate(settings: CurateSettings) -> int:
    """Run all stages, or those up to ``settings.until``.

    Returns:
        0, or 1 if some file could not be used as it should, or the finished set is not as it should be; what is wrong
        is listed.

    Raises:
        ValueError: In one line, if a setting can't be used or no clip is left.
    """
    executor: Executor = build(dict(settings.executor), "executor")
    _check_components(settings)
    excluded = [settings.output, settings.work_folder()]
    inputs = read_video_folder(settings.input, settings.manifest, excluded, settings.resolved_clip(), settings.hdr)
    if (message := executor.submit(settings.work_folder() / "logs")) is not None:
        logs = settings.work_folder() / "logs"
        print(printable(f"{message}; logs: {logs}; the set: {settings.output}"))
        return 0
    if settings.runs("write"):
        made_from = {"input": well_formed(str(settings.input)), "command": "curate"}
        claim_output(settings.output, "vdm-data curate", made_from)
    work = settings.work_folder()
    work.mkdir(parents=True, exist_ok=True)
    with nullcontext() if executor.shares_folders else locked(work):
        curation = Curation(settings, inputs, WorkFolder(work, executor))
        rows: Any = []
        for stage in STAGES:
            if settings.runs(stage):
                rows = getattr(curation, stage)(rows)
        code = curation.end()
    if settings.until not in (None, STAGES[-1]):
        say_next(command("vdm-data curate", input=settings.input, output=settings.output))
    return code


def _check_components(settings: CurateSettings) -> None:
    """Find mistakes in what workers are going to build; what is light is built, weights are left for them to load."""
    settings.filter.checked_limits()
    if settings.runs("filter"):
        check_hashes()
    build({name: dict(node) for name, node in settings.filter.scores.items() if node}, "filter.scores")
    if settings.runs("cut"):
        build(dict(settings.shots), "shots")
    for key, stage, library in _MODELS:
        node = getattr(settings, key)
        check(node, key)
        if node and "name_or_path" in node and settings.runs(stage):  # it is pretrained
            check_installed(library, "pretrained", key)
