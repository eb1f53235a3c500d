"""The choice of independent images that are trained on beside clips."""

from dataclasses import dataclass

import torch

from vdm import randomness
from vdm.data.mixing import MixedPlace, ShuffledBuckets


@dataclass(frozen=True)
class RandomImages:
    """How to choose the independent images that are trained on beside a clip.

    They are frames of the samples that come near the clip's in its bucket, whose shards are open at that time anyway.
    """

    seed: int
    num_per_clip: int
    """k, at least 1."""
    order: ShuffledBuckets

    def choose(self, position: int, num_frames: int) -> list[tuple[MixedPlace, int]]:
        """Return the place of each image's clip, and the image's frame in it; the clip's own frames are avoided."""
        bucket, number = self.order.bucket_of(position)
        generator = randomness.generator(self.seed, "image", position)
        reach = max(2, self.order.reach(bucket))
        distances = torch.randint(1, reach, (self.num_per_clip,), generator=generator)
        frames = torch.randint(num_frames, (self.num_per_clip,), generator=generator)
        places = (self.order.locate_in_bucket(bucket, number + int(distance)) for distance in distances)
        return [(place, int(frame)) for place, frame in zip(places, frames, strict=True)]
