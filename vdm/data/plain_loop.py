"""A shard set as an ordinary ``webdataset.WebDataset``, for users' own training loops."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from webdataset.compat import WebDataset
from webdataset.filters import shuffle
from webdataset.handlers import reraise_exception
from webdataset.pipeline import DataPipeline
from webdataset.shardlists import SimpleShardList, single_node_only, split_by_worker

from vdm.data.captions import captions_of, parse_metadata
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_picture
from vdm.data.quarantine import BadSampleError
from vdm.data.reading import LATENTS, PICTURES, TEXT, VIDEO, RawSample, Request, ShardReader
from vdm.data.sets import TRAIN, ShardSet
from vdm.data.shard_lists import listed_sets
from vdm.data.shard_table import ShardTable
from vdm.data.storage import NUM_CONNECTIONS, open_folder
from vdm.data.tensors import UnreadableTensorsError, read_tensors
from vdm.files import MALFORMED
from vdm.text import decode_text

_FILES = frozenset({VIDEO, *PICTURES, LATENTS, TEXT, "json", "txt"})


class _ShardSetDataset(WebDataset):
    """WebDataset's pipeline with this project's reading and decoding in place of its own."""

    def __init__(self, *stages: Any) -> None:
        DataPipeline.__init__(self, *stages)  # WebDataset's own constructor would open tars and group their members


class _ReadShards:
    """Pipeline stage: from ``{"url": SHARD}`` to decoded samples.

    Args:
        shards: By URL of the shard: its set, its split's shards, and its number among these.
        handler: Told of a bad sample; returns whether to go on, as WebDataset's handlers do.
    """

    def __init__(
        self, shards: Mapping[str, tuple[ShardSet, ShardTable, int]], handler: Callable[[Exception], bool]
    ) -> None:
        self._shards = shards
        self._handler = handler

    def __call__(self, urls: Iterator[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
        for one in urls:
            url = one["url"]
            try:
                yield from self._samples(url)
            except BadSampleError as error:
                if not self._handler(error):
                    return

    def _samples(self, url: str) -> Iterator[dict[str, Any]]:
        of_set, table, number = self._shards[url]
        reader = ShardReader(open_folder(of_set.path), table, of_set.index.fps)
        entry = table[number]
        kinds = frozenset(entry.kinds)
        try:
            for start in range(0, entry.num_samples, NUM_CONNECTIONS):
                numbers = range(start, min(start + NUM_CONNECTIONS, entry.num_samples))
                for raw in reader.read([Request(number, sample, kinds, _FILES) for sample in numbers]):
                    try:
                        yield decoded(raw, url)
                    except BadSampleError as error:
                        if not self._handler(error):
                            return
        finally:
            reader.close()


def webdataset(
    path: str,
    split: str = TRAIN,
    shardshuffle: int | bool = False,
    handler: Callable[[Exception], bool] = reraise_exception,
    nodesplitter: Callable[[Any], Any] = single_node_only,
) -> WebDataset:
    """Return a split of a shard set as a ``webdataset.WebDataset``: one pass over its samples, shard by shard.

    The dataset has all methods of WebDataset (``shuffle``, ``map``, ``batched``, ``with_epoch`` ...) and works in
    ``webdataset.WebLoader``. Its samples are dictionaries:

    - ``__key__``, ``__url__``: key of the sample and its shard
    - ``mp4``, ``jpg``, ``png`` or ``webp``: uint8 tensor (c t h w), RGB from 0 to 255; pictures have t = 1
    - ``json``: dictionary; ``captions``: tuple of the texts in ``.json`` or ``.txt``, empty without a caption
    - ``latents.safetensors``, ``text.safetensors``: dictionaries of tensors, where the set has them

    Other members of the tars are not read, and nothing is unpickled. Bytes are checked against the set's index, and may
    lie wherever ``data.path`` may. The dataset lacks other features of training: its order and exact resuming, buckets
    of shapes, cropping, mixing by weight, and the quarantine.

    Args:
        path: Folder or URL of a set, or a list of sets or shards; see ``vdm.data.shard_lists``.
        split: ``"train"`` or ``"validation"``.
        shardshuffle: Number of shards among which the order is random, as for ``WebDataset``; False keeps the order.
        handler: What to do about a bad sample, such as ``webdataset.warn_and_continue``; by default it is raised.
        nodesplitter: Divides shards among processes, such as ``webdataset.split_by_node``.

    Raises:
        ValueError: In one line, if the set or the split does not exist, or the shards differ from the index.
        BadSampleError: While iterating, if ``handler`` raises it.
        StorageFailedError: While iterating, if the storage fails for ten minutes.
    """
    shards: dict[str, tuple[ShardSet, ShardTable, int]] = {}
    for one in listed_sets(str(path)):
        of_set = ShardSet.open(one.path, 1, shards=one.shards)
        if split not in of_set.index.splits:
            raise ValueError(f"{one.path}: has no split '{split}', but {', '.join(of_set.index.splits)}")
        folder, table = open_folder(one.path), of_set.shards(split)
        shards |= {folder.path_of(name): (of_set, table, number) for number, name in enumerate(table.names)}
    if not shards:
        raise ValueError(f"{path}: has no shards in the split '{split}'")
    stages = [SimpleShardList(list(shards)), nodesplitter, split_by_worker]
    if shardshuffle:
        stages.append(shuffle(100 if shardshuffle is True else shardshuffle))
    return _ShardSetDataset(*stages, _ReadShards(shards, handler))


def decoded(raw: RawSample | BadSampleError, url: str) -> dict[str, Any]:
    """Return what ``webdataset`` yields for a sample.

    Raises:
        BadSampleError: If it is bad, or does not decode.
    """
    if isinstance(raw, BadSampleError):
        raise raw
    sample: dict[str, Any] = {"__key__": raw.key, "__url__": url}
    try:
        for extension, data in raw.members.items():
            sample[extension] = _decoded_member(extension, data, raw)
        sample["captions"] = captions_of(sample.get("json", {}), raw.members.get("txt", b""))
    except (UndecodableClipError, UnreadableTensorsError, *MALFORMED) as error:
        raise raw.bad(error) from error
    return sample


def _decoded_member(extension: str, data: memoryview, raw: RawSample) -> Any:
    if extension == VIDEO:
        return decode_clip(data, raw.stored.shape)
    if extension in PICTURES:
        return decode_picture(data, raw.stored.shape)
    if extension in (LATENTS, TEXT):
        return {name: tensor.clone() for name, tensor in read_tensors(data).items()}  # the reader reuses its memory
    return parse_metadata(data) if extension == "json" else decode_text(data)[0]
