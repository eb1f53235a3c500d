"""VideoMAE, V-JEPA 2 and CLIP: small random models saved by transformers, against direct calls of transformers."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
)

from tests.evaluation.extractors.networks import batch, make_clips
from tests.models.pretrained import WORDS, save_tokenizer
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.extractors.clip import ClipText, ClipVideo
from vdm.evaluation.extractors.transformers_models import PixelRule, read_pixel_rule
from vdm.evaluation.extractors.videomae import VideoMAE
from vdm.evaluation.extractors.vjepa import VJEPA2

COMMIT = "0123456789" * 4
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
RULE = {
    "size": {"shortest_edge": 18},
    "crop_size": {"height": 16, "width": 16},
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "do_center_crop": True,
}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def add_rule(folder: Path, name: str = "preprocessor_config.json", **changes: object) -> Path:
    (folder / name).write_text(json.dumps({**RULE, **changes}))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    videomae = VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, num_labels=3, decoder_hidden_size=16, **WIDTHS)
    videomae.decoder_num_attention_heads, videomae.decoder_num_hidden_layers = 2, 1
    classifier = VideoMAEForVideoClassification(videomae)
    torch.nn.init.normal_(classifier.fc_norm.weight)
    classifier.save_pretrained(folder / "videomae")
    VideoMAEForPreTraining(videomae).save_pretrained(folder / "videomae_pretraining")
    vjepa = VJEPA2Config(
        crop_size=16,
        patch_size=8,
        frames_per_clip=4,
        tubelet_size=2,
        num_pooler_layers=1,
        pred_hidden_size=16,
        **WIDTHS,
    )
    vjepa.pred_num_attention_heads, vjepa.pred_num_hidden_layers, vjepa.mlp_ratio = 2, 1, 2
    VJEPA2Model(vjepa).save_pretrained(folder / "vjepa")
    VJEPA2ForVideoClassification(vjepa).save_pretrained(folder / "vjepa_classifier")
    text = CLIPTextConfig(
        vocab_size=len(WORDS), max_position_embeddings=12, pad_token_id=0, bos_token_id=3, eos_token_id=1, **WIDTHS
    )
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **WIDTHS)
    clip = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    CLIPModel(clip).save_pretrained(folder / "clip")
    save_tokenizer(folder / "clip")
    paths = {path.name: path for path in folder.iterdir()}
    for name, path in paths.items():
        add_rule(path, "video_preprocessor_config.json" if "vjepa" in name else "preprocessor_config.json")
    return paths


def pixels_of(video: torch.Tensor) -> torch.Tensor:
    """Return ``b c t h w`` bytes of 20x28 as Pillow resizes them, then as the rule says."""
    frames = rearrange(video, "b c t h w -> (b t) h w c").numpy()
    resized = [Image.fromarray(frame).resize((int(18 * 28 / 20), 18), Image.Resampling.BICUBIC) for frame in frames]
    cropped = [np.asarray(picture)[1:17, 4:20] for picture in resized]
    normalized = (np.stack(cropped) / 255 - MEAN) / STD
    return rearrange(torch.from_numpy(normalized).float(), "(b t) h w c -> b t c h w", b=len(video))


def test_pixels_are_pillows(saved: dict[str, Path]) -> None:
    # Pillow rounds to bytes after each axis; the contrast is low enough for no value to be cut off there.
    video = batch(make_clips(2, 4)) // 4 + 96
    found = rearrange(read_pixel_rule(str(saved["videomae"])).apply(video), "b c t h w -> b t c h w")
    levels = (found - pixels_of(video)).abs() * 255 * torch.tensor(STD).view(3, 1, 1)
    assert levels.max() < 1.01
    assert levels.mean() < 0.3


@pytest.mark.parametrize(
    ("size", "height", "width", "expected"),
    [
        ({"shortest_edge": 18}, 20, 28, (18, 25)),
        ({"shortest_edge": 18}, 28, 20, (25, 18)),
        (18, 20, 20, (18, 18)),
        ({"height": 10, "width": 12}, 28, 20, (10, 12)),
    ],
    ids=str,
)
def test_sizes_are_those_of_transformers(
    tmp_path: Path, size: object, height: int, width: int, expected: tuple[int, int]
) -> None:
    rule = read_pixel_rule(str(add_rule(tmp_path, size=size, do_center_crop=False)))
    assert rule.apply(batch(make_clips(1, 1, height, width))).shape[-2:] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "do_normalize=.* is not allowed"),
        ({"resample": 0}, "resample=.* is not allowed"),
        ({"rescale_factor": 0.5}, "rescale_factor=.* is not allowed"),
        ({"image_std": [0, 1, 1]}, "image_std.* is not allowed"),
    ],
    ids=str,
)
def test_rules_that_are_not_known_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_pixel_rule(str(add_rule(tmp_path, **changes)))
    assert "\n" not in str(caught.value)


def test_crop_larger_than_the_frames_is_refused() -> None:
    rule = PixelRule(size=8, crop_size=16, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    with pytest.raises(ValueError, match=r"^the processor crops 16x16 out of 8x11 pixels, which are fewer$"):
        rule.apply(batch(make_clips(1, 1)))


@torch.no_grad()
def test_videomae_gives_what_its_classifier_sees(saved: dict[str, Path]) -> None:
    clips = make_clips(3, 4)
    extractor = VideoMAE(str(saved["videomae"]), batch_size=2)
    model = VideoMAEForVideoClassification.from_pretrained(saved["videomae"]).eval()
    pixels = rearrange(extractor.rule.apply(batch(clips)), "b c t h w -> b t c h w")
    features = extractor.describe(clips)
    assert features.shape == (3, 1, 16)
    torch.testing.assert_close(model.classifier(features[:, 0]), model(pixel_values=pixels).logits)


@torch.no_grad()
def test_videomae_of_pretraining_gives_mean_tokens(saved: dict[str, Path]) -> None:
    clips = make_clips(2, 4)
    extractor = VideoMAE(str(saved["videomae_pretraining"]))
    model = VideoMAEForPreTraining.from_pretrained(saved["videomae_pretraining"]).eval().videomae
    pixels = rearrange(extractor.rule.apply(batch(clips)), "b c t h w -> b t c h w")
    expected = model(pixel_values=pixels).last_hidden_state.mean(1)
    torch.testing.assert_close(extractor.describe(clips)[:, 0], expected)


@torch.no_grad()
def test_vjepa_gives_mean_tokens_or_what_its_classifier_sees(saved: dict[str, Path]) -> None:
    clips = make_clips(3, 4)
    for name in ("vjepa", "vjepa_classifier"):
        extractor = VJEPA2(str(saved[name]), batch_size=2)
        pixels = rearrange(extractor.rule.apply(batch(clips)), "b c t h w -> b t c h w")
        encoder = VJEPA2Model.from_pretrained(saved["vjepa"]).eval() if name == "vjepa" else None
        model = VJEPA2ForVideoClassification.from_pretrained(saved["vjepa_classifier"]).eval()
        tokens = (encoder or model.vjepa2).get_vision_features(pixel_values_videos=pixels)
        torch.testing.assert_close(extractor.describe(clips)[:, 0], tokens.mean(1))
    attentive = VJEPA2(str(saved["vjepa_classifier"]), pooled="attentive", batch_size=2).describe(clips)
    torch.testing.assert_close(model.classifier(attentive[:, 0]), model(pixel_values_videos=pixels).logits)


@torch.no_grad()
def test_clip_scores_are_cosines(saved: dict[str, Path]) -> None:
    captions = ["a red dog runs", "the cat", "a cat jumps over the fence a dog runs over the cat jumps"]
    clips = [EvaluatedClip(clip.video, clip.key, text) for clip, text in zip(make_clips(3, 4), captions, strict=True)]
    truth = make_clips(3, 4, seed=1)
    model = CLIPModel.from_pretrained(saved["clip"]).eval()
    extractor = ClipText(str(saved["clip"]), batch_size=2)

    def embedded(video: torch.Tensor) -> torch.Tensor:
        pixels = rearrange(extractor.embedder.rule.apply(video), "b c t h w -> (b t) c h w")
        return rearrange(model.get_image_features(pixel_values=pixels).pooler_output, "(b t) d -> b t d", b=len(video))

    frames, true_frames = embedded(batch(clips)), embedded(batch(truth))
    for index, caption in enumerate(captions):
        tokens = extractor.tokenizer([caption], truncation=True, max_length=12, return_tensors="pt")
        text = model.get_text_features(**tokens).pooler_output
        expected = torch.cosine_similarity(frames[index], text, dim=-1).mean()
        torch.testing.assert_close(extractor.describe(clips)[index, 0, 0], expected, rtol=1e-4, atol=1e-5)
    found = ClipVideo(str(saved["clip"]), batch_size=2).compare(clips, truth)
    expected = torch.cosine_similarity(frames, true_frames, dim=-1).mean(1)
    torch.testing.assert_close(found[:, 0, 0], expected, rtol=1e-4, atol=1e-5)


def test_checksum_is_of_the_weights(saved: dict[str, Path], tmp_path: Path) -> None:
    checksum = VideoMAE(str(saved["videomae"])).checksum
    model = VideoMAEForVideoClassification.from_pretrained(saved["videomae"])
    model.save_pretrained(add_rule(tmp_path), max_shard_size="10KB")  # the same weights in several files
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert VideoMAE(str(tmp_path)).checksum == checksum
    torch.nn.init.zeros_(model.fc_norm.weight)
    model.save_pretrained(tmp_path)
    assert VideoMAE(str(tmp_path)).checksum != checksum


def test_name_on_the_hub_gives_what_the_folder_gives(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's function for downloads is replaced: it "downloads" the files of a folder to the hub's cache."""
    downloaded: set[tuple[str, str]] = set()

    def download(repo_id: str, filename: str, cache_dir: str, **options: object) -> None:
        source = saved[repo_id.partition("/")[2]] / filename
        if not source.is_file():
            raise EntryNotFoundError(f"{filename} is not on the hub")
        cached = Path(cache_dir) / f"models--{repo_id.replace('/', '--')}"
        for path in (cached / "refs" / "main", snapshot := cached / "snapshots" / COMMIT / filename):
            path.parent.mkdir(parents=True, exist_ok=True)
        (cached / "refs" / "main").write_text(COMMIT)
        shutil.copy(source, snapshot)
        downloaded.add((repo_id, filename))

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for extractor, kind, num_frames in ((VideoMAE, "videomae", 4), (VJEPA2, "vjepa", 4), (ClipText, "clip", 2)):
        by_name, by_folder = extractor(f"owner/{kind}"), extractor(str(saved[kind]))
        clips = [replace(clip, caption="a dog") for clip in make_clips(2, num_frames)]
        torch.testing.assert_close(by_name.describe(clips), by_folder.describe(clips), rtol=0, atol=0)
        assert (by_name.checksum, by_name.files) == (by_folder.checksum, by_folder.files)
        assert {(f"owner/{kind}", name) for name in ("config.json", "model.safetensors")} <= downloaded


def test_files_that_descriptions_depend_on_are_recorded(saved: dict[str, Path]) -> None:
    def sums(kind: str, *names: str) -> dict[str, str]:
        return {name: hashlib.sha256((saved[kind] / name).read_bytes()).hexdigest() for name in names}

    rule = ("config.json", "preprocessor_config.json")
    assert VideoMAE(str(saved["videomae"])).files == sums("videomae", *rule)
    assert ClipVideo(str(saved["clip"])).files == sums("clip", *rule)
    assert ClipText(str(saved["clip"])).files.items() >= sums("clip", *rule, "tokenizer.json").items()


def test_faults_are_one_line(saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    headless = tmp_path / "headless"
    model = VideoMAEForVideoClassification.from_pretrained(saved["videomae"])
    kept = {name: tensor for name, tensor in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(headless, state_dict=kept)
    norule = tmp_path / "norule"
    model.save_pretrained(norule)
    cases = [
        (lambda: VideoMAE(str(tmp_path / "none")), "no such folder"),
        (lambda: VideoMAE(str(tmp_path / "empty")), r"config\.json: no such file"),
        (lambda: VideoMAE(str(saved["clip"])), "it holds a model of type clip, not videomae"),
        (lambda: VideoMAE(str(add_rule(headless))), "2 weights are missing, such as .*layer.1.output"),
        (lambda: VideoMAE(str(norule)), "has none of preprocessor_config.json"),
        (lambda: VideoMAE(str(saved["videomae"])).describe(make_clips(1, 8)), "have 8 frames; this VideoMAE takes 4"),
        (lambda: VJEPA2(str(saved["vjepa"]), pooled="attentive"), "pooled=attentive: .* holds no classifier"),
        (lambda: VJEPA2(str(saved["vjepa"])).describe(make_clips(1, 3)), "takes multiples of 2"),
        (
            lambda: ClipText(str(saved["clip"])).describe([EvaluatedClip(make_clips(1)[0].video, "mute")]),
            "^mute: has no caption",
        ),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)
