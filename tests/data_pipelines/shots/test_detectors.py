from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data_pipelines.shots.pyscenedetect import PySceneDetectShots
from data_pipelines.shots.transnetv2 import TransNetV2Shots, shots_outside
from data_pipelines.shots.whole import WholeVideo
from tests.data_pipelines.moving import shot


def _film(lengths: tuple[int, ...], size: tuple[int, int]) -> list[np.ndarray]:
    frames = [frame for number, length in enumerate(lengths) for frame in shot(10 + number, length)]
    return [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]


@pytest.mark.parametrize("detector", ["adaptive", "content", "histogram"])
def test_cuts_of_a_made_film_are_found(detector: Any) -> None:
    shots = PySceneDetectShots(detector)

    assert shots.shots(_film((30, 40, 25), shots.size), fps=25) == [range(30), range(30, 70), range(70, 95)]
    assert shots.shots([], fps=25) == []


def test_transnetv2_finds_cuts_and_gives_the_probabilities_of_its_package() -> None:
    shots = TransNetV2Shots()
    film = _film((60, 67), shots.size)

    assert shots.shots(film, fps=25) == [range(60), range(60, 127)]
    expected, _ = shots.network.predict_frames(torch.from_numpy(np.stack(film)), quiet=True)
    torch.testing.assert_close(shots.probabilities(film), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_frames_of_a_transition_belong_to_no_shot() -> None:
    marked = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)

    assert shots_outside(marked) == [range(4), range(6, 9), range(9, 10)]


def test_whole_video_is_one_shot() -> None:
    assert WholeVideo().shots([np.zeros((2, 2, 3), np.uint8)] * 5, fps=8) == [range(5)]
