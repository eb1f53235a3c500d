"""``vdm import`` and ``vdm export``, on small models that diffusers saved.

Longer than other files: most tests go through both commands, since each is the test of the other.
"""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.assembly.small_model import save_run, small_model
from tests.cli.calling import import_and_export
from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.svd.peers import our_unet
from tests.models.svd.pipelines import LICENCE, NUM_FRAMES, SIZES, pipeline, save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights
from vdm.cli import sample
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.config.quoting import shell_override
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.euler import Euler
from vdm.models.pretrained.stability import stability_names
from vdm.models.svd.conditioner import MicroConditioning


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_pipeline(tmp_path_factory.mktemp("published"))
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: svd-community\ntags: [x]\n---\n# SVD\n")
    return folder


@pytest.fixture(scope="module")
def kept(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is imported from there, ``run``, and what is exported from that, ``given``."""
    return import_and_export(published, tmp_path_factory.mktemp("kept"))


CLIP = {"num_frames": 2, "height": 8, "width": 8, "fps": 8, "label_names": []}


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def stability_file(path: Path) -> Path:
    names = stability_names(our_unet(SIZES))
    rest = {"first_stage_model.decoder.conv_in.bias": torch.ones(3), "conditioner.x": torch.zeros(2, dtype=torch.half)}
    save_file({**rest, **{names[name]: tensor for name, tensor in pipeline().unet.state_dict().items()}}, path)
    return path


def test_imported_exported_and_imported_again_is_the_same(
    published: Path, kept: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    assert run_vdm("import", f"from={kept / 'given'}", "to=again")[0] == 0

    first, again = load_weights(kept / "run"), load_weights(tmp_path / "again")
    original, given = unet_of(published), unet_of(kept / "given")
    assert first.keys() == again.keys() == {f"model.network.{name}" for name in original}
    assert all(torch.equal(first[f"model.network.{name}"], tensor) for name, tensor in original.items())
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert all(torch.equal(given[name], tensor) for name, tensor in original.items())
    assert (kept / "given" / "LICENSE.md").read_text() == LICENCE
    card = (kept / "given" / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: diffusers\npipeline_tag: image-to-video\nlicense: other\nlicense_name: svd-c"
    )
    assert "published model, whose licence goes on to hold" in card


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
def test_diffusers_opens_and_runs_what_is_exported(published: Path, kept: Path) -> None:
    def made(folder: Path) -> torch.Tensor:
        opened = StableVideoDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
        opened.set_progress_bar_config(disable=True)
        image = Image.new("RGB", (16, 16), (200, 30, 90))
        options = {"height": 16, "width": 16, "num_frames": None, "num_inference_steps": 2, "output_type": "pt"}
        return opened(image, generator=torch.Generator().manual_seed(0), **options).frames

    video = made(kept / "given")
    assert video.shape == (1, NUM_FRAMES, 3, 16, 16)
    assert torch.equal(video, made(published))


def test_an_imported_run_is_a_whole_model_with_its_own_defaults(
    published: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    run_vdm("import", f"from={published}", "to=run", "clip.height=16", "clip.width=24")
    model, config = VideoDiffusionModel.from_checkpoint(tmp_path / "run"), load_config(tmp_path / "run")

    assert config["clip"] == {"num_frames": NUM_FRAMES, "height": 16, "width": 24, "fps": 7, "label_names": []}
    assert model.sampler.num_steps == 25
    assert (model.guidance.first_scale, model.guidance.scale) == (1.0, 3.0)
    levels = [point.sigma for point in model.sampler.grid(model.diffusion.schedule)]
    assert (levels[0], levels[-2], levels[-1]) == (pytest.approx(700), pytest.approx(0.002), 0)
    expected = pipeline().unet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.network.state_dict().items())


def test_single_files_go_in_and_out_with_no_tensor_lost(published: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    file = stability_file(tmp_path / "svd_xt.safetensors")
    assert run_vdm("import", f"from={file}", "to=run", f"components={published}")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=out/tuned.safetensors", f"rest_of={file}")[0] == 0

    before, after = load_file(file), load_file(tmp_path / "out" / "tuned.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert load_config(tmp_path / "run")["clip"]["num_frames"] == 25
    assert VideoDiffusionModel.from_checkpoint(tmp_path / "run").encoder.channels == 4


def given(**options: str | None) -> list[str]:
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def printed_usage(folder: Path, said: str) -> str:
    """Return what was printed to be typed, which the model card has too."""
    usage = said.partition(". Use them by:\n\n")[2].strip()
    assert f"```\n{usage}\n```" in (folder / "README.md").read_text()
    return usage


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize(("variant", "dtype"), [("fp16", None), ("fp16", "fp32"), (None, "bf16"), (None, None)])
def test_printed_snippet_runs_as_it_is_and_opens_a_pipeline_of_one_precision(
    run_vdm: RunVdm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variant: str | None,
    dtype: str | None,
) -> None:
    """Of what half of the weights are in half precision, whichever the network was given away in."""
    parts = pipeline().to(torch.float16) if variant else pipeline()
    parts.save_pretrained(tmp_path / "base", variant=variant)
    assert run_vdm("import", "from=base", "to=run", *given(variant=variant))[0] == 0
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["vdm", "export", "checkpoint=run", "to=my given", *given(dtype=dtype)])
    assert run_program("vdm", COMMANDS) == 0

    space: dict[str, Any] = {}
    exec(printed_usage(tmp_path / "my given", capfd.readouterr().out), space)
    opened = space["pipeline"]
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, None: torch.float16 if variant else torch.float32}[dtype]
    assert {opened.unet.dtype, opened.vae.dtype, opened.image_encoder.dtype} == {wanted}
    opened.set_progress_bar_config(disable=True)
    options = {"height": 16, "width": 16, "num_inference_steps": 1, "output_type": "pt"}
    assert torch.isfinite(opened(Image.new("RGB", (16, 16)), **options).frames).all()


@pytest.mark.parametrize("name", ["given", 'it\'s "mine"'])
def test_printed_commands_make_a_run_of_an_own_export_and_sample(
    run_vdm: RunVdm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    save_run(tmp_path / "trained", small_model(), clip=CLIP, guidance_scale=1.0)
    capfd.readouterr()
    to = shell_override("to", name)
    monkeypatch.setattr(sys, "argv", ["vdm", "export", "checkpoint=trained", *shlex.split(to)])
    assert run_program("vdm", COMMANDS) == 0
    for line in printed_usage(tmp_path / name, capfd.readouterr().out).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "vdm"
        code, err = run_vdm(*arguments)
        assert code == 0, err
    assert list((tmp_path / "runs" / name / "samples").rglob("*.mp4"))


def test_half_precision_goes_in_and_out(published: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    half = pipeline().to(torch.float16)
    half.save_pretrained(tmp_path / "half", variant="fp16")
    assert run_vdm("import", "from=half", "to=run", "variant=fp16")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=wide", "dtype=fp32")[0] == 0

    wanted, given = half.unet.state_dict(), unet_of(tmp_path / "given")
    assert all(torch.equal(given[name], tensor) for name, tensor in wanted.items())
    assert {tensor.dtype for tensor in unet_of(tmp_path / "wide").values()} == {torch.float32}
    StableVideoDiffusionPipeline.from_pretrained(tmp_path / "given", low_cpu_mem_usage=False)
    assert VideoDiffusionModel.from_checkpoint(tmp_path / "run").network.conv_in.weight.dtype == torch.float32


def test_a_model_of_this_project_goes_out_with_a_card_and_in_again(run_vdm: RunVdm, tmp_path: Path) -> None:
    model = small_model()
    averages = {name: weight + 1 for name, weight in model.named_parameters()}
    run = save_run(tmp_path / "trained", model, averages)
    (run / "evaluation").mkdir()
    (run / "evaluation" / "results.json").write_text(json.dumps({"held_out_loss": 0.25, "options": {"a": 1}}))
    assert run_vdm("export", "checkpoint=trained", "to=given")[0] == 0
    assert run_vdm("import", "from=given", "to=again")[0] == 0

    again = VideoDiffusionModel.from_checkpoint(tmp_path / "again")
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in averages.items())
    card = (tmp_path / "given" / "README.md").read_text()
    assert "| held_out_loss | 0.25 |" in card
    assert "_target_: vdm.models.space_time_unet.SpaceTimeUNet" in card
    assert "vdm import from=given" in card


def test_what_is_exported_in_this_projects_format_is_sampled_after_its_import(run_vdm: RunVdm, tmp_path: Path) -> None:
    clip = {"num_frames": 2, "height": 8, "width": 8, "fps": 8, "label_names": []}
    data = {"path": "data/clips", "global_batch_size": 4}
    model = small_model()
    run = save_run(tmp_path / "trained", model, clip=clip, data=data, guidance_scale=2.0)
    (run / "evaluation").mkdir()
    results = {"checkpoint": "trained", "options": {"num_levels": 3}, "fvd": {"value": 12.5}, "held_out_loss": 0.25}
    (run / "evaluation" / "results.json").write_text(json.dumps(results))
    assert run_vdm("export", "checkpoint=trained", "to=given", "ema=false")[0] == 0
    assert run_vdm("import", "from=given", "to=again")[0] == 0
    code, err = run_vdm("sample", "checkpoint=again", 'prompts=["a"]', "sampler.num_steps=2")
    assert code == 0, err

    first, again = load_weights(tmp_path / "trained"), load_weights(tmp_path / "again")
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    trained, imported = (RunConfig.read(tmp_path / name).plain() for name in ("trained", "again"))
    assert trained == imported
    card = (tmp_path / "given" / "README.md").read_text()
    count = sum(tensor.numel() for tensor in first.values())
    for line in (
        "| set | data/clips |",
        "| clip num_frames | 2 |",
        "| optimizer steps | 7 |",
        "| clips trained on | 28 |",
    ):
        assert line in card
    for line in (
        f"| weights | {count} |",
        "| averaged over training | no |",
        "| fvd.value | 12.5 |",
        "  num_levels: 3",
    ):
        assert line in card


def test_damaged_exports_of_this_project_are_one_line(run_vdm: RunVdm, tmp_path: Path) -> None:
    save_run(tmp_path / "trained", small_model())
    assert run_vdm("export", "checkpoint=trained", "to=given")[0] == 0
    file = tmp_path / "given" / "model.safetensors"
    whole = file.read_bytes()

    file.write_bytes(whole[:-100])
    code, err = run_vdm("import", "from=given", "to=r")
    assert (code, err.split(": ")[:2]) == (2, ["given/model.safetensors", "not a whole safetensors file"])
    file.write_bytes(whole)
    weights = load_file(file)
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(1, 2, 3)}, file)
    code, err = run_vdm("import", "from=given", "to=r")
    assert code == 2
    different = f"{name.removeprefix('model.')} has shape [1, 2, 3], but "
    assert err.startswith(f"from=given: weights of another model: {different}")
    config = tmp_path / "given" / "config.yaml"
    config.write_text(config.read_text().replace("vdm.models.autoencoder.PixelAutoencoder", "os.system"))
    assert run_vdm("import", "from=given", "to=r")[1].startswith("encoder._target_: 'os.system' is not allowed")
    assert not (tmp_path / "r").exists()


def test_an_imported_run_makes_videos_of_a_picture(
    published: Path, run_vdm: RunVdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_vdm("import", f"from={published}", "to=run", "clip.height=16", "clip.width=24")
    Image.new("RGB", (50, 40), (200, 30, 90)).save(tmp_path / "picture.png")
    models: list[VideoDiffusionModel] = []
    generate = sample.generate

    def generate_noting(model: VideoDiffusionModel, *arguments: Any, **more: Any) -> torch.Tensor:
        models.append(model)
        return generate(model, *arguments, **more)

    monkeypatch.setattr(sample, "generate", generate_noting)
    wishes = ("num_frames=3", "fps=12", "motion_bucket_id=200", "noise_aug_strength=0.1", "num_videos=2")
    family = ("model=svd", "checkpoint=run", "image=picture.png")
    code, err = run_vdm("sample", *family, *wishes, "sampler.num_steps=2")

    assert code == 0, err
    assert len(list((tmp_path / "run" / "samples" / "0000").glob("0*.mp4"))) == 2
    assert models[0].conditioner.options == MicroConditioning(12, 200, 0.1)
    assert isinstance(models[0].sampler, Euler), "the run's own, not the default of vdm sample"
    assert models[0].sampler.num_steps == 2
    assert (models[0].guidance.first_scale, models[0].guidance.scale) == (1.0, 3.0)

    code, err = run_vdm("sample", *family, "num_frames=2", "sampler=ddim", "sampler.num_steps=1", "guidance_scale=2")
    assert code == 0, err
    assert isinstance(models[1].sampler, DDIM)
    assert models[1].guidance.scale == 2

    code, err = run_vdm("sample", "settings=run/samples/0000/settings.json")
    assert code == 0, err
    assert models[2].conditioner.options == MicroConditioning(12, 200, 0.1)
    grids = [(tmp_path / folder / "samples" / "0000" / "grid.png").read_bytes() for folder in ("run", ".")]
    assert grids[0] == grids[1]
    for wrong, message in (
        ("noise_aug_strength=-1", "noise_aug_strength=-1: must be a number, at least 0"),
        ("motion_bucket_id=256", "motion_bucket_id=256: must be a number, at least 0 and at most 255, or null"),
        ("fps=0.5", "fps=0.5: must be a number, at least 1"),
        (
            "motion_bucket=3",
            "motion_bucket: the model of run has no such option: did you mean 'motion_bucket_id'?; it has: ",
        ),
        ("sampler.eta=1", "sampler.eta: unknown key"),
        ("model=unet_tiny", "model: the checkpoint's network is a vdm.models.svd.unet.SVDUNet, not a vdm.models.space"),
    ):
        code, err = run_vdm("sample", "checkpoint=run", "image=picture.png", wrong)
        assert code == 2
        assert err.splitlines()[-1].startswith(message)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what can't be imported or exported."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "other").mkdir()
    (folder / "other" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "partial" / "unet").mkdir(parents=True)
    (folder / "partial" / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    (folder / "pickle.ckpt").write_bytes(b"\x80\x02")
    file = stability_file(folder / "svd.safetensors")
    (folder / "cut.safetensors").write_bytes(file.read_bytes()[:-100])
    few = load_file(file)
    del few["model.diffusion_model.out.2.bias"]
    save_file(few, folder / "few.safetensors")
    save_run(folder / "own", small_model())
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["import", "from=nowhere", "to=r"],
            "nowhere: no such folder or file, nor a name on the hub, which is OWNER/MODEL",
        ),
        (
            ["import", "from=other", "to=r"],
            "other: holds a StableDiffusionPipeline, not a StableVideoDiffusionPipeline",
        ),
        (["import", "from=partial", "to=r"], "partial: the component vae is missing"),
        (
            ["import", "from=pickle.ckpt", "to=r", "components=PUB"],
            "pickle.ckpt: not a safetensors file; a pickle (.ckpt",
        ),
        (
            ["import", "from=cut.safetensors", "to=r", "components=PUB"],
            "cut.safetensors: not a whole safetensors file: ",
        ),
        (["import", "from=svd.safetensors", "to=r"], "components: svd.safetensors is opened for its network; give the"),
        (["import", "from=few.safetensors", "to=r", "components=PUB"], "few.safetensors: conv_out.bias is missing"),
        (["import", "from=PUB", "to=r", "variant=fp16"], "variant=fp16: PUB/unet holds null"),
        (["import", "from=PUB", "to=PUB"], "to=PUB: exists already"),
        (["export", "checkpoint=own", "to=x.safetensors"], "to=x.safetensors: only Stable Video Diffusion and Wan"),
        (["export", "checkpoint=own", "to=x", "dtype=int8"], "dtype=int8: no such choice: (allowed: bf16, fp16, fp32)"),
        (["export", "checkpoint=nowhere", "to=x"], "nowhere: not a run: there is no config.yaml, nor such a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    published: Path, damaged: Path, run_vdm: RunVdm, tmp_path: Path, arguments: list[str], message: str
) -> None:
    for path in damaged.iterdir():
        (tmp_path / path.name).symlink_to(path)

    code, err = run_vdm(*(argument.replace("PUB", str(published)) for argument in arguments))
    assert code == 2
    lines = err.strip().splitlines()
    assert lines[-1].startswith(message.replace("PUB", str(published)))
    assert len(lines) == 1
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "x").exists()


def test_imported_run_is_evaluated_on_a_set_that_is_given(kept: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    write_set(tmp_path / "shards", {"train": (2,), "validation": (2,)})
    shutil.copytree(kept / "run", tmp_path / "run")
    code, said = run_vdm("evaluate", "checkpoint=run")
    assert (code, said) == (2, "data_path: no value given; the run was imported, and has no data of its own\n")
    code, said = run_vdm("evaluate", "checkpoint=run", "data_path=shards", "num_levels=1", "batch_size=1")
    assert code == 0, said
    assert json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())["num_held_out_clips"] == 2


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_run_from_elsewhere_can_not_have_code_run_by_an_interpolation(
    kept: Path, run_vdm: RunVdm, tmp_path: Path, command: str
) -> None:
    shutil.copytree(kept / "run", tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(config, dict)
    config["sampler"]["spacing"] = "${oc.create:{_target_:os.mkdir,path:made}}"
    file.write_text(OmegaConf.to_yaml(config))
    code, said = run_vdm(command, "checkpoint=run")

    assert code == 2
    assert said.startswith("sampler.spacing: '${oc.create:")
    assert said.count("\n") == 1
    assert not (tmp_path / "made").exists()
