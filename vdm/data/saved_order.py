"""Whether positions mean the same samples as when a checkpoint was saved."""

from collections.abc import Mapping, Sequence
from typing import Any

from vdm.data.sets import TRAIN, ShardSet


def keys_of(sets: Sequence[ShardSet]) -> list[str]:
    """Return a digest of each set's training samples in order, to be saved."""
    return [one.shards(TRAIN).keys for one in sets]


def check_same_order(saved: Mapping[str, Any], settings: Mapping[str, Any], sets: Sequence[ShardSet]) -> None:
    """Refuse a checkpoint whose positions meant other samples.

    Args:
        saved: State of the checkpoint, with ``order``, the settings, and ``keys``, see ``keys_of``.
        settings: Present settings on which the order depends, by name of the key.
        sets: Present sets.

    Raises:
        ValueError: In one line that names the setting or the set.
    """
    if "keys" not in saved:
        raise ValueError(
            "the checkpoint was made by an earlier version, which had another order of samples; "
            "init_from=CHECKPOINT starts anew from its weights"
        )
    for name, value in settings.items():
        before = saved["order"].get(name)
        if value != before:
            raise ValueError(
                f"data.{name}={value}: the checkpoint was trained with {before}, and its order goes by that"
            )
    for one, keys in zip(sets, saved["keys"], strict=True):
        if one.shards(TRAIN).keys != keys:
            raise ValueError(
                f"{one.path}: has other samples, or others in order, than the set that the checkpoint was trained "
                "with, and its order goes by them"
            )
