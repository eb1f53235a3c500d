"""Wan's image-to-video pipelines imported, sampled, tuned and exported, on small models that diffusers saved."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file

import vdm
from tests.cli.calling import frames_of, import_and_export
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.dit.pipelines import image_pipeline, save_pipeline
from vdm.checkpoints.run_record import load_config
from vdm.generation.video_files import write_mp4
from vdm.randomness import normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's, in diffusers

NETWORK = "transformer/diffusion_pytorch_model.safetensors"
CAPTIONS = ["a red dog runs", "cat"]
NOISE = normal(0, "noise", range(2), (4, 3, 4, 8))  # 9 frames of 16x32 pixels


@pytest.fixture(autouse=True)
def captions_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline would clean captions with a library that is not installed."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", lambda text: text)


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def picture(number: int) -> Image.Image:
    values = torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(number))
    return Image.fromarray((255 * values).byte().numpy())


def latents_of_diffusers(
    pipeline: WanImageToVideoPipeline, caption: str, noise: torch.Tensor, last: bool
) -> torch.Tensor:
    return pipeline(
        picture(0),
        caption,
        negative_prompt="a cat",
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=5,
        guidance_scale=5.0,
        latents=noise,
        last_image=picture(1) if last else None,
        output_type="latent",
    ).frames


@pytest.mark.parametrize(
    ("kind", "last"),
    [("I2V", False), ("FLF2V", True), ("TI2V", False), ("A14B", False), ("A14B", True)],
)
def test_sampled_latents_equal_those_of_diffusers(kind: str, last: bool, run_vdm: RunVdm, tmp_path: Path) -> None:
    published = image_pipeline(kind)
    published.save_pretrained(tmp_path / "published")
    code, err = run_vdm("import", "from=published", "to=run")
    assert code == 0, err
    pipe = vdm.load_model(tmp_path / "run")
    pipe.model.sampler = replace(pipe.model.sampler, num_steps=5)

    latents = pipe(
        CAPTIONS,
        image=picture(0),
        last_image=picture(1) if last else None,
        negative="a cat",
        num_frames=9,
        height=16,
        width=32,
        guidance_scale=5.0,
        noise=NOISE,
        output="latents",
        progress=False,
    ).content
    for caption, noise, ours in zip(CAPTIONS, NOISE, latents, strict=True):
        expected = latents_of_diffusers(published, caption, noise[None], last)
        torch.testing.assert_close(ours[None], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each kind, a folder with a pipeline, ``published``, its import, ``run``, and the export of that, ``given``."""
    made = {kind: tmp_path_factory.mktemp("kind") for kind in ("I2V", "FLF2V", "TI2V", "A14B")}
    for kind, folder in made.items():
        image_pipeline(kind).save_pretrained(folder / "published")
        import_and_export(folder / "published", folder)
    return made


@pytest.mark.parametrize("kind", ["I2V", "FLF2V", "TI2V", "A14B"])
def test_diffusers_opens_and_runs_what_is_exported(kind: str, folders: dict[str, Path]) -> None:
    folder, last = folders[kind], kind == "FLF2V"
    given = WanImageToVideoPipeline.from_pretrained(folder / "given")
    given.set_progress_bar_config(disable=True)

    networks = [NETWORK, *([NETWORK.replace("transformer/", "transformer_2/")] if kind == "A14B" else [])]
    for network in networks:
        before, after = (load_file(folder / name / network) for name in ("published", "given"))
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    for name, keys in (
        ("transformer/config.json", None),
        ("model_index.json", {"_class_name", "expand_timesteps", "boundary_ratio"}),
    ):
        before, after = (json.loads((folder / each / name).read_text()) for each in ("published", "given"))
        both = before.keys() & after.keys() if keys is None else keys
        assert {key: after[key] for key in both} == {key: before[key] for key in both}
    expected = latents_of_diffusers(image_pipeline(kind), "cat", NOISE[:1], last)
    torch.testing.assert_close(latents_of_diffusers(given, "cat", NOISE[:1], last), expected, rtol=1e-5, atol=1e-5)
    card = (folder / "given" / "README.md").read_text()
    assert f"pipeline_tag: {'text' if kind == 'TI2V' else 'image'}-to-video" in card
    assert "from diffusers import WanImageToVideoPipeline" in card


def test_a_first_frame_is_given_to_ti2v_saved_as_a_text_to_video_pipeline(run_vdm: RunVdm, tmp_path: Path) -> None:
    save_pipeline(tmp_path / "published", expand_timesteps=True)
    assert run_vdm("import", "from=published", "to=run")[0] == 0
    pipe = vdm.load_model(tmp_path / "run")
    pipe.model.sampler = replace(pipe.model.sampler, num_steps=5)
    size = {"num_frames": 9, "height": 16, "width": 32}
    wishes = {"negative": "a cat", "guidance_scale": 5.0, "output": "latents", "progress": False}

    latents = pipe("cat", image=picture(0), noise=NOISE[:1], **size, **wishes).content
    expected = latents_of_diffusers(image_pipeline("TI2V"), "cat", NOISE[:1], last=False)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


SAMPLE = ("sample", "checkpoint=run", "num_frames=9", "height=16", "width=32", "sampler.num_steps=2", "prompts=cat")


@pytest.mark.parametrize(
    ("kind", "wishes", "message"),
    [
        (
            "I2V",
            ["image=a.png", "last_image=b.png"],
            "last_image: the model takes none, since it attends to the picture of the first frame alone",
        ),
        (
            "TI2V",
            ["image=a.png", "last_image=b.png"],
            "last_image: the model takes none, since its last latent frame stands for 4 frames, not for a picture",
        ),
        ("FLF2V", ["last_image=c.png"], "last_image=c.png: no such file"),
        ("FLF2V", ["image=a.png", "last_image=bad.png"], "last_image=bad.png: can't be read as a picture"),
        ("FLF2V", ["image=a.png", "num_frames=8"], "num_frames=8: the autoencoder takes 4k + 1 frames: 5 or 9"),
        (
            "FLF2V",
            ["image=a.png", "last_image=b.png", "num_frames=1"],
            "last_image: with num_frames=1 there is no last frame beside the first",
        ),
        (
            "I2V",
            ["image=a.png", "method=replacement"],
            "method=replacement: the model is told known frames in channels; leave method out",
        ),
    ],
)
def test_pictures_that_a_model_does_not_take_are_refused(
    kind: str, wishes: list[str], message: str, folders: dict[str, Path], run_vdm: RunVdm, tmp_path: Path
) -> None:
    (tmp_path / "run").symlink_to(folders[kind] / "run")
    for number, name in enumerate("ab"):
        picture(number).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_text("no picture")

    code, err = run_vdm(*(wish for wish in SAMPLE if wish.partition("=")[0] not in str(wishes)), *wishes)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith(message)


@pytest.mark.parametrize("kind", ["FLF2V", "TI2V"])
def test_videos_begin_and_end_with_the_given_pictures(
    kind: str, folders: dict[str, Path], run_vdm: RunVdm, tmp_path: Path
) -> None:
    shutil.copytree(folders[kind] / "run", tmp_path / "run")
    for number, name in enumerate("ab"):
        picture(number).save(tmp_path / f"{name}.png")
    last = ["last_image=b.png"] if kind == "FLF2V" else []
    code, err = run_vdm(*SAMPLE, "image=a.png", *last)
    assert code == 0, err
    assert "not trained" not in err

    folder = tmp_path / "run" / "samples" / "0000"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["options"]["method"] == (None if last else "clean_frames")
    assert settings["read"].keys() >= {"image", *(["last_image"] if last else [])}
    assert len(list(folder.glob("0*.mp4"))) == 1
    pipe = vdm.load_model(tmp_path / "run")
    size = {"num_frames": 9, "height": 16, "width": 32, "num_steps": 2, "progress": False}
    made = pipe("cat", image=picture(0), last_image=picture(1) if last else None, **size)
    frames = [torch.from_numpy(np.array(picture(number))).permute(2, 0, 1) for number in (0, 1)]
    assert torch.equal(made.videos[0, :, 0], frames[0])
    assert torch.equal(made.videos[0, :, -1], frames[1]) == bool(last)
    # A picture for each of two prompts, of several videos each.
    several = pipe(CAPTIONS, image=[picture(1), picture(0)], num_videos=2, **size)
    assert [bool((video[:, 0] == frames[0]).all()) for video in several.videos] == [False, False, True, True]


def test_longer_videos_and_given_ones_are_continued_in_channels(
    folders: dict[str, Path], run_vdm: RunVdm, tmp_path: Path
) -> None:
    shutil.copytree(folders["I2V"] / "run", tmp_path / "run")
    frames = torch.randint(256, (3, 5, 16, 32), generator=torch.Generator().manual_seed(0)).byte()
    write_mp4(tmp_path / "film.mp4", frames, 16)
    blocks = ("block_frames=9", "overlap=1")
    code, err = run_vdm(*SAMPLE, "num_frames=17", *blocks, "image=film.mp4")
    assert (code, "can't be read as a picture" in err) == (2, True)
    picture(0).save(tmp_path / "a.png")
    code, err = run_vdm(*SAMPLE, "num_frames=17", *blocks, "image=a.png")
    assert (code, "other known frames" in err) == (0, False), err
    code, err = run_vdm(*SAMPLE, *blocks, "task=extend", "input=film.mp4", "input_frames=all", "from=start")
    assert (code, "other known frames" in err) == (0, True), err
    code, err = run_vdm(*SAMPLE, "block_frames=9")
    assert (code, "was given none: image=FILE" in err) == (0, True), err

    files = sorted((tmp_path / "run" / "samples").glob("*/0*.mp4"))
    assert [len(frames_of(file)) for file in files] == [17, 9, 9]


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("I2V", lambda f: shutil.rmtree(f / "image_encoder"), "x: the component image_encoder is missing"),
    ("I2V", lambda f: shutil.rmtree(f / "image_processor"), "x: the component image_processor is missing"),
    (
        "I2V",
        lambda f: change_json(f / "image_encoder/config.json", hidden_size=16),
        "x/image_encoder/config.json: hidden_size is 16, but the network needs 12",
    ),
    (
        "I2V",
        lambda f: change_json(f / "transformer/config.json", in_channels=10),
        "x/transformer/config.json: in_channels=10, out_channels=4: must be equal, or, with channels for known frames,"
        " 12 and 4",
    ),
    (
        "I2V",
        lambda f: change_json(f / "transformer/config.json", added_kv_proj_dim=None),
        "x/transformer/config.json: image_dim=12, added_kv_proj_dim=None: needs both or neither, the latter 24",
    ),
    (
        "TI2V",
        lambda f: change_json(f / "model_index.json", expand_timesteps=False),
        "x/transformer/config.json: the network has no channels for known frames: open it with model=wan_1_3b",
    ),
    (
        "I2V",
        lambda f: change_json(f / "model_index.json", expand_timesteps=True),
        "x/transformer/config.json: the network has channels for known frames: open it with model=wan_i2v_14b",
    ),
    (
        "I2V",
        lambda f: change_json(f / "model_index.json", _class_name="WanPipeline"),
        "x/transformer/config.json: the network has channels for known frames: open it with model=wan_i2v_14b",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "message"), DAMAGES)
def test_damaged_folders_are_refused_with_the_reason(
    kind: str,
    damage: Callable[[Path], object],
    message: str,
    folders: dict[str, Path],
    run_vdm: RunVdm,
    tmp_path: Path,
) -> None:
    shutil.copytree(folders[kind] / "published", tmp_path / "x")
    damage(tmp_path / "x")
    code, err = run_vdm("import", "from=x", "to=run")
    assert (code, err.strip()) == (2, message)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5, 6), "validation": (5,)}, shapes=((5, 16, 32),))


@pytest.mark.parametrize("kind", ["FLF2V", "TI2V"])
def test_published_weights_are_tuned_and_given_back(
    kind: str, folders: dict[str, Path], run_vdm: RunVdm, tmp_path: Path, shards: Path
) -> None:
    published, last = folders[kind] / "published", kind == "FLF2V"
    small = ("data.micro_batch_size=2", "data.global_batch_size=2", "data.num_workers=0", "trainer.max_steps=2")
    quick = ("logger=csv", "trainer.accelerator=cpu", "optimizer.lr=1e-3", "lr_schedule.warmup_steps=1")
    samples = ("callbacks.samples.num_videos=2", "sampler.num_steps=1")
    chosen = (
        ("experiment=wan_i2v_finetune",)
        if last
        else (
            "experiment=wan_finetune",
            "diffusion/frame_levels=known_frames",
            "diffusion.frame_levels.probability=0.9",
        )
    )
    wishes = (f"model.pretrained={published}", f"data.path={shards}", *small, *quick, *samples)
    code, err = run_vdm("train", *chosen, *wishes, "hydra.run.dir=run")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=given", "ema=false")[0] == 0

    before, after = load_file(published / NETWORK), load_file(tmp_path / "given" / NETWORK)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"patch_embedding.weight", "scale_shift_table", "blocks.1.attn2.to_k.weight"} <= changed
    assert last == ("blocks.1.attn2.add_k_proj.weight" in changed)
    pipe = vdm.load_model(tmp_path / "run", ema=False)
    assert load_config(tmp_path / "run")["diffusion"]["frame_levels"].get("probability") == (None if last else 0.9)
    size = {"num_frames": 9, "block_frames": 9, "height": 16, "width": 32, "num_steps": 5, "guidance_scale": 5.0}
    wishes = {"negative": "a cat", "noise": NOISE[:1], "output": "latents", "progress": False}
    latents = pipe("cat", image=picture(0), last_image=picture(1) if last else None, **size, **wishes).content
    given = WanImageToVideoPipeline.from_pretrained(tmp_path / "given")
    given.set_progress_bar_config(disable=True)
    expected = latents_of_diffusers(given, "cat", NOISE[:1], last)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
