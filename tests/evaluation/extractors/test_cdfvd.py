"""Against cd-fvd's own code."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.evaluation.extractors.networks import batch, make_clips
from vdm.evaluation.extractors.preprocess import i3d_cdfvd, videomae_cdfvd
from vdm.evaluation.extractors.videomae_v2 import VideoMAEv2

pytestmark = pytest.mark.usefixtures("peers")
SIZES = [(20, 28), (240, 320), (33, 17), (224, 224)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_i3d_sees_the_same_pixels_bit_by_bit(size: tuple[int, int]) -> None:
    from cdfvd.third_party.i3d import utils

    video = batch(make_clips(2, 3, *size))
    assert i3d_cdfvd(video).equal(utils.preprocess_i3d(video.permute(0, 2, 3, 4, 1).numpy()))


@torch.no_grad()
def test_videomae_v2_has_the_same_features(tmp_path: Path) -> None:
    from cdfvd.third_party.VideoMAEv2 import videomaev2_finetune as peer

    torch.manual_seed(0)
    network = peer.VisionTransformer(
        img_size=224,
        patch_size=56,
        embed_dim=22,
        depth=2,
        num_heads=2,
        mlp_ratio=48 / 11,
        qkv_bias=True,
        num_classes=7,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save({"module": network.state_dict()}, tmp_path / "weights.pth")
    clips = make_clips(2)
    features = VideoMAEv2(str(tmp_path / "weights.pth"), num_heads=2, batch_size=2).describe(clips)[:, 0]
    torch.testing.assert_close(features, network.forward_features(videomae_cdfvd(batch(clips))), rtol=1e-4, atol=1e-5)
