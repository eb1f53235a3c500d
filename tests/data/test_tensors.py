import json

import pytest
import torch
from safetensors.torch import load, save

from vdm.data.tensors import UnreadableTensorsError, read_tensors

TENSORS = {
    "half": torch.randn(2, 3, 4).half(),
    "brain": torch.randn(5).bfloat16(),
    "single": torch.randn(()),
    "double": torch.randn(1, 2).double(),
    "none": torch.zeros(0, 4),
}


def file_of(header: object, values: bytes = b"") -> bytes:
    content = json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + values


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_reads_what_safetensors_reads(kind: type) -> None:
    data = save(TENSORS, metadata={"made": "here"})
    found, expected = read_tensors(kind(data)), load(data)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_are_views_of_memory_that_can_be_written_to() -> None:
    data = bytearray(save({"a": torch.zeros(4)}))
    tensor = read_tensors(data)["a"]
    data[-4:] = torch.ones(1).numpy().tobytes()
    assert tensor.tolist() == [0, 0, 0, 1]


def test_a_file_cut_at_any_byte_is_refused() -> None:
    data = save(TENSORS)
    for length in range(len(data)):
        with pytest.raises(UnreadableTensorsError):
            read_tensors(data[:length])


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        {"a": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_a_header_that_means_nothing_is_refused(header: object) -> None:
    with pytest.raises(UnreadableTensorsError, match="header is malformed"):
        read_tensors(file_of(header, bytes(4)))


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [0, 10**400], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    ],
)
def test_shapes_that_no_memory_holds_are_refused(header: object) -> None:
    with pytest.raises(UnreadableTensorsError, match="header is malformed"):
        read_tensors(file_of(header, bytes(4)))


def test_a_header_of_any_depth_or_length_is_refused() -> None:
    for text in (b"[" * 10**5, b" " * (2 << 20)):
        with pytest.raises(UnreadableTensorsError):
            read_tensors(len(text).to_bytes(8, "little") + text)
