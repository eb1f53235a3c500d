"""Shots by PySceneDetect, which compares neighbouring frames."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval
from jaxtyping import UInt8

from data_pipelines.shots.base import shots_between
from vdm.extras import needs_extra
from vdm.ranges import Positive


class PySceneDetectShots:
    """Finds cuts with a detector of PySceneDetect.

    Args:
        detector: ``content`` compares the colours of neighbouring frames; ``adaptive`` relates their change to that of
            the frames around, so that a moving camera is no cut; ``histogram`` compares luma only.
        threshold: Minimum change at a cut, in the unit of the detector; None is PySceneDetect's default: 27 for
            ``content``, 3 for ``adaptive``, 0.2 for ``histogram``.
        min_shot_seconds: Shorter shots are joined to the next one.
        height: Rows of the pictures that are compared, which are 16:9 whatever the video is; fewer are faster.

    Raises:
        ValueError: In one line that says what to install, if PySceneDetect is missing.
    """

    def __init__(
        self,
        detector: Literal["content", "adaptive", "histogram"] = "adaptive",
        threshold: Positive | None = None,
        min_shot_seconds: Annotated[float, Interval(ge=0, le=1e8)] = 0.5,
        height: Annotated[int, Interval(ge=16, le=4320)] = 144,
    ) -> None:
        with needs_extra("curation", "shot detection"):
            import scenedetect  # noqa: F401
        self.detector, self.threshold, self.min_shot_seconds = detector, threshold, min_shot_seconds
        self.size = (height, height * 16 // 9)

    def shots(self, pictures: Iterable[UInt8[np.ndarray, "h w c"]], fps: float) -> list[range]:
        """See ``ShotDetector.shots``."""
        from scenedetect import FrameTimecode

        fps = float(fps or 25.0)  # a container may not know its rate; here it only scales min_shot_seconds
        detector = self._detector(fps)
        cuts: list[Any] = []
        num_frames = 0
        for picture in pictures:
            blue_first = np.ascontiguousarray(picture[..., ::-1])
            cuts += detector.process_frame(FrameTimecode(num_frames, fps), blue_first)
            num_frames += 1
        if num_frames:
            cuts += detector.post_process(FrameTimecode(num_frames - 1, fps))
        return shots_between((cut.frame_num for cut in cuts), num_frames)

    def _detector(self, fps: float) -> Any:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector, HistogramDetector

        shortest = max(1, round(self.min_shot_seconds * fps))  # PySceneDetect counts frames
        if self.detector == "adaptive":
            return AdaptiveDetector(adaptive_threshold=self.threshold or 3.0, min_scene_len=shortest)
        if self.detector == "content":
            return ContentDetector(threshold=self.threshold or 27.0, min_scene_len=shortest)
        return HistogramDetector(threshold=self.threshold or 0.2, min_scene_len=shortest)
