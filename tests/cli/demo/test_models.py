"""What the page offers is what its models can do, and a stopped job ends within a step."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.assembly.small_model import config, small_model
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.demo.calls import Form, SharedOptions
from vdm.cli.demo.jobs import Job, StoppedError, checking
from vdm.cli.demo.models import DemoModel
from vdm.cli.sample import SampleCall

CLIP = {"num_frames": 4, "height": 16, "width": 32, "fps": 8.0, "label_names": ["zero", "one", "two"]}


def demo_model(clip: dict[str, Any] | None = None, **changes: object) -> DemoModel:
    recorded = RunConfig.of({**config(**changes), "clip": {**CLIP, **(clip or {})}}, Path("config.yaml"))
    model = small_model(**changes)
    return DemoModel("run", Path("run/step=1"), recorded, model, Path("samples"), model.conditioner.options)


def test_everything_is_offered_of_a_model_that_takes_everything() -> None:
    model = demo_model()
    assert (model.takes_text, model.takes_image, model.classes) == (True, True, ("zero", "one", "two"))
    assert model.tasks == ["extend", "interpolate", "superres"]
    assert (model.options, model.num_steps) == ({}, 3)


def test_nothing_is_offered_that_the_model_does_not_take() -> None:
    nothing = {"model__conditioner__num_classes": 0, "model__conditioner__image": False}
    model = demo_model({"num_frames": 1, "label_names": []}, model__conditioner__text_encoder=None, **nothing)
    assert (model.takes_text, model.takes_image, list(model.classes)) == (False, False, [])
    assert model.tasks == ["superres"]


def test_classes_without_names_have_numbers() -> None:
    assert demo_model({"label_names": []}).classes == ["0", "1", "2"]


def test_what_a_check_raises_ends_a_forward_pass_at_once() -> None:
    model = demo_model().model
    calls = 0

    def stop_at_the_third_layer() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StoppedError

    noise = torch.zeros(1, 3, 4, 16, 32)
    with pytest.raises(StoppedError), checking(model, stop_at_the_third_layer):
        model.sample(noise, ["a dog"])
    assert calls == 3
    model.sample(noise, ["a dog"])  # no check is left behind
    assert calls == 3


def test_a_job_that_was_stopped_while_it_waited_makes_nothing(tmp_path: Path) -> None:
    turn = threading.Lock()
    job = Job(Form(), [demo_model()], SharedOptions())
    with turn:
        updates = job.updates(turn)
        (first,) = next(updates)
        assert first.status == "waits for its turn"
        job.is_stopped.set()
        (last,) = list(updates)[-1]
    assert (last.error, last.command) == ("stopped", "")


def test_a_visitor_who_left_does_not_hold_up_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(self: DemoModel, words: object) -> None:
        begun.set()
        while True:
            self.model.network(torch.zeros(0))  # calls the check first

    monkeypatch.setattr(DemoModel, "begin", endless)
    turn = threading.Lock()
    updates = Job(Form(), [demo_model()], SharedOptions()).updates(turn)
    next(updates)
    assert begun.wait(60)
    updates.close()  # type: ignore[attr-defined]
    assert turn.acquire(timeout=60)


class ManySteps(SampleCall):
    """A call of a thousand steps that take no time."""

    num_steps = 1000

    def __init__(self, folder: Path) -> None:
        files = SimpleNamespace(videos=[folder / "0000.mp4"], settings=folder / "settings.json")
        vars(self).update(model=demo_model().model, task=SimpleNamespace(fps=8.0), files=files)

    def make(self, on_step: Callable[[int, torch.Tensor], None]) -> None:
        for step in range(1, self.num_steps + 1):
            on_step(step, torch.zeros(1, 3, 4, 16, 32))
        self.files.videos[0].touch()


def test_a_browser_is_not_told_of_each_of_many_short_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DemoModel, "begin", lambda self, words: ManySteps(tmp_path))
    start = time.monotonic()
    updates = list(Job(Form(), [demo_model()], SharedOptions()).updates(threading.Lock()))
    assert updates[-1][0].status == "done"
    assert any(update[0].status.startswith("step ") for update in updates)
    assert len(updates) < 10 + (time.monotonic() - start) / 0.2
