"""Metrics of sampled videos during training."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.collectives import all_gather, num_processes, run_on_all
from vdm.evaluation.build import ChosenMetrics, build_metrics
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.measure import Measured, Measurement, check_counts, measure, num_videos_read
from vdm.evaluation.measuring_bar import MeasuringBar
from vdm.evaluation.sources.sampled import OnStep, SampledVideos
from vdm.evaluation.sources.shard_clips import ShardClips
from vdm.files import write_json
from vdm.ranges import Count, Folder, Seed, Size
from vdm.training.callbacks.saving import SaveCheckpoints
from vdm.training.loggers.base import run_loggers
from vdm.training.module import DiffusionModule, log_scalars
from vdm.types import ClipSize

PROTOCOL_COLUMNS = ("metric", "value", "low", "high", "reliable", "videos", "protocol")
"""Columns of the table of figures that loggers get; low and high bound the confidence interval."""

_log = logging.getLogger(__name__)


class MeasureVideos(Callback):
    """Samples videos with the EMA weights, measures them, and logs ``val/NAME`` for each metric.

    The processes share the videos. The figures with their protocols are in ``evaluation/step=…/results.json`` of the
    run's folder; descriptions of held-out clips are kept in ``evaluation/features``.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one measurement to the next.
        metrics: The metrics that ``metric`` chooses. Without any, nothing is measured.
        num_videos: Videos that are sampled, for metrics that don't say how many they take.
        seed: Seed of the noise.
        at_end: Whether the final weights are measured, too.
    """

    def __init__(
        self,
        run: Folder,
        every_steps: Count,
        metrics: ChosenMetrics,
        num_videos: Size = 256,
        seed: Seed = 0,
        at_end: bool = True,
    ) -> None:
        self.run = Path(run)
        self.every_steps = every_steps
        self.nodes, self.sampling = metrics.of(num_videos).nodes, metrics.sampling
        self.seed = seed
        self.at_end = at_end
        self.measured_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Build the metrics, so that a mistake ends training before the first step.

        A run that was killed while it measured has a checkpoint of that step, and measures it now.
        """
        self.measured_step = trainer.global_step
        if not self.nodes:
            return
        data = pl_module.data
        sampling = {**self.sampling, "guide": None, "ema": True, "seed": self.seed}
        self.metrics = build_metrics(self.nodes, pl_module.device, data, {"sampling": sampling})
        self.held_out = ShardClips(data, "validation", None, data.clip_shape)
        sampled = self._sampled(pl_module)
        for one in self.metrics.values():
            sampled.check(one.key, one.metric.rule)
        check_counts(self.metrics, sampled, self.held_out, self.held_out)
        pl_module.higher_is_better |= {
            f"val/{name}" for name, one in self.metrics.items() if one.metric.better == "higher"
        }
        if self._is_unmeasured(trainer.global_step):
            self.measured_step = 0
            self.measure(trainer, pl_module)

    @property
    def logged_names(self) -> list[str]:
        """Names of the scalars of metrics of which lower or higher figures are better."""
        return [f"val/{name}" for name, one in self.metrics.items() if one.metric.better] if self.nodes else []

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Measure after every ``every_steps`` steps."""
        self.measured_step = min(self.measured_step, trainer.global_step)  # training may have gone back
        if trainer.global_step % self.every_steps == 0:
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Measure the final weights, unless training was stopped early."""
        if self.at_end and trainer.global_step >= trainer.max_steps > 0:
            self.measure(trainer, pl_module)

    def measure(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Measure unless this step has been measured already."""
        step = trainer.global_step
        if step == self.measured_step or not self.nodes:
            return
        self.measured_step = step
        module.strategy.writer.finish()  # sampling may fail; the checkpoint in progress must not be lost
        with module.clock.interruption("measuring"):
            self._measure(trainer, module, step)

    def _measure(self, trainer: lightning.Trainer, module: DiffusionModule, step: int) -> None:
        run_on_all(module.strategy.check_lock)
        start = time.perf_counter()
        bar = MeasuringBar(is_hidden=None if trainer.is_global_zero else True)
        sampled = self._sampled(module, bar.step)
        num_videos = -(-num_videos_read(self.metrics, sampled, self.held_out) // num_processes())
        was_training = module.model.training
        module.model.eval()
        with module.ema.swapped_in(), trainer.precision_plugin.forward_context(), bar.shown(num_videos):
            measured = measure(self.metrics, sampled, self.held_out, self.held_out, self._cache, self.seed, bar.video)
        module.model.train(was_training)
        found = measured.found
        for message in measured.failed.values():
            _log.warning("%s", message)
        values = ", ".join(f"{name} {one.value:.4g}" for name, one in found.items())
        seconds = time.perf_counter() - start
        if trainer.is_global_zero:
            self._write(step, measured)
            _log.info("Measured after step %d in %.0f s: %s", step, seconds, values)
        log_scalars(
            trainer, {**{f"val/{name}": one.value for name, one in found.items()}, "perf/measuring_seconds": seconds}
        )
        for logger in run_loggers(trainer):
            logger.log_table("val/protocols", PROTOCOL_COLUMNS, [_row(name, one) for name, one in found.items()], step)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it in its constructor, unseen by the checker
            if isinstance(callback, SaveCheckpoints):
                callback.save_if_best(trainer, module)

    @property
    def _cache(self) -> FeatureCache:
        return FeatureCache(self.run / "evaluation" / "features")

    def _sampled(self, module: DiffusionModule, on_step: OnStep | None = None) -> SampledVideos:
        return SampledVideos(
            "the model",
            module.model,
            self.held_out,
            ClipSize(*module.data.clip_shape),
            module.data.fps,
            max(one.metric.num_videos or 0 for one in self.metrics.values()),
            self.seed,
            module.data.micro_batch_size,
            on_step,
        )

    def _is_unmeasured(self, step: int) -> bool:
        """Tell whether training goes on from a step that was to be measured; the first process decides."""
        return step > 0 and step % self.every_steps == 0 and not all_gather(self._results(step).is_file())[0]

    def _write(self, step: int, measured: Measured) -> None:
        results = self._results(step)
        results.parent.mkdir(parents=True, exist_ok=True)
        write_json(results, {"metrics": measured.plain()}, indent=1)

    def _results(self, step: int) -> Path:
        return self.run / "evaluation" / f"step={step:08d}" / "results.json"


def _row(name: str, one: Measurement) -> list[Any]:
    low, high = one.interval or (None, None)
    return [name, one.value, low, high, one.reliable, one.num_videos, json.dumps(dict(one.protocol), default=str)]
