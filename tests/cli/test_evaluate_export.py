"""Videos for the tools of other benchmarks."""

from pathlib import Path

import av
import pytest

from tests.cli.conftest import RunVdm

OPTIONS = ("device=cpu", "sampler.num_steps=1", "batch_size=4")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("a digit moving up\na digit moving left\n\na digit moving up\n")
    return file


def test_vbench_gets_five_different_videos_of_each_prompt(
    trained: Path, prompts: Path, tmp_path: Path, run_vdm: RunVdm
) -> None:
    folder = tmp_path / "videos"
    command = ("evaluate", f"checkpoint={trained}", *OPTIONS, f"export={folder}", f"prompts_file={prompts}")
    assert run_vdm(*command)[0] == 0
    names = [f"{prompt}-{index}.mp4" for prompt in ("a digit moving left", "a digit moving up") for index in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "made_with.json"]
    contents = {name: (folder / name).read_bytes() for name in names}
    assert len(set(contents.values())) == 10
    with av.open(str(folder / names[0])) as video:
        assert video.metadata["title"] == "a digit moving left"

    # What is missing is made again, the same, and nothing else is written.
    (folder / names[7]).unlink()
    times = {name: (folder / name).stat().st_mtime_ns for name in names[:4]}
    assert run_vdm(*command)[0] == 0
    assert {name: (folder / name).read_bytes() for name in names} == contents
    assert {name: (folder / name).stat().st_mtime_ns for name in names[:4]} == times

    # Another model's videos never come among them.
    code, said = run_vdm(*command, "seed=1")
    assert (code, said) == (2, f"export={folder}: has videos that were made with another seed\n")
    assert {name: (folder / name).read_bytes() for name in names} == contents


def test_evalcrafter_gets_a_numbered_video_of_each_line(
    trained: Path, prompts: Path, tmp_path: Path, run_vdm: RunVdm
) -> None:
    folder = tmp_path / "videos"
    command = ("evaluate", f"checkpoint={trained}", *OPTIONS, f"export={folder}", f"prompts_file={prompts}")
    assert run_vdm(*command, "export_for=evalcrafter")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["0000.mp4", "0001.mp4", "0002.mp4", "made_with.json"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("export=out",), "prompts_file: no value given; export= samples the prompts of the benchmark's file"),
        (("prompts_file=prompts.txt",), "prompts_file=prompts.txt: is for export=FOLDER"),
        (("export=out", "prompts_file=missing.txt"), "prompts_file=missing.txt: no such file"),
        (
            ("export=out", "prompts_file=paths.txt"),
            "prompts_file='cats/dogs': can't be the name of a file, which VBench asks for",
        ),
        (("export=out", "export_for=evals"), "export_for=evals: "),
        (("export=out", "prompts_file=prompts.txt", "metric=[psnr]"), "metric: does nothing with export="),
        (("export=out", "prompts_file=prompts.txt", "max_clips=2"), "max_clips: does nothing with export="),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_vdm: RunVdm,
    given: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a dog\n")
    Path("paths.txt").write_text("cats/dogs\n")
    code, said = run_vdm("evaluate", f"checkpoint={trained}", *OPTIONS, *given)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(message)
    assert not Path("out").exists()
