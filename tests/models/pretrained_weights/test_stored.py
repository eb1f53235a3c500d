"""Reading safetensors one tensor at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vdm.models.pretrained.stored import StoredTensors, check_names, load


def write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def test_tensors_of_several_files_are_one_mapping(tmp_path: Path) -> None:
    first = write(tmp_path / "1.safetensors", a=torch.arange(3.0))
    second = write(tmp_path / "2.safetensors", b=torch.ones(2, 2, dtype=torch.bfloat16))
    stored = StoredTensors.open([first, second])

    assert dict(stored.shapes) == {"a": [3], "b": [2, 2]}
    assert stored["a"].tolist() == [0, 1, 2]
    assert stored["b"].dtype == torch.bfloat16
    assert list(stored.renamed({"b": "x", "other": "y"})) == ["x"]
    assert torch.equal(stored.renamed({"b": "x"})["x"], stored["b"])


def test_a_module_takes_weights_of_any_precision_and_keeps_its_own(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    weights = {"weight": torch.ones(3, 2, dtype=torch.float16), "bias": torch.zeros(3, dtype=torch.float16)}
    load(StoredTensors.open([write(tmp_path / "w.safetensors", **weights)]), layer)

    assert layer.weight.dtype == torch.float32
    assert layer.weight.eq(1).all()
    assert layer.bias.eq(0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "here: bias is missing"),
        ({"gain": torch.ones(1)}, "here: gain is not a weight of this model"),
        ({"bias": torch.ones(4)}, r"here: bias has shape \[4\], but the model's has \[3\]"),
    ],
    ids=["missing", "unknown", "misshapen"],
)
def test_weights_of_another_model_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    layer = nn.Linear(2, 3)
    weights = {name: tensor for name, tensor in {**layer.state_dict(), **change}.items() if tensor is not None}
    stored = StoredTensors.open([write(tmp_path / "w.safetensors", **weights)])

    with pytest.raises(ValueError, match=f"^{message}$"):
        check_names(stored, layer, "here")


@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (4, 3, 2), (0, 2)], ids=str)
def test_any_stretch_of_a_flattened_tensor_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    stored = StoredTensors.open([write(tmp_path / "w.safetensors", a=tensor, other=torch.ones(3))])
    flat = tensor.flatten()

    for start in range(len(flat) + 1):
        for count in range(len(flat) - start + 1):
            assert torch.equal(stored.read("a", start, count), flat[start : start + count])


def test_a_file_that_was_cut_off_since_it_was_opened_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", a=torch.zeros(100))
    stored = StoredTensors.open([path])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"w.safetensors: not a whole safetensors file: .+"):
        stored.read("a", 0, 10)
    path.unlink()
    with pytest.raises(ValueError, match=r"w.safetensors: no such file$"):
        stored.read("a", 0, 10)


def test_names_are_checked_against_a_module_without_memory(tmp_path: Path) -> None:
    with torch.device("meta"):
        layer = nn.Linear(2, 3)
    check_names(StoredTensors.open([write(tmp_path / "w.safetensors", **nn.Linear(2, 3).state_dict())]), layer, "here")


@pytest.mark.parametrize("kept", [0, 4, 60, 200])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "w.safetensors", a=torch.zeros(100))
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(ValueError, match=r"w.safetensors: not a whole safetensors file: .+") as error:
        StoredTensors.open([path])
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_tensor_in_two_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.safetensors: no such file$"):
        StoredTensors.open([tmp_path / "none.safetensors"])
    twice = [write(tmp_path / f"{i}.safetensors", a=torch.zeros(1)) for i in range(2)]
    with pytest.raises(ValueError, match=r"1.safetensors: a is also in 0.safetensors$"):
        StoredTensors.open(twice)


MEASURE = """
import resource, sys, torch
from pathlib import Path
from torch import nn
from vdm.models.pretrained.stored import StoredTensors, load
with torch.device("meta"):
    module = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(40)))
module.to_empty(device="cpu")
for parameter in module.parameters():
    nn.init.zeros_(parameter)  # the memory is taken
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load(StoredTensors.open([Path(sys.argv[1])]), module)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_loading_adds_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", **{f"{i}.weight": torch.ones(1000, 1000) for i in range(40)})  # 160 MB
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 30_000  # kB
