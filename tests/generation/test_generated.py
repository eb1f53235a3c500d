"""What a pipeline returns, saved and shown."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vdm.generation.generated import GeneratedVideos

PROMPTS = ("a dog runs", "<script>alert(1)</script>", "")


@pytest.fixture
def videos() -> GeneratedVideos:
    """Three videos, each of one gray, which is 60, 120 or 180."""
    grays = torch.tensor([60, 120, 180], dtype=torch.uint8)
    return GeneratedVideos(grays.reshape(3, 1, 1, 1, 1).expand(3, 3, 4, 16, 32).contiguous(), 5.0, PROMPTS)


def frames_of(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_one_video_is_one_file(videos: GeneratedVideos, tmp_path: Path) -> None:
    path = tmp_path / "new" / "dog.mp4"
    assert videos[0].save(str(path)) == [path]
    frames, rate = frames_of(path)
    assert (frames.shape, rate) == ((4, 16, 32, 3), 5)
    assert frames.mean() == pytest.approx(60, abs=2)


def test_several_videos_are_numbered_files(videos: GeneratedVideos, tmp_path: Path) -> None:
    paths = videos.save(tmp_path / "dogs.mp4")
    assert [path.name for path in paths] == ["dogs-0000.mp4", "dogs-0001.mp4", "dogs-0002.mp4"]
    assert [frames_of(path)[0].mean() for path in paths] == pytest.approx([60, 120, 180], abs=2)


def test_a_folder_gets_files_called_as_by_the_command(videos: GeneratedVideos, tmp_path: Path) -> None:
    names = [path.name for path in videos.save(tmp_path / "out")]
    assert names == ["0000-a-dog-runs.mp4", "0001-script-alert-1-script.mp4", "0002.mp4"]
    assert videos[0].save(tmp_path) == [tmp_path / "0000-a-dog-runs.mp4"]


def test_the_ending_chooses_a_gif(videos: GeneratedVideos, tmp_path: Path) -> None:
    (path,) = videos[1].save(tmp_path / "cat.gif")
    with Image.open(path) as opened:
        assert (opened.format, opened.size) == ("GIF", (32, 16))


@pytest.mark.parametrize("name", ["dog.avi", "dog.MP4", "dog.1"])
def test_other_endings_are_refused(videos: GeneratedVideos, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"must end in \.mp4 or \.gif, or in nothing for a folder of mp4 files$"):
        videos.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_each_video_is_had_alone(videos: GeneratedVideos) -> None:
    assert [one.prompts for one in videos] == [(prompt,) for prompt in PROMPTS]
    assert [int(one.videos.unique()) for one in videos] == [60, 120, 180]
    assert torch.equal(videos[-1].videos, videos.videos[2:])


def test_videos_as_arrays_and_pictures(videos: GeneratedVideos) -> None:
    assert videos.numpy().shape == (3, 4, 16, 32, 3)
    pictures = videos.to_pil()
    assert [len(frames) for frames in pictures] == [4, 4, 4]
    assert pictures[2][0].getpixel((0, 0)) == (180, 180, 180)


def test_latents_are_no_videos(tmp_path: Path) -> None:
    latents = GeneratedVideos(torch.zeros(2, 4, 3, 8, 8), 5.0, ("a", "b"))
    assert latents.latents.shape == (2, 4, 3, 8, 8)
    for use in (lambda: latents.videos, lambda: latents.save(tmp_path / "a.mp4"), latents.numpy):
        with pytest.raises(ValueError, match=r"^videos: these are latents, as output='latents' asked for"):
            use()
    assert latents._repr_html_() == "&lt;2 latents of 3x8x8, 5 frames a second&gt;"


def test_videos_have_no_latents(videos: GeneratedVideos) -> None:
    with pytest.raises(ValueError, match=r"^latents: these are videos; output='latents' asks for their latents$"):
        videos.latents  # noqa: B018 - a property that raises


def test_a_notebook_plays_them_and_runs_nothing_of_their_captions(videos: GeneratedVideos) -> None:
    page = videos._repr_html_()
    assert page.startswith('<video controls loop autoplay muted src="data:video/mp4;base64,')
    assert "a dog runs" in page
    assert "<script" not in page
