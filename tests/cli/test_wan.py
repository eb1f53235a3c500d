"""Wan's text-to-video pipelines imported, sampled, tuned and exported, on small models that diffusers saved."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from tests.cli.calling import import_and_export, refuses_damaged
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.dit.peers import our_transformer
from tests.models.dit.pipelines import LICENCE, SIZES, save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights
from vdm.models.pretrained.wan import open_folder
from vdm.models.pretrained.wan_format import network_config
from vdm.randomness import normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's, in diffusers

NETWORK = "transformer/diffusion_pytorch_model.safetensors"
CAPTIONS = ["a red &amp;  dog\n runs", "cat"]
NOISE = normal(0, "noise", range(2), (4, 3, 4, 8))  # 9 frames of 16x32 pixels


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_pipeline(tmp_path_factory.mktemp("published") / "pipeline")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Text-to-video\n")
    return folder


@pytest.fixture(scope="module")
def kept(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is imported from there, ``run``, and what is exported from that, ``given``."""
    return import_and_export(published, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5, 6), "validation": (5,)}, shapes=((5, 16, 32),))


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of_diffusers(folder: Path, steps: int, negative: str = "") -> torch.Tensor:
    return opened(folder)(
        CAPTIONS,
        negative_prompt=[negative] * len(CAPTIONS),
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=5.0,
        latents=NOISE,
        output_type="latent",
        max_sequence_length=512,
    ).frames


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (20, {}),
        (5, {"flow_shift": 12.0, "solver_order": 3, "solver_type": "bh2"}),
        (5, {"kind": "euler", "shift": 5.0}),
        (5, {"kind": "dpm", "flow_shift": 5.0}),
        (20, {"kind": "dpm"}),
        (5, {"expand_timesteps": True}),
    ],
    ids=["as published", "third order, another shift", "Euler", "DPM-Solver++, few steps", "DPM-Solver++", "TI2V-5B"],
)
def test_sampled_latents_equal_those_of_diffusers(
    steps: int, options: dict[str, Any], run_vdm: RunVdm, tmp_path: Path
) -> None:
    folder = save_pipeline(tmp_path / "published", **options)
    assert run_vdm("import", f"from={folder}", "to=run")[0] == 0
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run")
    model.sampler = replace(model.sampler, num_steps=steps)

    # diffusers gives the first latents variance 1, though DPM-Solver++ starts below noise level 1.
    shift = float(options.get("flow_shift", 3.0))
    first = 0.999 * shift / (1 + 0.999 * (shift - 1)) if options.get("kind") == "dpm" else 1.0
    latents = model.sample(NOISE / first, CAPTIONS, negative="a cat")
    torch.testing.assert_close(latents, latents_of_diffusers(folder, steps, "a cat"), rtol=1e-4, atol=1e-4)


def test_an_imported_run_is_a_whole_model_with_its_own_defaults(
    published: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    assert run_vdm("import", f"from={published}", "to=run", "clip.num_frames=9")[0] == 0
    model, config = VideoDiffusionModel.from_checkpoint(tmp_path / "run"), load_config(tmp_path / "run")

    assert config["clip"] == {"num_frames": 9, "height": 480, "width": 832, "fps": 16, "label_names": []}
    assert (model.sampler.num_steps, model.guidance.scale, config["guidance_scale"]) == (50, 5.0, 5.0)
    assert config["diffusion"]["time_shift"]["shift"] == 3.0
    assert config["text_encoder"]["max_tokens"] == model.network.num_text_tokens == 512
    expected = opened(published).transformer.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.network.state_dict().items())


def test_imported_exported_and_imported_again_is_the_same(
    published: Path, kept: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    assert run_vdm("import", f"from={kept / 'given'}", "to=again")[0] == 0

    first, again = load_weights(kept / "run"), load_weights(tmp_path / "again")
    original, given = load_file(published / NETWORK), load_file(kept / "given" / NETWORK)
    assert first.keys() == again.keys() == {f"model.network.{name}" for name in original}
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert all(torch.equal(given[name], tensor) for name, tensor in original.items())
    for component in ("transformer/config.json", "scheduler/scheduler_config.json"):
        before, after = (json.loads((folder / component).read_text()) for folder in (published, kept / "given"))
        assert {k: v for k, v in after.items() if k in before} == {k: v for k, v in before.items() if k in after}
    assert (kept / "given" / "LICENSE.txt").read_text() == LICENCE
    card = (kept / "given" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\npipeline_tag: text-to-video\nlicense: apache-2.0\n")


def test_pipelines_for_a_first_frame_keep_their_size_and_their_settings(run_vdm: RunVdm, tmp_path: Path) -> None:
    save_pipeline(tmp_path / "published", expand_timesteps=True)
    assert run_vdm("import", "from=published", "to=run")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0

    assert load_config(tmp_path / "run")["clip"]["num_frames"] == 121
    assert json.loads((tmp_path / "given" / "model_index.json").read_text())["expand_timesteps"] is True


def test_diffusers_opens_and_runs_what_is_exported(published: Path, kept: Path) -> None:
    assert torch.equal(latents_of_diffusers(kept / "given", 2), latents_of_diffusers(published, 2))


def test_bfloat16_and_shards_go_in_and_out(published: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    half = opened(published, torch.bfloat16)
    half.save_pretrained(tmp_path / "half", variant="bf16", max_shard_size="20KB")
    assert run_vdm("import", "from=half", "to=run")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0

    given, expected = load_file(tmp_path / "given" / NETWORK), half.transformer.state_dict()
    assert {tensor.dtype for tensor in given.values()} == {torch.bfloat16, torch.float32}
    assert all(tensor.dtype == expected[name].dtype for name, tensor in given.items())
    assert all(torch.equal(given[name], tensor) for name, tensor in expected.items())
    assert opened(tmp_path / "given", torch.bfloat16).transformer.dtype == torch.bfloat16


def test_an_imported_run_makes_videos_of_4k_and_1_frames(kept: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    shutil.copytree(kept / "run", tmp_path / "run")
    wishes = ("checkpoint=run", 'prompts=["a dog","a cat"]', "height=16", "width=24", "sampler.num_steps=2")
    code, err = run_vdm("sample", *wishes, "num_frames=6")
    assert (code, err.strip()) == (2, "num_frames=6: the autoencoder takes 4k + 1 frames: 5 or 9")
    code, err = run_vdm("sample", *wishes, "num_frames=5")

    assert code == 0, err
    assert len(list((tmp_path / "run" / "samples" / "0000").glob("0*.mp4"))) == 2


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def other_shapes(folder: Path) -> None:
    weights = load_file(folder / NETWORK)
    save_file({**weights, "proj_out.bias": torch.zeros(3)}, folder / NETWORK)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: shutil.rmtree(f / "tokenizer"), "x: the component tokenizer is missing"),
    (lambda f: (f / "transformer/config.json").unlink(), "x/transformer/config.json: no such file"),
    (other_shapes, "x/transformer: proj_out.bias has shape [3], but the model's has [16]"),
    (lambda f: (f / NETWORK).rename(f / "transformer/diffusion_pytorch_model.bin"), "x/transformer/diffusion_pytorch"),
    (
        lambda f: change_json(f / "text_encoder/config.json", d_model=32),
        "x/text_encoder/config.json: d_model is 32, but the network needs 16",
    ),
    (lambda f: change_json(f / "vae/config.json", z_dim=16), "x/vae/config.json: z_dim is 16, but the network needs 4"),
    (
        lambda f: change_json(f / "transformer/config.json", _class_name="UNet3DConditionModel"),
        "x/transformer/config.json: holds a UNet3DConditionModel, not a WanTransformer3DModel",
    ),
    (
        lambda f: change_json(f / "transformer/config.json", image_dim=20),
        "x/transformer/config.json: image_dim=20, added_kv_proj_dim=None: needs both or neither, the latter 24",
    ),
    (
        lambda f: change_json(f / "transformer/config.json", num_attention_heads=10**6),
        "x/transformer/config.json: num_attention_heads=1000000 is not allowed",
    ),
    (lambda f: change_json(f / "transformer/config.json", qk_norm="layer"), "x/transformer/config.json: qk_norm="),
    (
        lambda f: change_json(f / "scheduler/scheduler_config.json", prediction_type="epsilon"),
        "x/scheduler/scheduler_config.json: prediction_type=",
    ),
    (
        lambda f: change_json(f / "scheduler/scheduler_config.json", _class_name="DDIMScheduler"),
        "x/scheduler/scheduler_config.json: _class_name=DDIMScheduler: must be UniPCMultistepScheduler, DPMSolverMult",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_folders_are_refused_with_the_reason(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses_damaged(open_folder, published, damage, message)


def test_published_weights_are_tuned_and_given_back(
    published: Path, run_vdm: RunVdm, tmp_path: Path, shards: Path
) -> None:
    small = ("data.micro_batch_size=2", "data.global_batch_size=2", "data.num_workers=0", "trainer.max_steps=2")
    quick = ("logger=csv", "callbacks.samples=null", "trainer.accelerator=cpu", "optimizer.lr=1e-3")
    wishes = (f"model.pretrained={published}", f"data.path={shards}", *small, *quick, "lr_schedule.warmup_steps=1")
    code, err = run_vdm("train", "experiment=wan_finetune", *wishes, "hydra.run.dir=run")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=given", "ema=false")[0] == 0

    before, after = load_file(published / NETWORK), load_file(tmp_path / "given" / NETWORK)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"patch_embedding.weight", "scale_shift_table", "blocks.1.attn2.to_k.weight"} <= changed
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run", ema=False)
    model.sampler = replace(model.sampler, num_steps=2)
    expected = latents_of_diffusers(tmp_path / "given", 2)
    torch.testing.assert_close(model.sample(NOISE, CAPTIONS), expected, rtol=1e-4, atol=1e-4)


def test_a_lora_loads_in_diffusers_and_leaves_the_base_as_it_was(
    published: Path, run_vdm: RunVdm, tmp_path: Path, shards: Path
) -> None:
    small = ("data.micro_batch_size=2", "data.global_batch_size=2", "data.num_workers=0", "trainer.max_steps=2")
    quick = ("logger=csv", "callbacks.samples=null", "trainer.accelerator=cpu", "optimizer.lr=1e-2", "tune.rank=4")
    wishes = (f"model.pretrained={published}", f"data.path={shards}", *small, *quick, "lr_schedule.warmup_steps=1")
    code, err = run_vdm("train", "experiment=wan_finetune", "tune=lora", *wishes, "hydra.run.dir=run")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=lora", "lora=true", "ema=false")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=merged", "ema=false")[0] == 0

    before, merged = load_file(published / NETWORK), load_file(tmp_path / "merged" / NETWORK)
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    assert changed
    assert all(re.search(r"\.attn[12]\.to_(q|k|v|out\.0)\.weight$", name) for name in changed)
    adapted = opened(published)
    adapted.load_lora_weights(tmp_path / "lora")
    xt, t, text = torch.randn(1, 4, 3, 4, 6), torch.tensor([500.0]), torch.randn(1, 512, 16)
    with torch.no_grad():
        outputs = [net(xt, t, text).sample for net in (adapted.transformer, opened(tmp_path / "merged").transformer)]
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"vector_conditioned": True, "vector_channels": 8},
            r"model\.network: Wan's pipelines have no network with .*; format=own has",
        ),
        ({"frame_embedding": True}, r"model\.network: Wan's pipelines have no network with .*; format=own has"),
        ({"num_text_tokens": 0}, r"model\.network: Wan's pipelines have no network with .*; format=own has"),
        (
            {"image_conditioned": True},
            r"model\.network\.image_channels=5: Wan's pipelines have 8; format=own has any",
        ),
    ],
)
def test_networks_that_diffusers_lacks_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        network_config(our_transformer(SIZES, **options))
