import pytest
import torch
from safetensors.torch import save

from vdm.data.text_embeddings import TextEmbedding, UnusableTextError, read_text, write_text


def test_what_was_written_is_read() -> None:
    embedding = TextEmbedding(torch.randn(3, 4).half(), torch.randn(4).half())
    read = read_text(write_text(embedding), channels=4)
    assert torch.equal(read.tokens, embedding.tokens.float())
    assert torch.equal(read.pooled, embedding.pooled.float())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "can't be read"),
        (save({"tokens": torch.zeros(3, 4)}), "lacks the tensor 'tokens' or 'pooled'"),
        (save({"tokens": torch.zeros(3, 4), "pooled": torch.zeros(5)}), r"shapes \(3, 4\) and \(5,\) .* width of 4$"),
        (save({"tokens": torch.zeros(0, 4), "pooled": torch.zeros(4)}), r"shapes \(0, 4\)"),
    ],
)
def test_what_is_no_text_embedding_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UnusableTextError, match=f"^its text embedding .*{message}"):
        read_text(data, channels=4)
