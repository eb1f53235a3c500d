"""Text-to-video pipelines imported, sampled and exported, on small models that diffusers saved."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import TextToVideoSDPipeline
from safetensors.torch import load_file, save_file

from tests.cli.calling import import_and_export, refuses_damaged
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.modelscope.pipelines import LICENCE, MAX_TOKENS, save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights
from vdm.models.pretrained.modelscope import open_folder
from vdm.randomness import normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's, in diffusers

UNET = "unet/diffusion_pytorch_model.safetensors"
CAPTIONS = ["a red dog runs", "cat"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_pipeline(tmp_path_factory.mktemp("published") / "pipeline")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\n# Text-to-video\n")
    return folder


@pytest.fixture(scope="module")
def kept(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is imported from there, ``run``, and what is exported from that, ``given``."""
    return import_and_export(published, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5, 6), "validation": (5,)})


def opened(folder: Path) -> TextToVideoSDPipeline:
    pipeline = TextToVideoSDPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of_diffusers(folder: Path, noise: torch.Tensor, steps: int, negative: str = "") -> torch.Tensor:
    return opened(folder)(
        CAPTIONS,
        negative_prompt=[negative] * len(CAPTIONS),
        height=16,
        width=24,
        num_frames=noise.shape[2],
        num_inference_steps=steps,
        guidance_scale=9.0,
        latents=noise,
        output_type="latent",
    ).frames


@pytest.mark.parametrize(
    ("steps", "scheduler"),
    [
        (20, {}),
        (5, {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "set_alpha_to_one": True}),
        (5, {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "prediction_type": "v_prediction"}),
    ],
    ids=["as published", "v, trailing, to clean latents", "linear betas"],
)
def test_sampled_latents_equal_those_of_diffusers(
    steps: int, scheduler: dict[str, object], run_vdm: RunVdm, tmp_path: Path
) -> None:
    folder = save_pipeline(tmp_path / "published", **scheduler)
    assert run_vdm("import", f"from={folder}", "to=run")[0] == 0
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run")
    model.sampler = replace(model.sampler, num_steps=steps)
    noise = normal(0, "noise", range(2), (4, 3, 8, 12))

    expected = latents_of_diffusers(folder, noise, steps, negative="blur")
    latents = model.sample(noise, CAPTIONS, negative="blur")
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_an_imported_run_is_a_whole_model_with_its_own_defaults(
    published: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    assert run_vdm("import", f"from={published}", "to=run", "clip.num_frames=5")[0] == 0
    model, config = VideoDiffusionModel.from_checkpoint(tmp_path / "run"), load_config(tmp_path / "run")

    assert config["clip"] == {"num_frames": 5, "height": 16, "width": 16, "fps": 8, "label_names": []}
    assert (model.sampler.num_steps, model.guidance.scale, config["guidance_scale"]) == (50, 9.0, 9.0)
    timesteps = [1000 * point.t - 1 for point in model.sampler.grid(model.diffusion.schedule)]
    assert timesteps == pytest.approx([*range(981, 0, -20), 0])
    encoded = model.conditioner.text_encoder(["cat", "a red dog runs"])
    assert encoded.tokens.shape == (2, MAX_TOKENS, 24)
    assert encoded.mask.all()
    expected = opened(published).unet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.network.state_dict().items())


def test_imported_exported_and_imported_again_is_the_same(
    published: Path, kept: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    assert run_vdm("import", f"from={kept / 'given'}", "to=again")[0] == 0

    first, again = load_weights(kept / "run"), load_weights(tmp_path / "again")
    original, given = load_file(published / UNET), load_file(kept / "given" / UNET)
    assert first.keys() == again.keys() == {f"model.network.{name}" for name in original}
    assert all(torch.equal(first[f"model.network.{name}"], tensor) for name, tensor in original.items())
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert all(torch.equal(given[name], tensor) for name, tensor in original.items())
    for component in ("unet/config.json", "scheduler/scheduler_config.json"):
        before, after = (json.loads((folder / component).read_text()) for folder in (published, kept / "given"))
        assert {k: v for k, v in after.items() if k in before} == {k: v for k, v in before.items() if k in after}
    assert (kept / "given" / "LICENSE.md").read_text() == LICENCE
    card = (kept / "given" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\npipeline_tag: text-to-video\nlicense: cc-by-nc-4.0\n")
    assert "CC BY-NC 4.0" in card


def test_diffusers_opens_and_runs_what_is_exported(published: Path, kept: Path) -> None:
    noise = normal(0, "noise", range(2), (4, 3, 8, 12))

    assert torch.equal(latents_of_diffusers(kept / "given", noise, 2), latents_of_diffusers(published, noise, 2))


def test_half_precision_and_shards_go_in_and_out(published: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    half = opened(published).to(torch.float16)
    half.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size="200KB")
    assert run_vdm("import", "from=half", "to=run")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0

    given = load_file(tmp_path / "given" / UNET)
    assert all(torch.equal(given[name], tensor) for name, tensor in half.unet.state_dict().items())
    assert opened(tmp_path / "given").vae is not None
    assert load_config(tmp_path / "run")["encoder"]["variant"] == "fp16"
    assert VideoDiffusionModel.from_checkpoint(tmp_path / "run").network.conv_in.weight.dtype == torch.float32


def test_an_imported_run_makes_videos_of_prompts(kept: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    shutil.copytree(kept / "run", tmp_path / "run")
    wishes = ("num_frames=3", "guidance_scale=9", "sampler.num_steps=2")
    code, err = run_vdm("sample", "checkpoint=run", 'prompts=["a dog","a cat"]', *wishes)

    assert code == 0, err
    assert len(list((tmp_path / "run" / "samples" / "0000").glob("0*.mp4"))) == 2


def other_pipeline(folder: Path) -> None:
    change_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def other_shapes(folder: Path) -> None:
    weights = load_file(folder / UNET)
    save_file({**weights, "conv_in.bias": torch.zeros(3)}, folder / UNET)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: shutil.rmtree(f / "tokenizer"), "x: the component tokenizer is missing"),
    (lambda f: (f / "unet/config.json").unlink(), "x/unet/config.json: no such file"),
    (other_shapes, "x/unet: conv_in.bias has shape [3], but the model's has [32]"),
    (lambda f: cut(f / UNET), f"x/{UNET}: not a whole safetensors file: "),
    (lambda f: cut(f / "vae/diffusion_pytorch_model.safetensors"), "x/vae/diffusion_pytorch_model.safetensors: not"),
    (pickled, "x/text_encoder/pytorch_model.bin: a pickle can run code when it is read, so only safetensors are"),
    (
        lambda f: change_json(f / "text_encoder/config.json", hidden_size=32),
        "x/text_encoder/config.json: hidden_size is 32, but the network needs 24",
    ),
    (
        lambda f: change_json(f / "unet/config.json", _class_name="UNet2DConditionModel"),
        "x/unet/config.json: holds a UNet2DConditionModel, not a UNet3DConditionModel",
    ),
    (lambda f: change_json(f / "unet/config.json", act_fn="gelu"), "x/unet/config.json: act_fn=gelu: only silu is"),
    (
        lambda f: change_json(f / "scheduler/scheduler_config.json", prediction_type="flow"),
        "x/scheduler/scheduler_config.json: prediction_type=flow: must be epsilon, v_prediction, sample",
    ),
    (
        lambda f: change_json(f / "scheduler/scheduler_config.json", trained_betas=[0.1]),
        "x/scheduler/scheduler_config.json: trained_betas: is not supported",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_folders_are_refused_with_the_reason(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses_damaged(open_folder, published, damage, message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_pipeline, "x: holds a StableDiffusionPipeline, not a StableVideoDiffusionPipeline or TextToVideoSDPip"),
        (lambda f: cut(f / UNET), f"x/{UNET}: not a whole safetensors file: "),
        (pickled, "x/text_encoder/pytorch_model.bin: a pickle can run code when it is read, so only safetensors are"),
    ],
)
def test_a_refused_folder_is_one_line_and_makes_no_run(
    published: Path, run_vdm: RunVdm, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(published, tmp_path / "x")
    damage(tmp_path / "x")
    code, err = run_vdm("import", "from=x", "to=r")

    assert code == 2
    assert err.startswith(message)
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_tuning_asks_for_the_weights(run_vdm: RunVdm, shards: Path) -> None:
    code, err = run_vdm("train", "experiment=modelscope_finetune", f"data.path={shards}", "hydra.run.dir=run")
    assert code == 2
    assert err.strip() == "model.pretrained: no value given; add model.pretrained=FOLDER_OR_HUB_NAME"


def test_published_weights_are_tuned_and_given_back(
    published: Path, run_vdm: RunVdm, tmp_path: Path, shards: Path
) -> None:
    small = ("data.micro_batch_size=2", "data.global_batch_size=2", "data.num_workers=0", "trainer.max_steps=2")
    quick = ("logger=csv", "callbacks.samples=null", "trainer.accelerator=cpu", "optimizer.lr=1e-3")
    wishes = (f"model.pretrained={published}", f"data.path={shards}", "hydra.run.dir=run", *small, *quick)
    code, err = run_vdm("train", "experiment=modelscope_finetune", *wishes, "lr_schedule.warmup_steps=1")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=given", "ema=false")[0] == 0

    before, after = load_file(published / UNET), load_file(tmp_path / "given" / UNET)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"conv_in.weight", "transformer_in.proj_in.weight", "conv_out.weight"} <= changed
    assert all((before[name] - after[name]).abs().max() < 0.01 for name in before)
    card = (tmp_path / "given" / "README.md").read_text()
    assert f"| started from | {published} |" in card
    assert "| clips trained on | 4 |" in card
    noise = normal(0, "noise", range(2), (4, 2, 8, 12))
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run", ema=False)
    model.sampler = replace(model.sampler, num_steps=2)
    expected = latents_of_diffusers(tmp_path / "given", noise, 2)
    torch.testing.assert_close(model.sample(noise, CAPTIONS), expected, rtol=1e-4, atol=1e-4)
