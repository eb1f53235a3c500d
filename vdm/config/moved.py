"""Former names of classes and keys in recorded configurations, with their present names.

A commit that renames or moves a class or key that a recorded configuration may contain adds a line to a table below, so
that older runs, exports and checkpoints can still be read. The tables are applied by ``load_config``
(``vdm/checkpoints/run_record.py``), by which every recorded configuration is read. In a user's YAML, a former class
is refused in one line that names the present one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MOVED_TARGETS: Mapping[str, str | None] = {
    "vdm.diffusion.frame_levels.CleanPrefix": "vdm.diffusion.frame_levels.KnownFramesClean",
    "vdm.diffusion.loss_weights.Sigmoid": "vdm.diffusion.loss_weights.SigmoidWeight",
    "vdm.models.autoencoders.FrameAutoencoder": "vdm.models.diffusers_autoencoders.FrameAutoencoder",
    "vdm.models.autoencoders.WanAutoencoder": "vdm.models.diffusers_autoencoders.WanAutoencoder",
    "vdm.models.conditioner.Conditioner": "vdm.models.embedding_conditioner.EmbeddingConditioner",
    "vdm.models.encoders.PixelEncoder": "vdm.models.autoencoder.PixelAutoencoder",
    "vdm.models.svd.conditioner.Motion": "vdm.models.svd.conditioner.MicroConditioning",
    "vdm.objectives.condition_dropout.ConditionDropout": None,
    "vdm.training.blocks.BlockOptions": "vdm.training.block_options.BlockOptions",
    "vdm.training.callbacks.averages.SaveAverages": "vdm.training.callbacks.ema_snapshots.SaveEMASnapshots",
    "vdm.training.loggers.csv": "vdm.training.loggers.csv_logger.csv",
    "vdm.training.loggers.tensorboard": "vdm.training.loggers.tensorboard_logger.TensorBoardLogger",
    "vdm.training.loggers.wandb": "vdm.training.loggers.wandb_logger.WandbLogger",
    "vdm.training.module.ConditionDropout": None,
}
"""Present ``_target_`` by the former one; None if the keys now stand in a mapping without ``_target_``."""

MOVED_KEYS: Mapping[str, str] = {}
"""Present dotted key by the former one; meaning and values are the same."""


NESTED_KEYS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "vdm.diffusion.frame_levels.CleanPrefix": (
        "frames",
        "vdm.known_frames.FirstFrames",
        ("min_frames", "max_frames"),
    ),
}
"""Keys that now belong to a component in the former one. By the former ``_target_``: the key of that component, its
``_target_``, and the keys."""


def modernized(
    config: Mapping[str, Any],
    targets: Mapping[str, str | None] = MOVED_TARGETS,
    keys: Mapping[str, str] = MOVED_KEYS,
) -> dict[str, Any]:
    """Return a recorded configuration with present names; names that are in no table stay as they are.

    Args:
        config: Plain values.
        targets: See ``MOVED_TARGETS``.
        keys: See ``MOVED_KEYS``; applied after ``targets``, in order. A value that already stands at the present key
            wins.
    """
    result = _with_targets(config, targets)
    for former, present in keys.items():
        _move(result, former.split("."), present.split("."))
    return result


def _with_targets(node: Any, targets: Mapping[str, str | None]) -> Any:
    if isinstance(node, list):
        return [_with_targets(item, targets) for item in node]
    if not isinstance(node, Mapping):
        return node
    result = {key: _with_targets(value, targets) for key, value in node.items()}
    target = result.get("_target_")
    if isinstance(target, str) and target in targets:
        if target in NESTED_KEYS:
            part, of_part, names = NESTED_KEYS[target]
            result[part] = {"_target_": of_part} | {name: result.pop(name) for name in names if name in result}
        present = targets[target]
        if present is None:
            del result["_target_"]
        else:
            result["_target_"] = present
    return result


def _move(config: dict[str, Any], former: Sequence[str], present: Sequence[str]) -> None:
    source, name = _parent(config, former), former[-1]
    if source is None or name not in source:
        return
    value = source.pop(name)
    for part in present[:-1]:
        config.setdefault(part, {})
        if not isinstance(config[part], dict):
            return
        config = config[part]
    config.setdefault(present[-1], value)


def _parent(config: dict[str, Any], path: Sequence[str]) -> dict[str, Any] | None:
    """Return the mapping in which a key stands, or None if one of the keys above it is missing."""
    node: Any = config
    for name in path[:-1]:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None
