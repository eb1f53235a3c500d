"""What opening published weights gives, whatever the family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdm.models.pretrained.stored import StoredTensors


@dataclass(frozen=True)
class Published:
    """A published network, and what it says about the run that is made of it.

    Args:
        weights: The network's weights, by our names.
        settings: What the run's configuration has to say otherwise than its family's YAML (``conf/pretrained``): sizes
            of the network, places of the parts around it, the schedule it was trained with. Nested as in the YAML.
    """

    weights: StoredTensors
    settings: Mapping[str, Any]
