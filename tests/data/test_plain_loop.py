"""Shard sets in loops of people's own, through ``vdm.data.webdataset``."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import webdataset as wds

import vdm.data
from tests.data.shard_sets import SHAPE, color_of, encode_clip, key_of, list_samples
from vdm.data.index import ShardIndex, write_index
from vdm.data.quarantine import BadSampleError
from vdm.data.shards import file_checksum, shard_of
from vdm.data.sidecars import write_samples


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_samples_are_decoded_clips_with_their_captions(shard_set: Path) -> None:
    dataset = vdm.data.webdataset(str(shard_set))
    assert isinstance(dataset, wds.WebDataset)
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == [key_of("train", number) for number in range(23)]
    for number, sample in enumerate(samples):
        assert sample["mp4"].shape == (3, *SHAPE)
        assert sample["mp4"].dtype == torch.uint8
        assert abs(float(sample["mp4"][0, 0].float().mean()) - color_of(number, 0)[0]) <= 2
        assert sample["captions"] == (f"clip {number}",)
        assert sample["json"]["fps"] == 8.0
        assert Path(sample["__url__"]).is_file()


def test_methods_and_loader_of_webdataset_work(shard_set: Path) -> None:
    dataset = vdm.data.webdataset(str(shard_set), shardshuffle=10).shuffle(10).to_tuple("__key__", "mp4").batched(4)
    for num_workers in (0, 2):
        batches = list(wds.WebLoader(dataset, batch_size=None, num_workers=num_workers))
        keys = [key for keys, _ in batches for key in keys]
        assert sorted(keys) == [key_of("train", number) for number in range(23)]
        assert batches[0][1].shape == (4, 3, *SHAPE)


def test_a_list_of_shards_yields_these_alone(shard_set: Path) -> None:
    dataset = vdm.data.webdataset(f"{shard_set}/train-{{000000..000001}}.tar")
    assert [sample["__key__"] for sample in dataset] == [key_of("train", number) for number in range(6)]


def test_a_damaged_sample_is_raised_or_left_out(make_shard_set: Callable[..., Path]) -> None:
    folder = make_shard_set(train=(3,), validation=(1,))
    tar = folder / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    place = content.index(b"mdat") + 50  # in the first video
    content[place] ^= 1
    tar.write_bytes(content)
    with pytest.raises(BadSampleError, match=r"clip-0000.mp4 at byte .*: its checksum is not the one in the index"):
        list(vdm.data.webdataset(str(folder)))
    rest = vdm.data.webdataset(str(folder), handler=wds.ignore_and_continue)
    assert [sample["__key__"] for sample in rest] == [key_of("train", number) for number in (1, 2)]


def test_nothing_in_a_hostile_tar_is_executed(tmp_path: Path) -> None:
    """WebDataset's own decoder unpickles ``.pyd`` and ``.pth``."""
    payload, clip = pickle.dumps(Payload(tmp_path / "hacked")), encode_clip(1)
    folder = tmp_path / "set"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for extension in ("mp4", "json", "pyd", "pickle", "pth", "npy", "cbor"):
            data = {"mp4": clip, "json": b"{}"}.get(extension, payload)
            info = tarfile.TarInfo(f"clip.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    entries = list_samples(folder / "a.tar", SHAPE)
    write_samples(folder, "a.tar", entries)
    num_bytes, digest = (folder / "a.tar").stat().st_size, file_checksum(folder / "a.tar")
    write_index(folder, ShardIndex.of({"train": [shard_of("a.tar", num_bytes, digest, entries)]}))
    (sample,) = vdm.data.webdataset(str(folder))
    assert sample.keys() == {"__key__", "__url__", "mp4", "json", "captions"}
    assert not (tmp_path / "hacked").exists()


def test_what_is_not_there_is_named(shard_set: Path, tmp_path: Path) -> None:
    for path, split, message in (
        (str(tmp_path / "none"), "train", "none: no such folder of shards"),
        (str(shard_set), "test", "has no split 'test', but train, validation"),
        (f"{shard_set}/train-000009.tar", "train", "train-000009.tar: the index of the set has no such shard"),
        ("pipe:touch hacked", "train", "pipe: is a command, which is not run"),
        ("nothing://bucket/set", "train", "nothing://bucket/set: "),
    ):
        with pytest.raises(ValueError, match=message):
            vdm.data.webdataset(path, split)
