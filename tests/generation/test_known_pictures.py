"""Pictures as known frames of videos."""

import pytest
import torch

from tests.assembly.test_known_frames import model
from vdm.generation.known_frames import with_pictures
from vdm.generation.tasks import Known


def test_picture_is_the_first_frame() -> None:
    picture = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    known = with_pictures(model(), Known(), 5, picture)
    assert known.indices == (0,)
    assert known.frames is not None


def test_picture_for_a_video_of_one_frame_is_refused_and_not_left_out() -> None:
    with pytest.raises(ValueError, match="image: with num_frames=1 there is no frame to make beside it"):
        with_pictures(model(), Known(), 1, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
