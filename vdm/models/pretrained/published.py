"""Published weights and the settings that belong to them, whatever the family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdm.models.pretrained.stored import StoredTensors


@dataclass(frozen=True)
class Published:
    """A published network, and the settings of a run that starts from it.

    Args:
        weights: The network's weights, by the names of this project.
        settings: Settings that override the YAML of the family (``conf/pretrained``): sizes of the network, paths of
            the other components, the schedule of the network's training. Nested as in the YAML.
    """

    weights: StoredTensors
    settings: Mapping[str, Any]
    of_import: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further settings of a run that ``vdm import`` makes. Training that starts from the weights has its own."""
