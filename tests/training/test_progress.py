import re
from pathlib import Path

import pytest
import torch

from tests.training.runs import configuration, train
from vdm.training.callbacks.progress import StepProgressBar, _mean_loss


def test_mean_is_over_clips_that_count_and_have_a_loss() -> None:
    losses, weights = torch.tensor([1.0, torch.nan, 3.0, 100.0]), torch.tensor([1.0, 1.0, 0.5, 0.0])
    assert _mean_loss(losses, weights) == 2
    assert _mean_loss(losses[1:2], weights[1:2]).isnan()


def test_running_mean_of_the_loss_goes_on_in_a_resumed_run(
    tmp_path: Path, shards: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bar = "callbacks.progress={_target_:vdm.training.callbacks.progress.StepProgressBar}"

    def last_shown() -> str:
        return re.findall(r"loss (\d\.\d{4})", capfd.readouterr().err)[-1]

    config = configuration(shards, bar, without=("callbacks.progress",))
    train(tmp_path / "whole", config)
    whole = last_shown()
    train(tmp_path / "parts", {**config, "trainer": {**config["trainer"], "max_steps": 3}})
    capfd.readouterr()
    train(tmp_path / "parts", config, resume=True)

    assert last_shown() == whole


def test_bar_without_a_loss_has_nothing_to_go_on_with() -> None:
    assert StepProgressBar().state_dict() == {}
