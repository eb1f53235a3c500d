"""Video diffusion models: trained with ``vdm train``, sampled from with ``vdm sample`` or from Python.

::

    import vdm

    pipe = vdm.load_model("runs/NAME/TIME")
    pipe("a dog runs", num_steps=20, guidance_scale=3, seed=0).save("dog.mp4")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdm.assembly.model import VideoDiffusionModel
    from vdm.generation.generated import GeneratedVideos
    from vdm.generation.pipeline import VideoPipeline, load_model

__all__ = ["GeneratedVideos", "VideoDiffusionModel", "VideoPipeline", "load_model"]


def __getattr__(name: str) -> Any:
    """Import a name on first access only, since that imports PyTorch, which ``vdm --help`` does not need."""
    if name in __all__:
        from vdm.assembly.model import VideoDiffusionModel
        from vdm.generation.generated import GeneratedVideos
        from vdm.generation.pipeline import VideoPipeline, load_model

        found = (GeneratedVideos, VideoDiffusionModel, VideoPipeline, load_model)
        return next(one for one in found if one.__name__ == name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
