"""LoRA of Wan with an alpha: trained, given to diffusers and ComfyUI, and trained further from a file."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file

from tests.cli.calling import call_vdm
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.dit.peers import Inputs
from tests.models.dit.pipelines import SIZES, save_pipeline
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights, saved_weights

INPUTS = Inputs.random(SIZES, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published pipeline, a run that adapted it, and all that is exported from that."""
    folder = tmp_path_factory.mktemp("lora")
    save_pipeline(folder / "published")
    write_set(folder / "shards", {"train": (5, 6), "validation": (5,)}, shapes=((5, 16, 32),))
    call_vdm(
        "train", *options(folder), f"hydra.run.dir={folder / 'run'}", "tune=lora_all", "tune.rank=3", "tune.alpha=7"
    )
    for name, form in (("diffusers", ["lora=diffusers"]), ("comfyui", ["lora=comfyui"]), ("merged", [])):
        call_vdm("export", f"checkpoint={folder / 'run'}", f"to={folder / name}", "ema=false", *form)
    return folder


def options(folder: Path, max_steps: int = 2) -> list[str]:
    small = [
        "data.micro_batch_size=2",
        "data.global_batch_size=2",
        "data.num_workers=0",
        f"trainer.max_steps={max_steps}",
    ]
    quick = ["logger=csv", "callbacks.samples=null", "trainer.accelerator=cpu", "lr_schedule.warmup_steps=1"]
    places = [f"model.pretrained={folder / 'published'}", f"data.path={folder / 'shards'}"]
    return ["experiment=wan_finetune", *places, *small, *quick, "optimizer.lr=1e-2"]


def output(folder: Path, lora: Path | None = None) -> torch.Tensor:
    pipeline = WanPipeline.from_pretrained(folder)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    with torch.no_grad():
        return INPUTS.of_diffusers(pipeline.transformer, SIZES.num_text_tokens)


@pytest.mark.parametrize("file", ["diffusers", "comfyui/comfyui.safetensors"])
def test_both_forms_load_in_diffusers_with_the_outputs_of_merged_weights(folder: Path, file: str) -> None:
    merged = output(folder / "merged")
    assert not torch.allclose(merged, output(folder / "published"), atol=1e-3)
    torch.testing.assert_close(output(folder / "published", folder / file), merged, rtol=1e-6, atol=1e-6)


def test_alpha_is_recorded_in_every_form(folder: Path) -> None:
    assert json.loads((folder / "diffusers" / "adapter_config.json").read_text())["lora_alpha"] == 7
    tensors = load_file(folder / "comfyui" / "comfyui.safetensors")
    assert {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} == {7.0}
    named = {name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")}
    parts = [f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in "qkvo"]
    assert named == {f"diffusion_model.blocks.{i}.{part}" for i in (0, 1) for part in (*parts, "ffn.0", "ffn.2")}
    assert "diffusion_model.head.head.lora_A.weight" in tensors
    assert "comfyui.safetensors" in (folder / "comfyui" / "README.md").read_text()


def test_training_goes_on_from_a_file_and_resumes_without_it(folder: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    file = shutil.copy(folder / "comfyui" / "comfyui.safetensors", tmp_path / "mine.safetensors")
    further = [f"tune.file={file}", "tune=lora", "hydra.run.dir=on", "training.condition_dropout.text=0"]
    code, err = run_vdm("train", *options(folder, 1), *further, "optimizer.lr=1e-9")
    assert code == 0, err
    assert run_vdm("export", "checkpoint=on", "to=same", "ema=false")[0] == 0
    torch.testing.assert_close(output(tmp_path / "same"), output(folder / "merged"), rtol=1e-5, atol=1e-5)

    tune = load_config(tmp_path / "on")["tune"]
    assert (tune["rank"], tune["alpha"]) == (3, pytest.approx(7.0))
    Path(file).unlink()
    code, err = run_vdm("train", "resume=on", "trainer.max_steps=2")
    assert code == 0, err
    before, after = saved_weights(folder / "run", ema=False), saved_weights(tmp_path / "on", ema=False)
    assert {name for name in after if "lora_" in name} == {name for name in before if "lora_" in name}
    base = load_file(folder / "published" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(after[f"model.network.{name}"], tensor) for name, tensor in base.items() if "norm" in name)
    assert not any("lora_" in name for name in load_weights(tmp_path / "on"))


def test_mistakes_are_one_line(folder: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={folder / 'run'}"
    assert run_vdm("import", f"from={folder / 'published'}", "to=plain")[0] == 0
    for arguments, message in (
        (("export", checkpoint, "to=x", "lora=kohya"), "lora=kohya: must be true, false, diffusers or comfyui"),
        (("export", checkpoint, "to=x.safetensors", "lora=comfyui"), "to=x.safetensors: must be a folder"),
        (("export", "checkpoint=plain", "to=x", "lora=comfyui"), "lora=comfyui: the run has no LoRA (tune=lora)"),
        (("export", checkpoint, "to=x", "lora=comfyui", "format=own"), "lora=comfyui: ComfyUI knows no LoRA for this"),
        (
            ("train", *options(folder), "tune=lora", "tune.file=none.safetensors", "hydra.run.dir=x"),
            "tune: none.safetensors: no such file",
        ),
        (
            ("plan", *options(folder), "tune=lora", f"tune.file={folder / 'published'}", "memory_gib=80"),
            f"tune: {folder / 'published'}: holds no LoRA; it is a pipeline of diffusers",
        ),
    ):
        code, err = run_vdm(*arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith(message), err
