"""The network of Wan in a single file, as its authors and ComfyUI have it: imported, tuned and exported."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import RunVdm
from tests.models.dit.peers import diffusers_transformer
from tests.models.dit.pipelines import SIZES, pipeline, save_pipeline
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights
from vdm.models.pretrained.wan_names import HEAD_CHANNELS, PREFIX, wan_names

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
