"""Features of the classifier of moving digits."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.moving_digits import DigitClassifier
from vdm.ranges import Size


class DigitFeatures(NetworkExtractor):
    """The digit classifier's features, averaged over frames; distances of them are named Fréchet-digits.

    Args:
        classifier: A trained classifier.
        batch_size: Clips in a batch.
    """

    def __init__(self, classifier: DigitClassifier, batch_size: Size = 8) -> None:
        super().__init__(classifier, weights_checksum(classifier.state_dict()), batch_size)
        self.classifier = classifier

    def features(self, video: Video) -> Float[Tensor, "b 1 64"]:
        """Return the features of clips."""
        return rearrange(self.classifier.describe(video), "b d -> b 1 d")
