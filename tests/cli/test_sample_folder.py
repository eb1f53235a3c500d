"""Where ``vdm sample`` writes: it never writes over earlier results unless told."""

import threading
from pathlib import Path
from typing import Any

from tests.cli.calling import frames_of, names_in
from tests.cli.conftest import SHORT, RunVdm, Sample
from tests.data_pipelines.videos import gray_frames, write_h264
from vdm.cli.sample_folder import begin_call, new_folder


def test_each_call_has_a_folder_of_its_own(sample: Sample, trained: Path, tmp_path: Path) -> None:
    for number in range(2):
        sample("prompts=[a dog]")
        assert names_in(trained / "samples" / f"{number:04d}") >= {"0000-a-dog.mp4", "settings.json", "grid.png"}
    before = names_in(trained / "samples")
    sample(f"settings={trained}/samples/0000/settings.json", "device=cpu", checkpoint=None)
    assert names_in(trained / "samples") == before  # which settings may have named
    assert (tmp_path / "samples" / "0000" / "0000-a-dog.mp4").exists()


def test_files_get_the_next_free_numbers(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample("prompts=[a dog,a cat]", "output=out")
    before = {path: path.read_bytes() for path in out.iterdir()}
    sample("prompts=[a cow]", "output=out")
    assert before.items() <= {path: path.read_bytes() for path in out.iterdir()}.items()
    later = {"0002-a-cow.mp4", "settings-0002.json", "grid-0002.mp4", "grid-0002.gif", "grid-0002.png"}
    assert names_in(out) - {path.name for path in before} == later
    sample("settings=out/settings-0002.json", "output=out", "device=cpu", checkpoint=None)
    assert (frames_of(out / "0003-a-cow.mp4") == frames_of(out / "0002-a-cow.mp4")).all()


def test_overwriting_removes_what_earlier_calls_made_and_nothing_else(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample("prompts=[a dog,a cat]", "output=out")
    sample("prompts=[a cow]", "output=out")
    own = {"2024-holiday.mp4", "0001.mp4", "notes.txt", "grid-0099.png", "settings-0098.json", "0005-link.mp4"}
    write_h264(out / "2024-holiday.mp4", gray_frames(2))
    for name in ("0001.mp4", "notes.txt", "grid-0099.png"):
        (out / name).write_text("mine")
    (out / "settings-0098.json").write_text('{"videos": ["notes.txt"]}')
    (out / "0005-link.mp4").symlink_to(out / "0000-a-dog.mp4")
    sample("prompts=[a pig]", "output=out", "overwrite=true")

    call = "2025"  # after all numbers that are taken
    made = {f"{call}-a-pig.mp4", f"settings-{call}.json", *(f"grid-{call}.{end}" for end in ("mp4", "gif", "png"))}
    assert names_in(out) == own | made
    assert (out / "0001.mp4").read_text() == "mine"

    for name in own:
        (out / name).unlink()
    sample("prompts=[a pig]", "output=out", "overwrite=true")
    assert names_in(out) == {"0000-a-pig.mp4", "settings.json", "grid.mp4", "grid.gif", "grid.png"}
    sample("settings=out/settings.json", "output=out", "overwrite=true", "device=cpu", checkpoint=None)
    assert names_in(out) == {"0000-a-pig.mp4", "settings.json", "grid.mp4", "grid.gif", "grid.png"}


def test_overwriting_spares_what_the_call_is_made_of(
    sample: Sample, run_vdm: RunVdm, trained: Path, tmp_path: Path
) -> None:
    sample("prompts=[a dog]", "output=out")
    before = names_in(tmp_path / "out")
    extend = ["task=extend", "input=out/0000-a-dog.mp4", "output=out", "overwrite=true", "method=replacement"]
    code, said = run_vdm("sample", f"checkpoint={trained}", *SHORT, *extend)
    assert code == 2
    assert said.splitlines()[-1].startswith("overwrite=true: would remove input=")
    assert names_in(tmp_path / "out") == before


def test_calls_at_the_same_time_never_share_a_number(tmp_path: Path) -> None:
    calls: list[Any] = []
    folders: list[Path] = []

    def call(number: int) -> None:
        for _ in range(10):
            calls.append(begin_call(tmp_path, [f"call {number}"] * (1 + number % 3), {"options": {}}))
            folders.append(new_folder(tmp_path / "folders"))

    (tmp_path / "folders").mkdir()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [int(path.name[:4]) for files in calls for path in files.videos]
    assert sorted(numbers) == list(range(120))
    assert len({files.settings for files in calls}) == len(set(folders)) == 60


def test_overwriting_needs_to_be_told_where(run_vdm: RunVdm, trained: Path) -> None:
    code, said = run_vdm("sample", f"checkpoint={trained}", "overwrite=true")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("overwrite=true: needs output=FOLDER")
