"""V-JEPA 2 from transformers, for distances in the style of JEDi."""

from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.extractors.transformers_models import files_of_network, load_transformer, read_pixel_rule
from vdm.ranges import Location, Size


class VJEPA2(NetworkExtractor):
    """Features of V-JEPA 2 (Assran et al. 2025), one row a clip.

    JEDi (Luo et al. 2025, "Beyond FVD") takes V-JEPA's features through an attentive pooler that was tuned on
    Something-Something v2, or averaged over tokens. It uses the first V-JEPA, which transformers does not have: figures
    are JEDi-style, and can't be compared with published ones.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        pooled: ``mean``: over tokens; ``attentive``: by the pooler of a folder that holds a classifier.
        batch_size: Clips in a batch.
    """

    def __init__(
        self, name_or_path: Location, pooled: Literal["mean", "attentive"] = "mean", batch_size: Size = 8
    ) -> None:
        model = load_transformer(name_or_path, ("VJEPA2ForVideoClassification", "VJEPA2Model"), "V-JEPA 2")
        self.rule = read_pixel_rule(name_or_path)
        self.encoder = getattr(model, "vjepa2", model)
        self.pooler = getattr(model, "pooler", None)
        if pooled == "attentive" and self.pooler is None:
            raise ValueError(f"pooled=attentive: {name_or_path} holds no classifier, and so no pooler")
        self.pooled = pooled
        self.tubelet: int = model.config.tubelet_size
        super().__init__(model, weights_checksum(model.state_dict()), batch_size, files_of_network(name_or_path))

    def prepare(self, video: Video) -> Float[Tensor, "b 3 t h2 w2"]:
        """Return pixels as the folder says that the network takes them."""
        allowed = video.shape[2] % self.tubelet == 0
        check_frames(video, allowed, f"this V-JEPA 2 takes multiples of {self.tubelet}")
        return self.rule.apply(video)

    def features(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 d"]:
        """Return the features of clips of any number of frames."""
        frames_first = rearrange(pixels, "b c t h w -> b t c h w")
        tokens = self.encoder(pixel_values_videos=frames_first, skip_predictor=True).last_hidden_state
        if self.pooled == "mean":
            return tokens.mean(1, keepdim=True)
        assert self.pooler is not None
        return rearrange(self.pooler(tokens), "b d -> b 1 d")
