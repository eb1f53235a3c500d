"""Pipelines with two networks, as Wan 2.2 A14B: imported, sampled, tuned and exported, on small models of diffusers."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file

from tests.cli.calling import frames_of, import_and_export, refuses_damaged
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.dit.pipelines import save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.models.pretrained.wan import open_folder
from vdm.randomness import normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's, in diffusers

FOLDERS = {"high_noise": "transformer", "low_noise": "transformer_2"}
CAPTIONS = ["a red dog runs", "cat"]
NOISE = normal(0, "noise", range(2), (4, 3, 4, 8))  # 9 frames of 16x32 pixels
SMALL = ("data.micro_batch_size=2", "data.global_batch_size=2", "data.num_workers=0", "logger=csv")
QUICK = ("callbacks.samples=null", "trainer.accelerator=cpu", "optimizer.lr=1e-2", "trainer.max_steps=4")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("published") / "pipeline", boundary=0.875)


@pytest.fixture(scope="module")
def kept(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is imported from there, ``run``, and what is exported from that, ``given``."""
    return import_and_export(published, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5, 6), "validation": (5,)}, shapes=((5, 16, 32),))


def networks(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of both networks of a pipeline's folder."""
    return {
        expert: load_file(folder / name / "diffusion_pytorch_model.safetensors") for expert, name in FOLDERS.items()
    }


def opened(folder: Path) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of_diffusers(folder: Path, steps: int, scale: float = 4.0, low_scale: float | None = 3.0) -> torch.Tensor:
    return opened(folder)(
        CAPTIONS,
        negative_prompt=[""] * len(CAPTIONS),
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=scale,
        guidance_scale_2=low_scale,
        latents=NOISE,
        output_type="latent",
        max_sequence_length=512,
    ).frames


@pytest.mark.parametrize(
    ("options", "low_scale"),
    [({"boundary": 0.875}, 3.0), ({"boundary": 0.9, "kind": "euler", "shift": 5.0}, 1.5), ({"boundary": 0.5}, None)],
    ids=["A14B", "Euler", "one scale"],
)
def test_sampled_latents_equal_those_of_diffusers(
    options: dict[str, Any], low_scale: float | None, run_vdm: RunVdm, tmp_path: Path
) -> None:
    folder = save_pipeline(tmp_path / "published", **options)
    assert run_vdm("import", f"from={folder}", "to=run")[0] == 0
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run")
    model.sampler = replace(model.sampler, num_steps=8)
    model.guidance = replace(model.guidance, scale=4.0, low_noise_scale=low_scale)

    calls = dict.fromkeys(FOLDERS, 0)
    for expert in calls:

        def count(*args: object, expert: str = expert) -> None:
            calls[expert] += 1

        model.network.get_submodule(expert).register_forward_pre_hook(count)
    latents = model.sample(NOISE, CAPTIONS)

    expected = latents_of_diffusers(folder, 8, low_scale=low_scale)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert min(calls.values()) > 0
    assert sum(calls.values()) == 2 * 8


def test_guidance_of_each_expert_is_set_from_the_command_line(kept: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    shutil.copytree(kept / "run", tmp_path / "run")
    wishes = ("checkpoint=run", 'prompts=["a dog"]', "num_frames=5", "height=16", "width=24", "sampler.num_steps=2")
    code, err = run_vdm("sample", *wishes, "guidance_scale=4", "guidance.low_noise_scale=3")
    assert code == 0, err
    settings = json.loads((tmp_path / "run/samples/0000/settings.json").read_text())
    assert (settings["options"]["guidance"]["scale"], settings["options"]["guidance"]["low_noise_scale"]) == (4, 3)
    again = ("settings=run/samples/0000/settings.json", "offload_idle_expert=true", "output=again")
    code, err = run_vdm("sample", *again)
    assert code == 0, err
    videos = (tmp_path / "run/samples/0000/0000-a-dog.mp4", tmp_path / "again/0000-a-dog.mp4")
    assert np.array_equal(*map(frames_of, videos))


def test_both_networks_go_in_and_out_bit_for_bit(published: Path, kept: Path) -> None:
    network = load_config(kept / "run")["model"]["network"]
    assert (network["boundary"], network["low_noise"]["num_layers"]) == (0.875, 2)
    before, after = networks(published), networks(kept / "given")
    for expert in FOLDERS:
        assert before[expert].keys() == after[expert].keys()
        assert all(torch.equal(after[expert][name], tensor) for name, tensor in before[expert].items())
    assert not torch.equal(before["high_noise"]["proj_out.weight"], before["low_noise"]["proj_out.weight"])
    index = json.loads((kept / "given" / "model_index.json").read_text())
    assert (index["boundary_ratio"], index["transformer_2"]) == (0.875, ["diffusers", "WanTransformer3DModel"])


def test_diffusers_opens_and_runs_what_is_exported(published: Path, kept: Path) -> None:
    assert torch.equal(latents_of_diffusers(kept / "given", 4), latents_of_diffusers(published, 4))


def test_a_single_file_for_two_networks_is_refused(kept: Path, run_vdm: RunVdm) -> None:
    code, err = run_vdm("export", f"checkpoint={kept / 'run'}", "to=both.safetensors")
    assert (code, err.strip().count("\n")) == (2, 0)
    assert "the network consists of two experts, and Wan's files hold one: export to a folder" in err


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda f: change_json(f / "model_index.json", boundary_ratio=None),
        "x/model_index.json: boundary_ratio=None, but transformer_2=['diffusers', 'WanTransformer3DModel']: needs both",
    ),
    (
        lambda f: change_json(f / "model_index.json", transformer_2=[None, None]),
        "x/model_index.json: boundary_ratio=0.875, but transformer_2=[None, None]: needs both or neither",
    ),
    (lambda f: change_json(f / "model_index.json", boundary_ratio=875), "x/model_index.json: boundary_ratio=875"),
    (lambda f: change_json(f / "model_index.json", boundary_ratio=0), "x/model_index.json: boundary_ratio=0"),
    (lambda f: shutil.rmtree(f / "transformer_2"), "x/transformer_2/config.json: no such file"),
    (
        lambda f: change_json(f / "transformer_2/config.json", num_layers=3),
        "x/transformer_2/config.json: num_layers is 3, but the other network's is 2",
    ),
    (
        lambda f: (f / "transformer_2/diffusion_pytorch_model.safetensors").write_bytes(b"cut"),
        "x/transformer_2/diffusion_pytorch_model.safetensors: not a whole safetensors file",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_folders_are_refused_with_the_reason(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses_damaged(open_folder, published, damage, message)


def test_only_the_chosen_expert_is_tuned(published: Path, run_vdm: RunVdm, tmp_path: Path, shards: Path) -> None:
    wishes = ("experiment=wan_finetune", f"model.pretrained={published}", f"data.path={shards}", *SMALL, *QUICK)
    code, err = run_vdm("train", *wishes, "experts=low", "hydra.run.dir=run")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=given", "ema=false")[0] == 0

    before, after = networks(published), networks(tmp_path / "given")
    for expert in FOLDERS:
        changed = {name for name, tensor in before[expert].items() if not torch.equal(tensor, after[expert][name])}
        assert bool(changed) == (expert == "low_noise")


def test_lora_of_each_expert_is_a_file_that_diffusers_loads(
    published: Path, run_vdm: RunVdm, tmp_path: Path, shards: Path
) -> None:
    wishes = ("experiment=wan_finetune", f"model.pretrained={published}", f"data.path={shards}", *SMALL, *QUICK)
    code, err = run_vdm(
        "train", *wishes, "tune=lora", "tune.rank=4", "hydra.run.dir=run", "diffusion.time_shift.shift=9"
    )
    assert code == 0, err
    assert run_vdm("export", "checkpoint=run", "to=lora", "lora=true", "ema=false")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=merged", "ema=false")[0] == 0

    assert run_vdm("export", "checkpoint=run", "to=mine", "lora=comfyui", "ema=false")[0] == 0
    adapted, merged = opened(published), opened(tmp_path / "merged")
    of_comfyui = opened(published)
    of_comfyui.load_lora_weights(tmp_path / "mine", weight_name="mine_high_noise.safetensors")
    of_comfyui.load_lora_weights(
        tmp_path / "mine", weight_name="mine_low_noise.safetensors", load_into_transformer_2=True
    )
    names = {expert: f"pytorch_lora_weights_{expert}.safetensors" for expert in FOLDERS}
    adapted.load_lora_weights(tmp_path / "lora", weight_name=names["high_noise"])
    adapted.load_lora_weights(tmp_path / "lora", weight_name=names["low_noise"], load_into_transformer_2=True)
    xt, t, text = torch.randn(1, 4, 3, 4, 6), torch.tensor([500.0]), torch.randn(1, 512, 16)
    with torch.no_grad():
        for name in FOLDERS.values():
            outputs = [getattr(one, name)(xt, t, text).sample for one in (merged, adapted, of_comfyui)]
            torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-6, atol=1e-6)
            assert not torch.equal(outputs[0], getattr(opened(published), name)(xt, t, text).sample)
