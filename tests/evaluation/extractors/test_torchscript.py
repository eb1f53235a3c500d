"""Networks from TorchScript files: the whole path, and files that are something else."""

import hashlib
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from tests.evaluation.extractors.networks import (
    C3DNetwork,
    InceptionNetwork,
    NvidiaVGG,
    PairNetwork,
    PictureEncoder,
    PlainI3D,
    StyleganvI3D,
    batch,
    make_clips,
    save_torchscript,
)
from vdm.config import ConfigError, build
from vdm.evaluation.extractors import preprocess
from vdm.evaluation.extractors.c3d import C3D
from vdm.evaluation.extractors.frame_consistency import RULES, FrameConsistency
from vdm.evaluation.extractors.i3d import I3D
from vdm.evaluation.extractors.inception import Inception
from vdm.evaluation.extractors.lpips import LPIPS

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "i3d": StyleganvI3D,
    "plain": PlainI3D,
    "i3d_600": lambda: StyleganvI3D(600),
    "c3d": lambda: C3DNetwork(probabilities=True),
    "c3d_logits": lambda: C3DNetwork(probabilities=False),
    "inception": InceptionNetwork,
    "pair": PairNetwork,
    "encoder": PictureEncoder,
    "vgg": NvidiaVGG,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("torchscript")
    return {name: str(save_torchscript(make(), folder / f"{name}.pt")) for name, make in NETWORKS.items()}


def exactly(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


# I3D


def test_styleganv_file_resizes_itself(files: dict[str, str]) -> None:
    clips = make_clips(3)
    network = StyleganvI3D().eval()
    features = I3D(files["i3d"], batch_size=2).describe(clips)
    assert features.shape == (3, 1, 400)
    exactly(features[:, 0], network(batch(clips), True, True, True))
    probabilities = I3D(files["i3d"], layer="probabilities", batch_size=2).describe(clips)
    exactly(probabilities[:, 0], network(batch(clips), True, True, False))


@pytest.mark.parametrize("file", ["i3d", "plain"])
@pytest.mark.parametrize("rule", ["original", "cdfvd", "shorter_side"])
def test_prepared_frames_reach_either_file(files: dict[str, str], file: str, rule: str) -> None:
    clips = make_clips(2)
    features = I3D(files[file], preprocessing=rule, batch_size=2).describe(clips)
    prepared = getattr(preprocess, f"i3d_{rule}")(batch(clips))
    exactly(features[:, 0], StyleganvI3D().eval()(prepared, False, False, True))


def test_resolution_comes_before_the_rule(files: dict[str, str]) -> None:
    clips = make_clips(2, height=40, width=50)
    features = I3D(files["plain"], preprocessing="cdfvd", resolution=16, batch_size=2).describe(clips)
    prepared = preprocess.i3d_cdfvd(preprocess.cdfvd_loader(batch(clips), 16))
    exactly(features[:, 0], StyleganvI3D().eval()(prepared, False, False, True))


def test_features_do_not_depend_on_the_clips_beside(files: dict[str, str]) -> None:
    clips = make_clips(5)
    extractor = I3D(files["i3d"], batch_size=3)
    together = extractor.describe(clips)
    for index, clip in enumerate(clips):
        torch.testing.assert_close(extractor.describe([clip])[0], together[index], rtol=1e-6, atol=1e-6)


def test_too_few_frames_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^clips have 8 frames; I3D needs at least 9$"):
        I3D(files["i3d"]).describe(make_clips(1, frames=8))


# C3D


def test_c3d_gives_logits_of_its_probabilities(files: dict[str, str]) -> None:
    clips = make_clips(3)
    features = C3D(files["c3d"], batch_size=2).describe(clips)
    assert features.shape == (3, 1, 101)
    exactly(features[:, 0].softmax(1), C3DNetwork(probabilities=True).eval()(batch(clips)))
    exactly(C3D(files["c3d_logits"], output="logits").describe(clips)[:, 0], C3DNetwork(False).eval()(batch(clips)))


def test_c3d_sees_frames_as_tgan2_prepares_them(files: dict[str, str], tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(80, 110, (1, 3, 16, 128, 171)).astype(np.float32)
    np.savez(tmp_path / "mean.npz", mean=mean)
    clips = make_clips(2)
    extractor = C3D(files["c3d_logits"], preprocessing="tgan2", output="logits", mean=str(tmp_path / "mean.npz"))
    assert extractor.files == {"mean": hashlib.sha256((tmp_path / "mean.npz").read_bytes()).hexdigest()}
    prepared = preprocess.c3d_tgan2(batch(clips), torch.from_numpy(mean[0]))
    exactly(extractor.describe(clips)[:, 0], C3DNetwork(False).eval()(prepared))


def test_c3d_takes_16_frames(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^clips have 15 frames; C3D takes 16$"):
        C3D(files["c3d"]).describe(make_clips(1, frames=15))


def test_logits_are_not_taken_for_probabilities(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"not probabilities: a row sums to"):
        C3D(files["c3d_logits"]).describe(make_clips(1))


def test_mean_clip_is_a_plain_array_of_the_right_shape(files: dict[str, str], tmp_path: Path) -> None:
    cases = {"objects": np.array([{}], dtype=object), "small": np.zeros((3, 16, 8, 8), np.float32)}
    for name, mean in cases.items():
        np.savez(tmp_path / f"{name}.npz", mean=mean)
    (tmp_path / "text.npz").write_text("no array")
    for name, reason in [
        ("objects", "not a .npz"),
        ("text", "not a .npz"),
        ("small", "has shape"),
        ("none", "no such"),
    ]:
        with pytest.raises(ValueError, match=rf"^mean: .*{name}\.npz: {reason}") as caught:
            C3D(files["c3d"], preprocessing="tgan2", mean=str(tmp_path / f"{name}.npz"))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^mean=None: preprocessing=tgan2 needs"):
        C3D(files["c3d"], preprocessing="tgan2")


# Inception


def test_inception_describes_each_frame(files: dict[str, str]) -> None:
    clips = make_clips(3, frames=4)
    frames = rearrange(batch(clips), "b c t h w -> (b t) c h w")
    network = InceptionNetwork().eval()
    features = Inception(files["inception"], batch_size=2).describe(clips)
    assert features.shape == (3, 4, 2048)
    exactly(features.flatten(0, 1), network(frames, True))
    logits = Inception(files["inception"], layer="logits", batch_size=2).describe(clips)
    exactly(logits.flatten(0, 1).softmax(1), network(frames, False, False, True))


# LPIPS


@pytest.mark.parametrize("file", ["pair", "vgg"])
def test_lpips_is_the_mean_over_frames(files: dict[str, str], file: str) -> None:
    clips, truth = make_clips(3, frames=4), make_clips(3, frames=4, seed=1)
    distance = LPIPS(files[file], batch_size=2).compare(clips, truth)
    assert distance.shape == (3, 1, 1)
    expected = ((batch(clips).double() - batch(truth).double()) / 127.5).square().mean((1, 2, 3, 4))
    torch.testing.assert_close(distance[:, 0, 0].double(), expected, rtol=1e-5, atol=1e-6)
    assert LPIPS(files[file]).compare(clips, clips).abs().max() == 0


# Files


def test_checksum_is_recorded_and_the_load_is_said(files: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    expected = hashlib.sha256(Path(files["i3d"]).read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING):
        assert I3D(files["i3d"], sha256=expected.upper()).checksum == expected
    assert [record.message for record in caplog.records] == [
        f"{files['i3d']} is TorchScript, which is code: running it, since its path was given ({expected})"
    ]


def test_another_checksum_is_refused_before_the_code_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"not even TorchScript")
    with pytest.raises(ValueError, match=rf"^sha256: .*other\.pt has SHA-256 [0-9a-f]{{64}}, not {'0' * 64}$"):
        I3D(str(tmp_path / "other.pt"), sha256="0" * 64)


def test_a_checksum_in_a_configuration_has_64_digits(files: dict[str, str]) -> None:
    node = {"_target_": "vdm.evaluation.extractors.i3d.I3D", "path": files["i3d"], "sha256": "abc"}
    with pytest.raises(ConfigError, match=r"^metric\.extractor\.sha256: 'abc' is not allowed: must be 64 hexadecimal"):
        build(node, "metric.extractor")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "weights", "text", "empty", "folder", "missing"])
def test_other_files_are_one_line_and_run_nothing(tmp_path: Path, kind: str) -> None:
    path, ran = tmp_path / f"{kind}.pt", tmp_path / "ran"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(ran)))
    elif kind == "weights":
        torch.save({"weight": Trap(ran)}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("some text" if kind == "text" else "")
    reasons = {"missing": "no such file", "folder": "can't be read: is a folder"}
    with pytest.raises(ValueError, match=rf"{kind}\.pt: {reasons.get(kind, 'not a TorchScript file')}") as caught:
        I3D(str(path))
    assert "\n" not in str(caught.value)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: I3D(f["plain"]), "preprocessing=in_file: .*plain.pt does not take 'rescale'"),
        (lambda f: I3D(f["plain"], preprocessing="cdfvd", layer="probabilities"), "layer=probabilities: .*plain.pt"),
        (lambda f: I3D(f["pair"]), "pair.pt: its network takes 2 inputs, not I3D's one"),
        (lambda f: C3D(f["pair"]), "pair.pt: its network takes 2 inputs, not C3D's one"),
        (lambda f: Inception(f["i3d"]), "i3d.pt: not Inception, which takes"),
        (lambda f: LPIPS(f["i3d"]), "i3d.pt: its network takes 1 inputs, not LPIPS's two pictures"),
        (lambda f: I3D(f["i3d_600"]).describe(make_clips(1)), r"returns shape \(8, 600\) for 8 inputs, but I3D"),
        (lambda f: C3D(f["i3d"]).describe(make_clips(1)), r"returns shape \(8, 400\) for 8 inputs, but C3D"),
        (lambda f: I3D(f["c3d"], preprocessing="cdfvd").describe(make_clips(1)), r"but I3D returns \(8, 400\)"),
        (lambda f: LPIPS(f["pair"]).compare(make_clips(1), make_clips(2)), "1 clips can't be compared with 2"),
        (lambda f: LPIPS(f["pair"]).compare(make_clips(1), make_clips(1, frames=4)), "clips must be equal"),
    ],
    ids=range(11),
)
def test_wrong_networks_and_clips_are_one_line(
    files: dict[str, str], build: Callable[[dict[str, str]], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(files)
    assert "\n" not in str(caught.value)


def test_a_network_that_fails_is_one_line(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(7, 7)

    path = save_torchscript(Broken(), tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken\.pt: its network fails on input of shape .*16, 20, 28\)") as caught:
        C3D(str(path), batch_size=1).describe(make_clips(1))
    assert "\n" not in str(caught.value)


# Consistency of frames


@pytest.mark.parametrize("preprocessing", ["dino", "clip"])
def test_consistency_is_the_mean_cosine_with_the_first_frame_and_the_one_before(
    files: dict[str, str], preprocessing: Literal["dino", "clip"]
) -> None:
    clips = make_clips(3, frames=5)
    # Frames that drift apart: the noise alone would look alike to an encoder that averages it.
    shades = torch.linspace(0, 1, 5).view(1, 5, 1, 1) * torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1, 1)
    clips = [replace(clip, video=(clip.video * 0.3 + 90 + 80 * shades).byte()) for clip in clips]
    found = FrameConsistency(files["encoder"], preprocessing, batch_size=2).describe(clips)
    encoder = PictureEncoder().eval()
    for clip, score in zip(clips, found[:, 0, 0], strict=True):
        pixels = RULES[preprocessing].apply(clip.video[None])[0]
        embedded = [encoder(pixels[:, frame][None])[0].detach() for frame in range(5)]
        total = 0.0
        for frame in range(1, 5):
            to_before = float(torch.cosine_similarity(embedded[frame - 1], embedded[frame], dim=0))
            to_first = float(torch.cosine_similarity(embedded[0], embedded[frame], dim=0))
            total += (max(0.0, to_before) + max(0.0, to_first)) / 2
        assert float(score) == pytest.approx(total / 4, abs=1e-5)
        assert 0 <= float(score) < 0.999
    assert RULES["clip"].apply(clips[0].video[None]).shape[-2:] == (224, 224)
    assert RULES["dino"].apply(clips[0].video[None]).shape[-2:] == (224, int(224 * 28 / 20))


def test_consistency_of_a_still_video_is_one(files: dict[str, str]) -> None:
    still = [replace(clip, video=clip.video[:, :1].expand(-1, 5, -1, -1)) for clip in make_clips(2)]
    scores = FrameConsistency(files["encoder"], "clip").describe(still)
    torch.testing.assert_close(scores, torch.ones(2, 1, 1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="1 frame; consistency needs at least 2"):
        FrameConsistency(files["encoder"], "clip").describe(make_clips(1, frames=1))
    with pytest.raises(ValueError, match=r"takes 2 inputs, not an encoder's one$"):
        FrameConsistency(files["pair"], "clip")
