"""The network of Wan in a single file, as its authors and ComfyUI have it: imported, tuned and exported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file

from tests.cli.conftest import RunVdm
from tests.models.dit.peers import diffusers_transformer
from tests.models.dit.pipelines import SIZES, pipeline, save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights
from vdm.models.diffusers_autoencoders import WanAutoencoder
from vdm.models.pretrained.diffusers_folder import AUTHORS_TEXT_ENCODER
from vdm.models.pretrained.wan_names import HEAD_CHANNELS, PREFIX, wan_names
from vdm.models.wan_autoencoder_file import authors_names
from vdm.models.wan_text_encoder_file import authors_name as name_in_text_encoder

PLANNED = ("model=wan_1_3b", "encoder=wan", "text_encoder=wan", "diffusion=wan", "clip_shape=[5,32,32]", "memory_gib=1")
NETWORK = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with attention heads as wide as those of published networks."""
    made = pipeline()
    made.register_modules(transformer=diffusers_transformer(replace(SIZES, num_heads=1, head_channels=HEAD_CHANNELS)))
    folder = tmp_path_factory.mktemp("published") / "pipeline"
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def file(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "wan.safetensors"
    return save_as_authors(published, path)


def save_as_authors(published: Path, path: Path, prefix: str = "", dtype: torch.dtype = torch.float32) -> Path:
    weights = load_file(published / NETWORK)
    names = wan_names(weights)
    save_file({prefix + names[name]: tensor.to(dtype) for name, tensor in weights.items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["authors", "ComfyUI"])
def test_a_single_file_is_the_same_run_as_its_pipeline(
    published: Path, run_vdm: RunVdm, tmp_path: Path, prefix: str
) -> None:
    save_as_authors(published, tmp_path / "x.safetensors", prefix)
    assert run_vdm("import", f"from={published}", "to=folder")[0] == 0
    code, err = run_vdm("import", "from=x.safetensors", f"components={published}", "to=file")
    assert code == 0, err

    assert load_config(tmp_path / "file") == load_config(tmp_path / "folder")
    expected = load_weights(tmp_path / "folder")
    found = load_weights(tmp_path / "file")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_goes_out_as_it_came_in(published: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    half = load_file(save_as_authors(published, tmp_path / "x.safetensors", dtype=torch.bfloat16))
    assert run_vdm("import", "from=x.safetensors", f"components={published}", "to=run", "clip.num_frames=9")[0] == 0
    code, err = run_vdm("export", "checkpoint=run", "to=y.safetensors")
    assert code == 0, err

    given = load_file(tmp_path / "y.safetensors")
    assert given.keys() == half.keys()
    assert all(given[name].dtype == torch.bfloat16 and torch.equal(given[name], half[name]) for name in half)
    assert load_config(tmp_path / "run")["clip"]["num_frames"] == 9


def test_components_may_lack_the_network_that_the_file_has(
    published: Path, file: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    (tmp_path / "rest").mkdir()
    for path in published.iterdir():
        if path.name != "transformer":
            (tmp_path / "rest" / path.name).symlink_to(path)
    code, err = run_vdm("import", f"from={file}", "components=rest", "to=run")
    assert code == 0, err


def test_wrong_files_are_refused_in_one_line(published: Path, file: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    other = save_pipeline(tmp_path / "narrow")
    torch.save({}, tmp_path / "x.pth")
    save_file({"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn), **load_file(file)}, tmp_path / "fp8.safetensors")
    for arguments, message in (
        ((f"from={file}",), f"components: {file} is opened for its network; give the folder of a pipeline, or its"),
        ((f"from={file}", "components=x"), "x: no such folder or file, nor a name on the hub"),
        (
            ("from=x.pth", f"components={published}"),
            "x.pth: not a safetensors file; a pickle (.pth, .pt, .bin) can run",
        ),
        ((f"from={file}", f"components={published}", "variant=fp16"), "variant=fp16: a single file has none"),
        (
            ("from=fp8.safetensors", f"components={published}"),
            "fp8.safetensors: scaled_fp8: weights in eight bits (fp8)",
        ),
    ):
        code, err = run_vdm("import", *arguments, "to=run")
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith(message), err
    assert run_vdm("import", f"from={other}", "to=other")[0] == 0
    code, err = run_vdm("export", "checkpoint=other", "to=x.safetensors")
    assert (code, err) == (
        2,
        "model.network.head_channels=12: Wan's files are of networks with 128; export to a folder\n",
    )
    code, err = run_vdm("export", "checkpoint=other", "to=x.safetensors", f"rest_of={file}")
    assert (code, err) == (2, f"rest_of={file}: Wan's files hold the network alone\n")


def test_a_network_that_does_not_fit_its_components_is_refused_with_what_to_do(
    published: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    """As after training from scratch with other encoders than those of the pipeline."""
    assert run_vdm("import", f"from={published}", "to=run")[0] == 0
    other = save_pipeline(tmp_path / "other")
    for name, key, value in (("text_encoder", "d_model", 32), ("vae", "z_dim", 16)):
        file = other / name / "config.json"
        before = file.read_text()
        file.write_text(json.dumps({**json.loads(before), key: value}))
        needed = 16 if key == "d_model" else 4
        code, err = run_vdm("export", "checkpoint=run", f"components={other}", "to=x")
        wrong = f"components: {file}: {key} is {value}, but the network needs {needed}"
        advice = "give the folder of a pipeline with the parts that the network was trained with, or format=own"
        assert (code, err) == (2, f"{wrong}: {advice}\n")
        file.write_text(before)
    (tmp_path / "none").mkdir()
    code, err = run_vdm("export", "checkpoint=run", "components=none", "to=x")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(
        "components: none: not a pipeline of diffusers: there is no model_index.json: give the folder"
    ), err
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same model as a pipeline, ``pipeline``, and as Wan's authors publish it, ``own``."""
    folder = tmp_path_factory.mktemp("both")
    sizes = replace(SIZES, num_heads=1, head_channels=HEAD_CHANNELS, in_channels=16)
    autoencoder = AutoencoderKLWan(base_dim=4).eval()
    made = pipeline(flow_shift=5.0)
    made.register_modules(transformer=diffusers_transformer(sizes), vae=autoencoder)
    made.save_pretrained(folder / "pipeline")

    own = folder / "own"
    made.tokenizer.save_pretrained(own / "google" / "umt5-xxl")
    names = authors_names(autoencoder)
    torch.save({names[name]: tensor for name, tensor in autoencoder.state_dict().items()}, own / "Wan2.1_VAE.pth")
    texts = {name_in_text_encoder(name): tensor for name, tensor in made.text_encoder.state_dict().items()}
    torch.save(texts, own / AUTHORS_TEXT_ENCODER)
    weights = load_file(save_as_authors(folder / "pipeline", folder / "x.safetensors"))
    parts = [dict(list(weights.items())[start::2]) for start in (0, 1)]
    stem = "diffusion_pytorch_model"
    for number, part in enumerate(parts):
        save_file(part, own / f"{stem}-{number}.safetensors")
    weight_map = {name: f"{stem}-{number}.safetensors" for number, part in enumerate(parts) for name in part}
    (own / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_folder_of_the_authors_makes_the_same_videos_as_the_pipeline(
    both: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    for name in ("own", "pipeline"):
        code, err = run_vdm("import", f"from={both / name}", f"to={name}", "clip.num_frames=5")
        assert code == 0, err
    models = [VideoDiffusionModel.from_checkpoint(tmp_path / name) for name in ("own", "pipeline")]
    noise, videos = torch.randn(1, 16, 2, 4, 4), []
    for model in models:
        model.sampler = replace(model.sampler, num_steps=2)
        videos.append((latents := model.sample(noise, ["a  red &amp; dog"]), model.encoder.decode(latents)))
    shifts = [load_config(tmp_path / name)["diffusion"]["time_shift"]["shift"] for name in ("own", "pipeline")]
    assert shifts == [5.0, 5.0]
    torch.testing.assert_close(videos[0][0], videos[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(videos[0][1], videos[1][1], rtol=0, atol=1)  # of 255
    assert run_vdm("plan", *PLANNED, f"model.pretrained={both / 'own'}")[0] == 0
    identities = [model.encoder.identity() for model in models if isinstance(model.encoder, WanAutoencoder)]
    assert identities[0] == identities[1]


def test_a_file_may_have_its_components_in_a_folder_of_the_authors(both: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    save_as_authors(both / "pipeline", tmp_path / "x.safetensors")
    assert run_vdm("import", "from=x.safetensors", f"components={both / 'own'}", "to=file")[0] == 0
    assert run_vdm("import", f"from={both / 'own'}", "to=folder")[0] == 0
    assert load_config(tmp_path / "file") == load_config(tmp_path / "folder")
    code, err = run_vdm("export", "checkpoint=file", "to=x")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"components: {both / 'own'}: the component vae is missing: give the folder of a pipeline"), (
        err
    )
    assert run_vdm("export", "checkpoint=file", f"components={both / 'pipeline'}", "to=x")[0] == 0


def test_incomplete_folders_of_the_authors_are_refused_in_one_line(both: Path, run_vdm: RunVdm, tmp_path: Path) -> None:
    for name, message in (
        ("Wan2.1_VAE.pth", "x/Wan2.1_VAE.pth: not a regular file"),
        ("google", "x/google/umt5-xxl: no such folder: the tokenizer"),
        ("diffusion_pytorch_model-1.safetensors", "x/diffusion_pytorch_model-1.safetensors: no such file"),
        (AUTHORS_TEXT_ENCODER, "x: not a pipeline of diffusers: there is no model_index.json"),
    ):
        (tmp_path / "x").mkdir()
        for path in (both / "own").iterdir():
            if path.name != name:
                (tmp_path / "x" / path.name).symlink_to(path)
        code, err = run_vdm("import", "from=x", "to=run")
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith(message), err
        shutil.rmtree(tmp_path / "x")
    shutil.copytree(both / "own", tmp_path / "x")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x" / AUTHORS_TEXT_ENCODER)
    code, err = run_vdm("import", "from=x", "to=run")
    assert (code, err) == (2, f"x/{AUTHORS_TEXT_ENCODER}: token_embedding.weight is missing\n")
