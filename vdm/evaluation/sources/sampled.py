"""Videos that a model samples with the conditions of held-out clips, as a source."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.clip_rule import ClipRule, TooShortError
from vdm.evaluation.sources.base import Block, UnusableClip, Views, view
from vdm.evaluation.sources.shard_clips import ShardClips
from vdm.generation.generate import generate
from vdm.generation.known_frames import known_as_in_training
from vdm.objectives.batch_randomness import HeldOutRandomness
from vdm.objectives.latents import latents_of, pixels_of
from vdm.types import ClipSize

OnStep = Callable[[int, int | None], object]


class SampledVideos:
    """Video number i is sampled with the captions, class and first frame of held-out clip number i.

    After the last held-out clip they begin again. Videos are made block by block, all blocks of one size, so that a
    video is the same whatever the number of processes.

    Args:
        name: What users call the model: the checkpoint.
        model: The model; samples with its own sampler and guidance.
        held_out: Held-out clips of one shape.
        size: Size of the videos.
        fps: Frames per second of the model's videos; None if unknown.
        num_videos: How many.
        seed: Seed of the noise.
        batch_size: Videos made at once.
        on_step: Called after each step of the sampler, with the number of steps done in a block and of all of its
            steps; None for that if it is not known in advance.
    """

    identity = None

    def __init__(
        self,
        name: str,
        model: VideoDiffusionModel,
        held_out: ShardClips,
        size: ClipSize,
        fps: float | None,
        num_videos: int,
        seed: int = 0,
        batch_size: int = 8,
        on_step: OnStep | None = None,
    ) -> None:
        self.name = name
        self.block_size = batch_size
        self._model, self._held_out, self._size, self._fps = model, held_out, size, fps
        self._num_videos, self._seed = num_videos, seed
        self._on_step = on_step

    def __len__(self) -> int:
        return self._num_videos

    def check(self, name: str, rule: ClipRule) -> None:
        """Refuse a metric that looks at more frames than the videos have, before any is sampled.

        Args:
            name: Name of the metric in the configuration.
            rule: The frames that it looks at.

        Raises:
            ValueError: In one line.
        """
        try:
            rule.frames(self._size.num_frames, self._fps)
        except TooShortError as error:
            raise ValueError(
                f"metric.{name}: a video of the model {error}; metric.{name}.num_frames={self._size.num_frames} "
                "looks at all of its frames"
            ) from None

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        """See ``ClipSource.views``. For an empty block a video is made in vain, as sharded weights need all ranks."""
        for block in blocks:
            for number, clip in zip(block, self._sampled(block.start), strict=False):
                yield number, {rule: _seen(clip, rule) for rule in rules}

    @torch.no_grad()
    def _sampled(self, first: int) -> list[EvaluatedClip | UnusableClip]:
        """Sample a whole block of videos, whether all of them are wanted or not."""
        numbers = [number % len(self._held_out) for number in range(first, first + self.block_size)]
        batch, faults = self._held_out.batch(numbers)
        batch = batch.to(self._model.device)
        prompts = latents_of(self._model, batch, HeldOutRandomness(batch.keys)).prompts
        videos = generate(
            self._model,
            prompts,
            self._size,
            self._seed,
            self.block_size,
            known=known_as_in_training(self._model, lambda: pixels_of(self._model, batch)),
            first=first,
            on_step=self._after_step,
        )
        unreadable = f"its held-out clip can't be read: {'; '.join(fault.reason for fault in faults)}"
        clips: list[EvaluatedClip | UnusableClip] = []
        for row, video in enumerate(videos.cpu()):
            if batch.weights[row] == 0:
                clips.append(UnusableClip(f"video {first + row}", unreadable))
            else:
                label = int(batch.labels[row])
                known = (batch.keys[row], batch.captions[row], None if label < 0 else label)
                clips.append(EvaluatedClip(video, *known, self._fps))
        return clips

    def _after_step(self, step: int, x0: Float[Tensor, "b c t h w"]) -> None:
        if self._on_step is not None:
            self._on_step(step, self._model.sampler.num_steps)


def _seen(clip: EvaluatedClip | UnusableClip, rule: ClipRule) -> EvaluatedClip | UnusableClip:
    if isinstance(clip, UnusableClip):
        return clip
    return view(clip.video, rule, clip.key, clip.fps, clip.caption, clip.label)
