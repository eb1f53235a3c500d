import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from data_pipelines.encode.shard_writer import ShardWriter
from tests.data.loading import module, take
from tests.data.shard_sets import SHAPE, encode_clip
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.shards import EMPTY_TEXT_NAME, StoredText, checksum
from vdm.data.sidecars import read_samples
from vdm.data.text_embeddings import TextEmbedding, UnusableTextError, read_text, write_text

CHANNELS = 4


def embedding_of(number: int) -> TextEmbedding:
    """A caption of ``number + 1`` tokens."""
    return TextEmbedding(torch.full((number + 1, CHANNELS), float(number)), torch.full((CHANNELS,), float(-number)))


@pytest.fixture
def with_text(tmp_path: Path) -> Path:
    """A set of six clips with text embeddings; one lacks its own."""
    folder = tmp_path / "set"
    folder.mkdir()
    with ShardWriter(folder / "train-000000.tar") as writer:
        for number in range(6):
            members = {"mp4": encode_clip(number), "json": json.dumps({"caption": f"clip {number}"}).encode()}
            if number < 5:
                members["text.safetensors"] = write_text(embedding_of(number))
            writer.add(str(number), SHAPE, members)
    assert writer.entry is not None
    empty = write_text(embedding_of(7))
    (folder / EMPTY_TEXT_NAME).write_bytes(empty)
    text = StoredText({"weights": "ab"}, CHANNELS, checksum(empty))
    write_index(folder, ShardIndex.of({"train": (writer.entry,)}, fps=8.0, text=text))
    return folder


def test_text_embeddings_are_read_beside_pixels_and_bad_ones_keep_their_position(with_text: Path) -> None:
    shard = read_index(with_text).splits["train"][0]
    member = read_samples(with_text, shard)[2].members["text.safetensors"]
    with (with_text / shard.name).open("r+b") as file:
        file.seek(member.offset + member.length - 1)
        file.write(b"X")
    seen: dict[str, float] = {}
    for batch in take(module(with_text, stored_text=True, max_validation_clips=0).train_dataloader(), 2):
        assert batch.text is not None
        assert batch.empty_text is not None
        assert torch.equal(batch.empty_text.tokens[0], embedding_of(7).tokens)
        for row, key in enumerate(batch.keys):
            seen[key] = float(batch.weights[row])
            expected = embedding_of(int(key) if key else 7)
            assert torch.equal(batch.text.tokens[row][batch.text.mask[row]], expected.tokens)
            assert torch.equal(batch.text.pooled[row], expected.pooled)
    assert seen == {"0": 1, "1": 1, "3": 1, "4": 1, "": 0}


def test_a_set_without_text_embeddings_or_with_others_is_refused(with_text: Path, shard_set: Path) -> None:
    with pytest.raises(ValueError, match=r"the set has no text embeddings; stored_text=false encodes its captions$"):
        module(shard_set, stored_text=True).check()
    other = with_text.with_name("other")
    with_text.rename(other)
    index = read_index(other)
    with_text.mkdir()
    for file in other.iterdir():
        (with_text / file.name).write_bytes(file.read_bytes())
    write_index(other, ShardIndex(index.splits, text=StoredText({"weights": "cd"}, CHANNELS, "ef")))
    with pytest.raises(ValueError, match=r"other: its text embeddings are of another encoder than those of .*set$"):
        module({str(with_text): 1, str(other): 1}, stored_text=True, max_validation_clips=0).check()


def test_what_was_written_is_read() -> None:
    embedding = TextEmbedding(torch.randn(3, 4).half(), torch.randn(4).half())
    read = read_text(write_text(embedding), channels=4)
    assert torch.equal(read.tokens, embedding.tokens.float())
    assert torch.equal(read.pooled, embedding.pooled.float())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "can't be read"),
        (save({"tokens": torch.zeros(3, 4)}), "lacks the tensor 'tokens' or 'pooled'"),
        (save({"tokens": torch.zeros(3, 4), "pooled": torch.zeros(5)}), r"shapes \(3, 4\) and \(5,\) .* width of 4$"),
        (save({"tokens": torch.zeros(0, 4), "pooled": torch.zeros(4)}), r"shapes \(0, 4\)"),
    ],
)
def test_what_is_no_text_embedding_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UnusableTextError, match=f"^its text embedding .*{message}"):
        read_text(data, channels=4)
