import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vdm.checkpoints.pieces import Piece, PieceFiles, copied_to_memory, write_pieces


def write_in_pieces(folder: Path, tensor: torch.Tensor, cuts: list[int]) -> None:
    """Write a tensor named ``w`` as several processes would that each hold a stretch of it."""
    flat = tensor.reshape(-1)
    for rank, (start, end) in enumerate(zip([0, *cuts], [*cuts, flat.numel()], strict=True)):
        path = folder / ("model.safetensors" if rank == 0 else f"model-{rank:05d}.safetensors")
        write_pieces(path, {"w": Piece(flat[start:end], tuple(tensor.shape), start)})


@pytest.mark.parametrize("cuts", [[], [12], [1, 7, 23], [0, 24]])
def test_tensor_cut_anywhere_is_read_whole_and_in_every_stretch(tmp_path: Path, cuts: list[int]) -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    write_in_pieces(tmp_path, tensor, cuts)
    files = PieceFiles(tmp_path, "model")
    torch.testing.assert_close(files.whole("w"), tensor, rtol=0, atol=0)
    for start in range(24):
        for count in range(25 - start):
            assert files.read("w", start, count).tolist() == list(range(start, start + count))


def test_missing_file_of_one_process_is_named(tmp_path: Path) -> None:
    write_in_pieces(tmp_path, torch.arange(24.0), [8, 16])
    (tmp_path / "model-00001.safetensors").unlink()
    with pytest.raises(ValueError, match="a part of w is missing"):
        PieceFiles(tmp_path, "model")


def test_whole_tensors_are_plain_safetensors_and_pieces_say_where_they_belong(tmp_path: Path) -> None:
    whole, part = torch.ones(2, 3), torch.arange(4.0)
    write_pieces(tmp_path / "model.safetensors", {"whole": Piece.whole(whole), "part": Piece(part, (5, 2), 3)})
    assert load_file(tmp_path / "model.safetensors")["whole"].shape == (2, 3)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["pieces"]) == {"part": {"shape": [5, 2], "start": 3}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_scalars_empty_tensors_and_data_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"scalar": torch.tensor(1), "empty": torch.empty(0, 3), "channels_last": torch.ones(2, 3, 4, 5)}
    tensors["channels_last"] = tensors["channels_last"].cumsum(1).contiguous(memory_format=torch.channels_last)
    expected = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_pieces(tmp_path / "model.safetensors", {name: Piece.whole(tensor) for name, tensor in expected.items()})
    files = PieceFiles(tmp_path, "model")
    for name, tensor in expected.items():
        torch.testing.assert_close(files.whole(name), tensor.contiguous(), rtol=0, atol=0)


def test_copies_take_former_memory_again_and_do_not_change_with_the_weights() -> None:
    weight = torch.zeros(8)
    first = copied_to_memory({"w": Piece.whole(weight)}, {})
    weight += 1
    assert first["w"].values.sum() == 0
    second = copied_to_memory({"w": Piece.whole(weight)}, first)
    assert second["w"].values.sum() == 8
    assert second["w"].values.data_ptr() == first["w"].values.data_ptr() != weight.data_ptr()
    other = copied_to_memory({"w": Piece.whole(weight.double())}, second)
    assert other["w"].values.dtype == torch.float64


def test_tied_weights_are_written_each_in_full(tmp_path: Path) -> None:
    memory = torch.arange(4.0)
    pieces = copied_to_memory({"a": Piece.whole(memory), "b": Piece.whole(memory), "c": Piece.whole(memory[1:3])}, {})
    write_pieces(tmp_path / "model.safetensors", pieces)
    assert {name: tensor.tolist() for name, tensor in load_file(tmp_path / "model.safetensors").items()} == {
        "a": [0, 1, 2, 3],
        "b": [0, 1, 2, 3],
        "c": [1, 2],
    }
