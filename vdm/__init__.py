"""Video diffusion models: trained with ``vdm train``, sampled from with ``vdm sample`` or from Python.

::

    from vdm import VideoDiffusionModel

    model = VideoDiffusionModel.from_checkpoint("runs/NAME/TIME")
    video = model(torch.randn(1, 3, 16, 64, 64), ["a dog runs"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdm.generation.model import VideoDiffusionModel

__all__ = ["VideoDiffusionModel"]


def __getattr__(name: str) -> Any:
    """Import the model when it is first asked for: ``vdm --help`` does without torch."""
    if name == "VideoDiffusionModel":
        from vdm.generation.model import VideoDiffusionModel

        return VideoDiffusionModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
