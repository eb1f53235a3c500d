"""Small networks with the interfaces of published TorchScript files, saved as TorchScript; and clips for them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.evaluation.base import EvaluatedClip


def make_clips(number: int, frames: int = 16, height: int = 20, width: int = 28, seed: int = 0) -> list[EvaluatedClip]:
    """Return clips of random bytes with captions."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (number, 3, frames, height, width), dtype=torch.uint8, generator=generator)
    return [EvaluatedClip(one, f"clip{index}", f"caption {index}") for index, one in enumerate(video)]


def batch(clips: Sequence[EvaluatedClip]) -> Tensor:
    return torch.stack([clip.video for clip in clips])


def save_torchscript(network: nn.Module, path: Path) -> Path:
    """Write a network as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network.eval()).save(str(path))
    return path


class StyleganvI3D(nn.Module):
    """Takes what StyleGAN-V's ``i3d_torchscript.pt`` takes: bytes that it resizes itself, or prepared frames."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classify = nn.Linear(3 * 4 * 4, classes)

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        x = x.float()
        if resize:
            x = F.interpolate(x, size=[x.shape[2], 224, 224], mode="trilinear", align_corners=False)
        if rescale:
            x = 2 * x / 255 - 1
        logits = self.classify(F.adaptive_avg_pool3d(x, [1, 4, 4]).flatten(1))
        return logits if return_features else logits.softmax(1)


class PlainI3D(nn.Module):
    """Takes prepared frames alone, and insists on their size and range."""

    def __init__(self) -> None:
        super().__init__()
        self.network = StyleganvI3D()

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[3:] == [224, 224]
        assert x.abs().max() <= 1
        return self.network(x, False, False, True)


class C3DNetwork(nn.Module):
    """Takes bytes of any size, or prepared ones, and returns probabilities or logits."""

    def __init__(self, probabilities: bool, classes: int = 101) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.probabilities = probabilities
        self.classify = nn.Linear(3 * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classify(F.adaptive_avg_pool3d(x.float() / 255, [1, 4, 4]).flatten(1))
        return logits.softmax(1) if self.probabilities else logits


class InceptionNetwork(nn.Module):
    """Takes what NVIDIA's ``inception-2015-12-05.pt`` takes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.describe = nn.Linear(3 * 2 * 2, 2048)
        self.classify = nn.Linear(2048, 1008)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        assert img.dtype == torch.uint8
        features = self.describe(F.adaptive_avg_pool2d(img.float() / 128 - 1, [2, 2]).flatten(1)).relu()
        if return_features:
            return features
        logits = features @ self.classify.weight.T
        return (logits if no_output_bias else logits + self.classify.bias).softmax(1)


class PairNetwork(nn.Module):
    """Takes two pictures from -1 to 1, as the package ``lpips`` does, and returns the mean squared distance."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.abs().max() <= 1
        return (x - y).square().mean([1, 2, 3], keepdim=True)


class PictureEncoder(nn.Module):
    """Takes pictures of any size, and returns a vector for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(3 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(F.adaptive_avg_pool2d(x, [2, 2]).flatten(1))


class NvidiaVGG(nn.Module):
    """Takes what NVIDIA's ``vgg16.pt`` takes, and returns vectors whose squared distance is a mean squared distance."""

    def forward(self, img: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        assert return_lpips
        assert not resize_images
        x = img / 127.5 - 1
        return (x / (x[0].numel() ** 0.5)).flatten(1)
