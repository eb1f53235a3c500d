"""The order of callbacks, which decides what a checkpoint of a step holds."""

from pathlib import Path

from tests.training.runs import configuration
from vdm.training.training_run import build_training

SAMPLES = {"_target_": "vdm.training.callbacks.samples.SampleVideos", "every_steps": 1}


def test_checkpoints_come_after_what_changes_the_state_and_before_samples_and_the_end(
    tmp_path: Path, shards: Path
) -> None:
    config = configuration(shards)
    config["callbacks"] = {"samples": SAMPLES, **{name: node for name, node in config["callbacks"].items() if node}}
    found = [type(callback).__name__ for callback in build_training(config, tmp_path).trainer.callbacks]  # type: ignore[attr-defined]
    ordered = ("SaveEMASnapshots", "LeaveOutBadSteps", "SaveCheckpoints", "SampleVideos", "StopOnSignal", "Watchdog")
    assert [name for name in found if name in ordered] == list(ordered)
