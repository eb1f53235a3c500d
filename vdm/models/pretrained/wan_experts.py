"""The two networks of Wan 2.2 A14B in a pipeline's folder: ``transformer`` for high noise levels, ``transformer_2``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.experts import HIGH, LOW, Expert, TwoExperts, weights_of_experts
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors

SUBFOLDERS: dict[Expert, str] = {HIGH: "transformer", LOW: "transformer_2"}
"""Folder of each network in the pipeline's."""


def check_both(boundary: float | None, second: object, index: Path) -> bool:
    """Return whether a pipeline has two networks.

    Args:
        boundary: Its ``boundary_ratio``.
        second: Its ``transformer_2``: library and class, both null for none.
        index: Its ``model_index.json``, for messages.

    Raises:
        ValueError: If there is a second network without a boundary, or a boundary without a second network.
    """
    has_second = isinstance(second, list) and any(second)
    if has_second != (boundary is not None):
        raise ValueError(f"{index}: boundary_ratio={boundary}, but transformer_2={second}: needs both or neither")
    return has_second


def of_both(
    first: Published, weights: StoredTensors, options: Mapping[str, Any], boundary: float, folder: Path
) -> Published:
    """Return both networks as one, and the settings of its run.

    Args:
        first: The network for high noise levels, with its settings.
        weights: Weights of the network for low noise levels.
        options: Arguments that make that network.
        boundary: The pipeline's ``boundary_ratio``.
        folder: The pipeline's folder, for messages.

    Raises:
        ValueError: If the networks differ in their sizes.
    """
    model = first.settings["model"]
    of_first = model["network"]
    for name in sorted(of_first.keys() | options.keys()):
        if of_first.get(name) != options.get(name):
            raise ValueError(
                f"{folder / SUBFOLDERS[LOW] / 'config.json'}: {name} is {options.get(name)}, but the other network's is"
                f" {of_first.get(name)}"
            )
    expert = {"_target_": _target(SpaceTimeTransformer), **of_first}
    network = {"_target_": _target(TwoExperts), "boundary": boundary, HIGH: expert, LOW: expert}
    joined = StoredTensors.joined({HIGH: first.weights, LOW: weights})
    return Published(joined, {**first.settings, "model": {**model, "network": network}}, first.of_import)


def _target(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def by_subfolder(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the weights of each network, under their own names, by the network's subfolder."""
    return {SUBFOLDERS[expert]: own for expert, own in weights_of_experts(weights).items()}
