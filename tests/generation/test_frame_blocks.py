import random

import pytest

from vdm.generation.frame_blocks import Block, BlockSize, plan_blocks


def test_clip_of_the_length_of_training_is_one_block() -> None:
    assert plan_blocks(8, BlockSize(8, 4)) == [Block(0, 8, (), tuple(range(8)))]
    assert plan_blocks(5, BlockSize(8, 4)) == [Block(0, 5, (), tuple(range(5)))]
    assert plan_blocks(1, BlockSize(1, 1)) == [Block(0, 1, (), (0,))]


def test_each_block_of_a_long_video_begins_with_frames_of_the_one_before() -> None:
    assert plan_blocks(16, BlockSize(8, 4)) == [
        Block(0, 8, (), tuple(range(8))),
        Block(4, 12, (4, 5, 6, 7), (8, 9, 10, 11)),
        Block(8, 16, (8, 9, 10, 11), (12, 13, 14, 15)),
    ]


def test_last_block_is_as_long_as_the_others_and_overlaps_more() -> None:
    assert plan_blocks(15, BlockSize(8, 2))[-1] == Block(7, 15, (7, 8, 9, 10, 11, 12, 13), (14,))


def test_extension_sees_the_last_frames_that_are_given() -> None:
    assert plan_blocks(24, BlockSize(8, 2), range(20)) == [Block(16, 24, (16, 17, 18, 19), (20, 21, 22, 23))]


def test_a_few_given_frames_are_seen_by_the_first_block() -> None:
    assert plan_blocks(8, BlockSize(8, 4), range(3)) == [Block(0, 8, (0, 1, 2), (3, 4, 5, 6, 7))]


def test_block_between_given_frames_ends_where_nothing_is_given_beyond() -> None:
    """With frames 0, 3, 6, 9 given: frame 7 waits for a block that sees frame 9."""
    assert plan_blocks(10, BlockSize(8, 4), range(0, 10, 3)) == [
        Block(0, 8, (0, 3, 6), (1, 2, 4, 5)),
        Block(2, 10, (2, 3, 4, 5, 6, 9), (7, 8)),
    ]


def test_block_reaches_the_next_given_frame_at_the_cost_of_overlap() -> None:
    assert plan_blocks(15, BlockSize(8, 4), range(0, 15, 7)) == [
        Block(0, 8, (0, 7), (1, 2, 3, 4, 5, 6)),
        Block(7, 15, (7, 14), (8, 9, 10, 11, 12, 13)),
    ]


def test_nothing_is_left_to_make_where_everything_is_given() -> None:
    assert plan_blocks(3, BlockSize(8, 4), range(3)) == []


def test_any_plan_makes_each_frame_once_from_what_is_known() -> None:
    choice = random.Random(0)
    for _ in range(500):
        num_frames, block_frames = choice.randint(1, 40), choice.randint(2, 12)
        given = sorted(choice.sample(range(num_frames), choice.choice([0, 1, num_frames // 3, num_frames])))
        known = set(given)
        for number, block in enumerate(
            plan_blocks(num_frames, BlockSize(block_frames, choice.randint(1, block_frames - 1)), given)
        ):
            window = set(range(block.start, block.stop))

            assert len(window) == min(block_frames, num_frames)
            assert window <= set(range(num_frames))
            assert set(block.known) == known & window
            assert block.known or number == 0
            assert block.new
            assert set(block.new) <= window - known
            known |= set(block.new)
        assert known == set(range(num_frames))


@pytest.mark.parametrize(
    ("num_frames", "overlap", "message"),
    [
        (8, 8, "overlap=8: must be at least 1 and below the 8 frames of a block"),
        (8, 0, "overlap=0: must be at least 1 and below the 8 frames of a block"),
        (0, 1, "block_frames=0: must be at least 1"),
    ],
)
def test_blocks_of_an_impossible_size_are_refused(num_frames: int, overlap: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        BlockSize(num_frames, overlap)


def test_blocks_of_one_frame_make_no_video() -> None:
    with pytest.raises(ValueError, match=r"^block_frames=1: must be at least 2 for a video of 3 frames$"):
        plan_blocks(3, BlockSize(1))
