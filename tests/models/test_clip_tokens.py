"""Image tokens of CLIP, as Wan's image-to-video pipeline computes them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.models.dit.pipelines import image_pipeline
from vdm.models.clip_tokens import ClipTokenEncoder

SIZES = [{"shortest_edge": 16}, {"shortest_edge": 20}, {"height": 16, "width": 18}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pipeline")
    pipeline = image_pipeline("I2V")
    pipeline.image_encoder.save_pretrained(made / "image_encoder")
    pipeline.image_processor.save_pretrained(made / "image_processor")
    return made


def change(folder: Path, **values: object) -> None:
    file = folder / "image_processor" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", [(16, 32), (33, 47), (47, 33)], ids=str)
def test_tokens_of_pictures_of_any_size_equal_the_pipelines(
    folder: Path, size: dict[str, int], shape: tuple[int, int]
) -> None:
    pipeline = image_pipeline("I2V")
    pipeline.image_processor.size = size
    change(folder, size=size)
    frames = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).byte()
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]

    encoder = ClipTokenEncoder(str(folder))
    tokens = encoder(frames)
    assert tokens.shape == (2, encoder.num_tokens, encoder.channels)
    torch.testing.assert_close(tokens, pipeline.encode_image(pictures, "cpu"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": {"shortest_edge": 8}}, r"crop_size=16x16: must not be larger than size"),
        ({"size": {"longest_edge": 8}}, r"preprocessor_config\.json: size"),
        ({"do_center_crop": False}, r"do_center_crop=False"),
        ({"resample": 2}, r"resample=2"),
        (
            {"crop_size": {"height": 8, "width": 8}, "size": {"shortest_edge": 16}},
            r"crop_size=8x8, but pictures of image_encoder are 16x16$",
        ),
    ],
    ids=str,
)
def test_other_preprocessing_is_refused(folder: Path, values: dict[str, object], message: str) -> None:
    change(folder, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_center_crop=True, resample=3)
    change(folder, **values)
    with pytest.raises(ValueError, match=message) as refused:
        ClipTokenEncoder(str(folder))
    assert "\n" not in str(refused.value)


def test_the_weights_are_no_part_of_checkpoints(folder: Path) -> None:
    change(folder, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_center_crop=True, resample=3)
    encoder = ClipTokenEncoder(str(folder))
    assert not encoder.state_dict()
    assert not any(weight.requires_grad for weight in encoder.parameters())
