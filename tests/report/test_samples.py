from pathlib import Path

import pytest

from tests.report.made_runs import write_clip, write_run
from vdm.report.samples import Samples, fitting, read_video, samples_of


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Eleven steps of three videos, with their held-out clips."""
    run = tmp_path_factory.mktemp("samples") / "run"
    write_run(run, num_steps=0, sample_steps=range(100, 1101, 100), captions=("a", "b", None))
    return samples_of(run)


def steps(samples: Samples) -> list[int]:
    return [step for step, _ in samples.steps]


def test_everything_is_shown_if_it_fits(samples: Samples) -> None:
    found = fitting(samples, 8, samples.num_bytes())

    assert steps(found) == list(range(100, 1101, 100))
    assert [prompt.caption for prompt in found.prompts] == ["a", "b", None]
    assert all(prompt.reference is not None for prompt in found.prompts)
    assert found.left_out == ""


def test_steps_are_left_out_evenly_and_never_the_last(samples: Samples) -> None:
    half = fitting(samples, 8, samples.num_bytes() // 2)
    assert half.num_bytes() <= samples.num_bytes() // 2
    assert steps(half)[0] == 100
    assert steps(half)[-1] == 1100
    gaps = {after - before for before, after in zip(steps(half)[:-1], steps(half)[1:], strict=True)}
    assert max(gaps) - min(gaps) <= 100
    assert half.left_out == f"Shown: {len(half.steps)} of 11 sampled steps, as many as fit."


def test_then_videos_of_the_last_step_and_at_the_end_all(samples: Samples) -> None:
    one = fitting(samples, 1, 10**9)
    assert len(one.prompts) == 1
    assert one.left_out == "Shown: 1 of 3 videos of a step."

    tight = fitting(samples, 3, fitting(samples, 1, 10**9).num_bytes() // 4)
    assert steps(tight) == [1100]
    assert len(tight.prompts) < 3

    assert fitting(samples, 3, 10).steps == ()
    assert fitting(samples, 0, 10**9).videos() == []


def test_grids_stand_in_for_clips_in_runs_without_them(tmp_path: Path) -> None:
    write_clip(tmp_path / "samples/step=00000010/grid.mp4", 100)
    write_clip(tmp_path / "samples/0000/0000-a.mp4", 100)  # of vdm sample

    found = samples_of(tmp_path)

    assert found.videos() == [tmp_path / "samples/step=00000010/grid.mp4"]


def test_names_of_files_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "run/samples/step=00000010"
    write_clip(folder / "0000.mp4", 100)
    write_clip(tmp_path / "0000.mp4", 100)
    (folder / "prompts.json").write_text(
        '[{"video": "../../../0000.mp4"}, {"video": "0000.mp4", "reference": "../../../0000.mp4"}]'
    )

    found = samples_of(tmp_path / "run")

    assert found.videos() == [folder / "0000.mp4"]


def test_a_video_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    from vdm.report.samples import read_video

    os.mkfifo(tmp_path / "0000.mp4")
    assert read_video(tmp_path / "0000.mp4") == b""


@pytest.mark.parametrize("link", ["samples/step=00000100/0000.mp4", "samples/step=00000100", "samples/references"])
def test_a_link_to_somewhere_else_is_not_followed(tmp_path: Path, link: str) -> None:
    run, elsewhere = write_run(tmp_path / "run", sample_steps=(100,)), tmp_path / "elsewhere"
    path = run / link
    path.rename(elsewhere) if path.exists() else elsewhere.mkdir()
    path.symlink_to(elsewhere)

    content = [read_video(file) for file in samples_of(run).videos()]

    assert all(path not in (file, *file.parents) or read_video(file) == b"" for file in samples_of(run).videos())
    assert len([one for one in content if one]) < 4


def test_steps_of_other_prompts_are_left_out_and_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sample_steps=(100, 200, 300))
    listed = run / "samples" / "step=00000100" / "prompts.json"
    listed.write_text(listed.read_text().replace("a one moves left", "a dog"))

    samples = samples_of(run)

    assert [step for step, _ in samples.steps] == [200, 300]
    assert fitting(samples, 8, 1 << 30).left_out == "Steps with other prompts are left out: 1."
