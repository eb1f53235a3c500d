"""Lists of sets and shards in WebDataset's syntax."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from webdataset.shardlists import expand_urls

from tests.data.loading import module, take
from tests.data.shard_sets import key_of, write_set
from vdm.data.shard_lists import ListedSet, expand, listed_sets


@pytest.mark.parametrize(
    "text",
    [
        "shards",
        "SETS/{a,b}",
        "A::B",
        "s3://bucket/{x,y}::https://host/z",
        "x/train-{000098..000101}.tar",
        "{3..1}/{0..90..30}",
        "{a,b{c,d}}",
        "{one}",
        "a\\{b,c\\}",
    ],
)
def test_lists_expand_as_in_webdataset(text: str) -> None:
    assert expand(text) == expand_urls(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipe:touch hacked", "pipe: is a command, which is not run"),
        ("A::pipe:touch hacked", "pipe: is a command, which is not run"),
        ("A::", "has an empty part"),
        ("{a,b", "braces do not match"),
        ("a}", "braces do not match"),
        ("{" * 1500 + "a,b" + "}" * 1500, "braces do not match"),
        ("{0..99999999999}", "stands for more than 100000 paths"),
        ("{0..999}{0..999}", "stands for more than 100000 paths"),
        ("{" + "{a,b}" * 100 + ",c}", "stands for more than 100000 paths"),
        ("A::A", "lists A twice"),
        ("A::A/0.tar", "lists A/0.tar twice"),
        ("A/0.tar::A", "lists A twice"),
        ("A/{0,0}.tar", "lists A/0.tar twice"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        listed_sets(text)
    assert "\n" not in str(caught.value)


def test_tars_of_a_folder_are_one_set() -> None:
    assert listed_sets("A/{0,1}.tar::s3://bucket/B::A/2.tar") == [
        ListedSet("A", frozenset({"0.tar", "1.tar", "2.tar"})),
        ListedSet("s3://bucket/B"),
    ]


def test_a_folder_that_exists_is_no_list(tmp_path: Path) -> None:
    folder = tmp_path / "a{b,c}::d"
    folder.mkdir()
    assert listed_sets(str(folder)) == [ListedSet(str(folder))]


def test_sets_of_a_list_are_mixed_as_if_they_were_one(tmp_path: Path) -> None:
    for name, count in (("small", 4), ("large", 20)):
        write_set(tmp_path / name, {"train": (count,), "validation": (1,)})
    data = module(f"{tmp_path}/{{small,large}}")
    data.check()
    assert data.num_train_samples == 24
    clips = [clip for batch in take(data.train_dataloader(), 16) for clip in batch.keys]  # two epochs of 24
    seen = Counter(clips)
    assert {seen[key_of("train", number)] for number in range(4)} == {4}  # both sets have keys of these names
    assert {seen[key_of("train", number)] for number in range(4, 20)} == {2}


def test_a_list_has_one_share_beside_other_sets(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 4), ("c", 7)):
        write_set(tmp_path / name, {"train": (count,), "validation": (1,)})
    data = module({f"{tmp_path}/a::{tmp_path}/b": 3, str(tmp_path / "c"): 1})
    assert [float(one.weight) for one in data.sets] == [1, 2, 1]


def test_listed_shards_are_trained_on_alone_and_validation_stays(shard_set: Path) -> None:
    data = module(f"{shard_set}/train-{{000000..000001}}.tar")
    data.check()
    assert data.num_train_samples == 6
    assert data.validation.num_samples == 7
    keys = {key for batch in islice(data.train_dataloader(), 2) for key in batch.keys}
    assert keys == {key_of("train", number) for number in range(6)}


def test_shards_that_are_not_listed_may_be_missing(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", {"train": (2, 2), "validation": (1,)})
    (folder / "train-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"train-000001.tar: this shard of the index is missing"):
        module(folder).check()
    module(f"{folder}/train-000000.tar").check()


def test_a_shard_that_the_index_lacks_is_named(shard_set: Path) -> None:
    with pytest.raises(ValueError, match=r"train-000005.tar: the index of the set has no such shard"):
        module(f"{shard_set}/train-{{000000..000009}}.tar").check()
