"""What training and ``vdm-data verify`` make of sets that were indexed."""

import io
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines import index_tar
from data_pipelines.index import index_folder
from data_pipelines.verify import VerifySettings, verify
from tests.data.shard_sets import color_of, encode_clip, write_set
from tests.data_pipelines.tars import index_settings, members, write_tar
from vdm.data.clips import ClipSampling
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index
from vdm.data.shards import Kind


def test_an_indexed_webdataset_trains_as_it_is(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index_folder(index_settings(foreign, validation_fraction=0)) == 0
    assert capsys.readouterr().out.startswith(f"{foreign}: clips: train 7, validation 0\nNext: vdm-data verify ")
    index = read_index(foreign)
    assert index.fps == 8
    assert [dict(shard.kinds) for shard in index.splits["train"]] == [
        {Kind((4, 16, 32), 8.0): 4},
        {Kind((4, 16, 32), 8.0): 1, Kind((7, 32, 32), 8.0): 1, Kind((8, 48, 32), 8.0): 1},
    ]
    data = ClipDataModule(
        foreign,
        global_batch_size=7,
        micro_batch_size=7,
        clips=ClipSampling([(4, 16, 16)], start="first"),
        num_workers=0,
        max_validation_clips=0,
    )
    data.check()
    (batch,) = islice(data.train_dataloader(), 1)
    assert sorted(batch.captions) == [f"clip {number}" for number in range(7)]
    assert batch.weights.tolist() == [1] * 7
    assert batch.fps.tolist() == [8] * 7
    for key, video in zip(batch.keys, batch.video, strict=True):
        assert abs(float(video[0, 0].float().mean()) - color_of(int(key), 0)[0]) <= 2


def test_one_of_several_captions_is_drawn_by_seed_and_position(tmp_path: Path) -> None:
    texts = [f"caption {number}" for number in range(4)]
    write_tar(tmp_path / "a.tar", [("a.mp4", encode_clip(1)), ("a.json", json.dumps({"caption": texts}).encode())])
    index_folder(index_settings(tmp_path))

    def drawn(seed: int, micro_batch_size: int) -> list[str]:
        data = ClipDataModule(tmp_path, 8, micro_batch_size, seed=seed, num_workers=0, max_validation_clips=0)
        batches = islice(data.train_dataloader(), 64 // micro_batch_size)
        return [caption for batch in batches for caption in batch.captions]

    counts = Counter(drawn(0, 8))
    assert set(counts) == set(texts)
    assert sum((count - 16) ** 2 / 16 for count in counts.values()) < 16.3  # chi-square, 3 degrees: p = 0.001
    assert drawn(0, 8) == drawn(0, 2) != drawn(1, 8)


def test_sets_of_the_same_running_numbers_are_told_apart_by_their_clips(tmp_path: Path) -> None:
    digests = []
    for name, numbers, caption in (("a", (0, 1), b"x"), ("recaptioned", (0, 1), b"y"), ("other", (0, 2), b"x")):
        (tmp_path / name).mkdir()
        samples = ({f"{i:09d}.mp4": encode_clip(n), f"{i:09d}.txt": caption} for i, n in enumerate(numbers))
        write_tar(tmp_path / name / "00000.tar", members(*samples))
        index_folder(index_settings(tmp_path / name))
        digests.append(read_index(tmp_path / name).splits["train"].keys)
    assert digests[0] == digests[1] != digests[2]


def _verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    """Return the exit code of ``vdm-data verify``, what it prints, and the faults that it names."""
    capsys.readouterr()
    code = verify(VerifySettings(folder, num_workers=0))
    out, err = capsys.readouterr()
    lines = err.replace("\r", "\n").splitlines()
    return code, out, [line for line in lines if line and not line.startswith("verifying")]


def test_sound_sets_from_elsewhere_have_no_faults(
    tmp_path: Path, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    long_name = "a/" + "long" * 40
    strange = [
        *(("./0.mp4", encode_clip(0)), ("./0.txt", b"a caption")),
        ("1.PNG", picture.getvalue()),
        *(("2.mp4", encode_clip(2)), ("2.jpg", b"a thumbnail that nobody reads")),
        *((f"{long_name}.mp4", encode_clip(3)), ("caf\u00e9.mp4", encode_clip(4))),
    ]
    write_tar(foreign / "strange.tar", strange)
    write_tar(foreign / "same_keys.tar", strange[:2])
    index_folder(index_settings(foreign))

    code, out, faults = _verified(foreign, capsys)

    assert (code, faults) == (0, [])
    assert out.startswith(f"{foreign}: clips: 13, shards: 4, faults: 0\nNext: vdm-data show ")


def test_faults_of_a_set_from_elsewhere_are_what_training_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tar, "_captions", lambda *_: ())  # an earlier version looked into none
    names = [("0.mp4", encode_clip(0)), ("0.json", b"[1]"), ("1.mp4", encode_clip(1)), ("2.mp4", encode_clip(2))]
    write_tar(tmp_path / "a.tar", [*names, ("2.txt", b"\x81")])
    index_folder(index_settings(tmp_path))

    code, out, faults = _verified(tmp_path, capsys)

    assert code == 1
    assert [fault.partition(" (")[0] for fault in faults] == [
        "a.tar: 0: its metadata is malformed",
        "a.tar: 2: its metadata is malformed",
    ]
    assert out.endswith("faults: 2; the samples named are left out in training\n")


def test_what_others_put_into_their_metadata_is_no_fault(tmp_path: Path) -> None:
    """Labels of classes that the set does not name, and scores of another kind."""
    ours = write_set(tmp_path / "ours", {"train": (4,), "validation": (1,)})
    odd = ({"label": 1}, {"label": 500}, {"label": 10**30}, {"label": "a"}, {"scores": 0.7}, {"scores": [1]})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    samples = [(f"{i}.mp4", encode_clip(i)) for i in range(len(odd))]
    write_tar(theirs / "a.tar", samples + [(f"{i}.json", json.dumps(one).encode()) for i, one in enumerate(odd)])
    index_folder(index_settings(theirs))
    mixture = {str(ours): 4.0, str(theirs): 6.0}
    data = ClipDataModule(mixture, global_batch_size=10, micro_batch_size=10, num_workers=0, max_validation_clips=0)
    data.check()
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.weights.tolist() == [1] * 10
    labels = dict(zip(batch.keys, batch.labels.tolist(), strict=True))
    assert [label for key, label in labels.items() if key.isdigit()] == [-1] * 6
    assert sorted(label for key, label in labels.items() if not key.isdigit()) == [-1, 0, 1, 2]


@pytest.mark.parametrize("odd", [f'{{"fps": 1{"0" * 400}}}', '{"fps": -1}', '{"fps": NaN}', "[" * 10**5])
def test_metadata_that_can_not_be_read_is_a_bad_sample(
    tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tar, "_captions", lambda *_: ())  # an earlier version looked into none
    picture = io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    write_tar(
        tmp_path / "a.tar", [("0.png", picture.getvalue()), ("0.json", odd.encode()), ("1.png", picture.getvalue())]
    )
    index_folder(index_settings(tmp_path))
    data = ClipDataModule(
        tmp_path, global_batch_size=2, micro_batch_size=2, num_workers=0, max_validation_clips=0, max_bad_fraction=1.0
    )
    (batch,) = islice(data.train_dataloader(), 1)
    assert dict(zip(batch.keys, batch.weights.tolist(), strict=True)) == {"": 0, "1": 1}
