import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from diffusers.pipelines.wan import pipeline_wan
from torch import nn

from tests.models.networks import randomized
from tests.models.pretrained import save_clip, save_t5
from vdm.models.text_encoders import (
    ByteTransformer,
    PretrainedTextEncoder,
    TextEncoder,
    clean_caption,
    masked_mean,
    no_text,
)

CAPTIONS = ["a dog", "", "a red cat jumps over the fence"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pretrained")
    return {"t5": save_t5(folder / "t5"), "clip": save_clip(folder / "clip")}


def _bytes(saved: dict[str, Path]) -> ByteTransformer:
    return randomized(ByteTransformer(channels=16, num_layers=2, head_channels=8, max_bytes=40))


def _t5(saved: dict[str, Path]) -> PretrainedTextEncoder:
    return PretrainedTextEncoder(str(saved["t5"]), max_tokens=12)


def _clip(saved: dict[str, Path]) -> PretrainedTextEncoder:
    return PretrainedTextEncoder(str(saved["clip"]), max_tokens=12)


ENCODERS = [_bytes, _t5, _clip]
Make = Callable[[dict[str, Path]], TextEncoder]


@pytest.mark.parametrize("make", ENCODERS)
def test_caption_alone_is_embedded_as_beside_longer_ones(make: Make, saved: dict[str, Path]) -> None:
    encoder = make(saved)
    together = encoder(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone, length = encoder([caption]), int(together.mask[row].sum())

        assert alone.mask.shape == (1, length)
        torch.testing.assert_close(together.tokens[row, :length], alone.tokens[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", ENCODERS)
def test_widths_are_as_announced_and_even_no_caption_has_a_token(make: Make, saved: dict[str, Path]) -> None:
    encoder = make(saved)
    encoded = encoder(["", ""])

    assert encoded.tokens.shape[-1] == encoded.pooled.shape[-1] == encoder.channels
    assert encoded.mask.any(dim=1).all()
    assert encoded.tokens.isfinite().all()


@pytest.mark.parametrize("make", ENCODERS)
def test_different_captions_have_different_embeddings(make: Make, saved: dict[str, Path]) -> None:
    pooled = make(saved)(["a dog jumps over the cat", "a cat jumps over the dog", ""]).pooled

    assert torch.pdist(pooled).min() > 1e-3


def test_bytes_of_any_writing_are_embedded() -> None:
    encoder = randomized(ByteTransformer(channels=16, head_channels=8))
    encoded = encoder(["ein Hündchen", "一只狗", "🐕\n\t\0", "\udcff\ud800"])

    # One token for the beginning, then UTF-8: two bytes for ü, three a Chinese character, four for the dog.
    assert encoded.mask.sum(1).tolist()[:3] == [1 + 13, 1 + 9, 1 + 7]
    assert encoded.tokens.isfinite().all()


def test_over_long_captions_are_cut() -> None:
    encoder = randomized(ByteTransformer(channels=16, head_channels=8, max_bytes=4))
    encoded = encoder(["abcdXYZ", "abcd"])

    assert encoded.mask.shape == (2, 5)
    torch.testing.assert_close(encoded.tokens[0], encoded.tokens[1])


def test_bytes_are_embedded_alike_in_training_and_in_inference(saved: dict[str, Path]) -> None:
    encoder = _bytes(saved)
    training = encoder.train()(CAPTIONS)
    with torch.no_grad():
        inference = encoder.eval()(CAPTIONS)

    kept = training.mask
    torch.testing.assert_close(inference.tokens[kept], training.tokens[kept], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inference.pooled, training.pooled, rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_of_the_byte_transformer(saved: dict[str, Path]) -> None:
    encoder = _bytes(saved)
    encoder(["a dog"]).tokens.square().sum().backward()

    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 16, "head_channels": 5}, "head_channels must divide channels, but 5 does not divide 16"),
        ({"channels": 16, "head_channels": 0}, "head_channels must divide channels, but 0 does not divide 16"),
        ({"max_bytes": 0}, "max_bytes must be at least 1, but is 0"),
    ],
)
def test_mistaken_choices_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ByteTransformer(**options)


@pytest.mark.parametrize("make", [_t5, _clip])
def test_pretrained_weights_are_frozen_and_in_evaluation_mode(make: Make, saved: dict[str, Path]) -> None:
    whole = nn.ModuleDict({"encoder": make(saved)}).train()

    assert not whole["encoder"].training
    assert not any(module.training for module in whole["encoder"].modules())
    assert not any(weight.requires_grad for weight in whole.parameters())
    assert not whole["encoder"](["a dog"]).tokens.requires_grad


@pytest.mark.parametrize("make", [_t5, _clip])
def test_pretrained_weights_are_no_part_of_a_checkpoint(make: Make, saved: dict[str, Path]) -> None:
    whole = nn.ModuleDict({"encoder": make(saved), "network": nn.Linear(2, 2)})
    state = whole.state_dict()

    assert sorted(state) == ["network.bias", "network.weight"]
    whole.load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match=r"network\.weight"):
        whole.load_state_dict({"network.bias": state["network.bias"]}, strict=True)


def test_pretrained_encoder_gives_what_transformers_gives(saved: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    tokens = AutoTokenizer.from_pretrained(saved["t5"])(["a red dog"], return_tensors="pt")["input_ids"]
    expected = T5EncoderModel.from_pretrained(saved["t5"]).eval()(input_ids=tokens).last_hidden_state

    torch.testing.assert_close(_t5(saved)(["a red dog"]).tokens, expected)


@pytest.mark.parametrize("make", [_t5, _clip])
def test_half_precision_around_a_pretrained_encoder_changes_nothing(make: Make, saved: dict[str, Path]) -> None:
    encoder = make(saved)
    expected = encoder(["a red dog"])
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(["a red dog"])

    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.pooled, expected.pooled)


@pytest.mark.parametrize("make", [_t5, _clip])
def test_identity_of_a_pretrained_encoder_follows_its_weights_and_limits(make: Make, saved: dict[str, Path]) -> None:
    encoder, again = make(saved), make(saved)
    assert encoder.identity() == again.identity()
    assert json.loads(json.dumps(encoder.identity())) == encoder.identity()

    again.max_tokens -= 1
    assert encoder.identity() != again.identity()
    again.max_tokens += 1
    next(again.frozen.parameters()).view(-1)[0] += 1
    assert encoder.identity() != again.identity()


@pytest.mark.parametrize("make", [_t5, _clip])
def test_over_long_captions_of_pretrained_encoders_are_cut(make: Make, saved: dict[str, Path]) -> None:
    assert make(saved)(["a dog " * 30]).mask.shape == (1, 12)


def test_more_tokens_than_a_pretrained_encoder_has_positions_are_refused(saved: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"^max_tokens=13: .*clip takes at most 12 tokens$"):
        PretrainedTextEncoder(str(saved["clip"]), max_tokens=13)


@pytest.mark.parametrize("broken", ["missing", "empty", "no weights", "no tokenizer", "other model"])
def test_what_is_no_pretrained_encoder_is_named_in_one_line(
    broken: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    if broken != "missing":
        folder.mkdir()
    if broken not in ("missing", "empty"):
        for file in saved["t5"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    if broken == "no weights":
        (folder / "model.safetensors").unlink()
    if broken == "no tokenizer":
        for file in folder.glob("*token*"):
            file.unlink()
    if broken == "other model":
        (folder / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(ValueError, match=r"^name_or_path: .*model") as caught:
        PretrainedTextEncoder(str(folder))
    assert "\n" not in str(caught.value)


def test_mean_is_over_real_tokens() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [100.0]]])

    assert masked_mean(tokens, torch.tensor([[True, True, False]])).item() == 2
    assert masked_mean(tokens, torch.tensor([[False, False, False]])).item() == 0


def test_no_text_is_nothing() -> None:
    assert no_text() is None


@pytest.mark.parametrize(
    "caption",
    ["a  dog\n runs ", "fish &amp;amp; chips &lt;3", "caf\u00e9\u00a0\u3000now", "&nbsp;x&#39;s", "", "a\u200bb\x1cc"],
)
def test_captions_are_cleaned_as_in_the_pipeline_of_wan(caption: str) -> None:
    with patch.object(pipeline_wan, "is_ftfy_available", lambda: False):
        assert clean_caption(caption) == pipeline_wan.prompt_clean(caption)
