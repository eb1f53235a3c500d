"""The callbacks of a training run, in the order in which Lightning calls them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from vdm.config import build
from vdm.evaluation.build import ChosenMetrics
from vdm.training.callbacks.history import RecordHistory
from vdm.training.callbacks.measuring import MeasureVideos
from vdm.training.callbacks.samples import SampleVideos
from vdm.training.callbacks.stopping import StopOnSignal


def build_callbacks(config: Mapping[str, Any], run: Path, stop: StopOnSignal) -> list[Callback]:
    """Build the callbacks that a configuration asks for, ordered by what each may rely on after a step.

    1. ``callbacks``, without those that sample videos: they observe the step. A step's EMA snapshot is begun before its
       checkpoint.
    2. ``bad_steps``: may go back to an earlier checkpoint, which changes all that is saved.
    3. ``save``: comes after everything that changes the saved state.
    4. ``callbacks.samples`` and ``callbacks.measure``: may run out of memory, when the step's checkpoint is already
       begun.
    5. ``stop``: ends training, so the step must be complete in every respect.
    6. ``watchdog``: notes progress.
    7. The history: records an end that is complete, and a failure once the watchdog has told it from its consequences.

    Args:
        config: Whole configuration.
        run: Folder of the run.
        stop: Callback that ends training on a signal.

    Raises:
        ConfigError: One line that names the key.
    """
    sampling = {key: config[key] for key in ("sampler", "guidance")}
    defaults = {"run": run, "metrics": ChosenMetrics(config.get("metric", {}), sampling)}
    chosen = [build(node, f"callbacks.{name}", defaults=defaults) for name, node in config["callbacks"].items() if node]
    samples = [callback for callback in chosen if isinstance(callback, SampleVideos | MeasureVideos)]
    observers = [callback for callback in chosen if callback not in samples]
    bad_steps, save, watchdog = (
        build(config[key], key, defaults=defaults) for key in ("bad_steps", "save", "watchdog")
    )
    history = RecordHistory(run, stop)
    watchdog.on_end = history.ended
    return [*observers, bad_steps, save, *samples, stop, watchdog, history]
