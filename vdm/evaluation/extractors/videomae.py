"""VideoMAE from transformers."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.extractors.transformers_models import files_of_network, load_transformer, read_pixel_rule
from vdm.ranges import Location, Size


class VideoMAE(NetworkExtractor):
    """Features of a VideoMAE (Tong et al. 2022) that transformers can load.

    The mean over tokens of the encoder's output, after the final normalization of a classifier, if the folder holds
    one. Distances of them are named Fréchet-VideoMAE: the content-debiased FVD needs the weights of ``VideoMAEv2``.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        batch_size: Clips in a batch.
    """

    def __init__(self, name_or_path: Location, batch_size: Size = 8) -> None:
        model = load_transformer(name_or_path, ("VideoMAEForVideoClassification", "VideoMAEModel"), "VideoMAE")
        self.rule = read_pixel_rule(name_or_path)
        self.encoder = getattr(model, "videomae", model)
        self.normalize = getattr(model, "fc_norm", None)
        self.num_frames: int = model.config.num_frames
        super().__init__(model, weights_checksum(model.state_dict()), batch_size, files_of_network(name_or_path))

    def prepare(self, video: Video) -> Float[Tensor, "b 3 t h2 w2"]:
        """Return pixels as the folder says that the network takes them."""
        check_frames(video, video.shape[2] == self.num_frames, f"this VideoMAE takes {self.num_frames}")
        return self.rule.apply(video)

    def features(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 d"]:
        """Return the features of clips in the number of frames of the network."""
        tokens = self.encoder(pixel_values=rearrange(pixels, "b c t h w -> b t c h w")).last_hidden_state
        pooled = tokens.mean(1, keepdim=True)
        return pooled if self.normalize is None else self.normalize(pooled)
