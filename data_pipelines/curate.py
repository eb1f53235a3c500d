"""``vdm-data curate``: raw videos to shards of chosen clips, stage by stage.

Each stage takes the rows that the previous stage kept, and writes its own rows as a table into the work folder. The
results for each file are cached there under a name that changes whenever they would: a second run repeats only what is
missing or affected by a changed setting.
"""

from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.curate_settings import STAGES, CurateSettings, Stage
from data_pipelines.curation import Curation
from data_pipelines.executors.base import Executor
from data_pipelines.output_folder import prepare_output, work_folder_lock
from data_pipelines.stages.measure import check_hashes
from data_pipelines.stages.work_items import WorkFolder
from data_pipelines.video_folder import read_video_folder
from vdm.cli.next_step import command, say_next
from vdm.config import build, check
from vdm.config.options import parse
from vdm.extras import check_installed
from vdm.text import printable, well_formed

_MODELS: tuple[tuple[str, Stage, str], ...] = (
    ("captioner", "caption", "transformers"),
    ("encoder", "encode", "diffusers"),
    ("text_encoder", "encode", "transformers"),
)
"""Keys of pretrained models, the stage that loads each, and the library that it comes from."""


def run(config: DictConfig) -> int:
    """Curate what ``conf/curate.yaml`` says; see ``curate``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return curate(parse(CurateSettings, values))


def curate(settings: CurateSettings) -> int:
    """Run all stages, or those up to ``settings.until``.

    Returns:
        0, or 1 if some files or the finished set have faults, which are listed.

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
        prepare_output(settings.output, "vdm-data curate", made_from)
    work = settings.work_folder()
    work.mkdir(parents=True, exist_ok=True)
    with nullcontext() if executor.shares_folders else work_folder_lock(work):
        code = Curation(settings, inputs, WorkFolder(work, executor)).run()
    if settings.until not in (None, STAGES[-1]):
        say_next(command("vdm-data curate", input=settings.input, output=settings.output))
    return code


def _check_components(settings: CurateSettings) -> None:
    """Check the components that the workers build: build the light ones, check the options of those with weights."""
    settings.filter.checked_limits()
    if settings.runs("filter"):
        check_hashes()
    build({name: dict(node) for name, node in settings.filter.scores.items() if node}, "filter.scores")
    if settings.runs("cut"):
        build(dict(settings.shots), "shots")
    for key, stage, library in _MODELS:
        node = getattr(settings, key)
        check(node, key)
        if node and "name_or_path" in node and settings.runs(stage):  # pretrained
            check_installed(library, "pretrained", key)
