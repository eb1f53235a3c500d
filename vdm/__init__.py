"""Video diffusion models: trained with ``vdm train``, sampled from with ``vdm sample`` or from Python.

::

    import torch
    import vdm

    model = vdm.load_model("runs/NAME/TIME")
    video = model(torch.randn(1, 3, 16, 64, 64), ["a dog runs"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdm.assembly import VideoDiffusionModel, load_model

__all__ = ["VideoDiffusionModel", "load_model"]


def __getattr__(name: str) -> Any:
    """Import the model when it is first asked for: ``vdm --help`` does without torch."""
    if name in __all__:
        from vdm import assembly

        return getattr(assembly, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
