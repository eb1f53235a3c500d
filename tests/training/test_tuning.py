"""Which weights are trained: the others stay as they are, bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.test_svd import from_scratch
from tests.training.zygote import Zygote
from vdm.checkpoints.weights import saved_weights
from vdm.config import ConfigError
from vdm.models.lora import add_lora
from vdm.models.text_encoders import ByteTransformer
from vdm.training.training_run import build_training


def tuned(tmp_path: Path, shards: Path, *overrides: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train small for two steps; return the weights before and after."""
    config = from_scratch(shards, "trainer.max_steps=2", *overrides)
    before = build_training(config, tmp_path / "x").module.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    return before, train(tmp_path / "run", config).module.state_dict()


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_tuning_layers_over_time_leaves_all_others_bit_identical(tmp_path: Path, shards: Path) -> None:
    found = changed(*tuned(tmp_path, shards, "tune=temporal"))
    assert {"temporal_res_block", "temporal_transformer_blocks", "time_mixer", "time_pos_embed"} <= {
        part for name in found for part in name.split(".")
    }
    assert all(any(part in name for part in ("temporal", "time_mixer", "time_pos_embed")) for name in found)


def test_tuning_attention_leaves_all_else_bit_identical(tmp_path: Path, shards: Path) -> None:
    found = changed(*tuned(tmp_path, shards, "tune=attention"))
    assert found
    assert all(".attn1." in name or ".attn2." in name for name in found)


def test_lora_leaves_the_base_bit_identical_and_resumes_exactly(tmp_path: Path, shards: Path) -> None:
    before, after = tuned(tmp_path, shards, "tune=lora", "tune.rank=3")
    found = changed(before, after)
    assert found == {name for name in after if "lora_" in name}
    assert all(".attn2.to_q" not in name and ".attn2.to_k" not in name for name in found), "unused by one token"

    config = from_scratch(shards, "tune=lora", "tune.rank=3", "trainer.max_steps=2")
    train(tmp_path / "parts", {**config, "trainer": {**config["trainer"], "max_steps": 1}})
    assert not changed(after, train(tmp_path / "parts", config, resume=True).module.state_dict())


def test_tuning_nothing_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ConfigError, match=r"^tune: names=\['x'\]: the model's weights have other names, such as netw"):
        build_training(from_scratch(shards, "tune.names=[x]"), tmp_path)
    with pytest.raises(ConfigError, match=r"^tune: layers=\['x'\]: the model's linear layers are called otherwise: n"):
        build_training(from_scratch(shards, "tune=lora", "tune.layers=[x]"), tmp_path)


def test_lora_is_the_same_under_every_strategy(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    layers = "tune.layers=[network.*.to_*,*.text_encoder.*.linear*]"
    options = ("tune=lora", "tune.rank=2", "tune.alpha=3", layers)
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, *options, "trainer.max_steps=5")
    train(tmp_path / "one", config)
    train(tmp_path / "many", {**config, "trainer": {**config["trainer"], "max_steps": 1}})
    stages = ("ddp 2", "fsdp2 3", "deepspeed_zero2 4", "deepspeed_zero3 5")
    train_in_processes(shards, tmp_path / "many", *(" ".join((stage, *options)) for stage in stages), zygote=zygote)

    one, many = saved_weights(tmp_path / "one", ema=False), saved_weights(tmp_path / "many", ema=False)
    assert one.keys() == many.keys()
    for name, tensor in one.items():
        if "lora_" in name:
            torch.testing.assert_close(many[name], tensor, rtol=0, atol=1e-7, msg=name)
        else:
            assert torch.equal(many[name], tensor), name


def test_lora_of_the_text_encoder_acts_alike_in_training_and_evaluation() -> None:
    encoder = ByteTransformer(channels=16, num_layers=1, head_channels=8)
    before = encoder(["red", "a blue square"]).tokens
    add_lora(encoder, ["*.linear?"], rank=2)
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)

    in_training = encoder.train()(["red", "a blue square"]).tokens
    with torch.no_grad():  # where PyTorch would use its fused layer
        in_evaluation = encoder.eval()(["red", "a blue square"]).tokens

    real = before.isfinite() & (in_training - before).abs().gt(0)
    assert real.any()
    torch.testing.assert_close(in_evaluation, in_training.detach())


def test_every_layer_that_lora_adapts_has_a_gradient(tmp_path: Path, shards: Path) -> None:
    config = configuration(
        shards, "tune=lora", "tune.rank=2", "tune.layers=[network.*,*.linear?]", "trainer.max_steps=2"
    )
    training = train(tmp_path, config)
    stepped = training.trainer.optimizers[0].state  # of weights with a gradient alone
    adapted = {name: weight for name, weight in training.module.named_parameters() if "lora_" in name}
    assert {name.split(".")[1] for name in adapted} == {"network", "conditioner"}
    assert [name for name, weight in adapted.items() if weight not in stepped] == []


def test_layer_whose_weight_attention_takes_without_calling_it_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^tune: layers=\['\*'\]: .*\.self_attn\.out_proj can't be adapted: PyTorch's"
    ):
        build_training(configuration(shards, "tune=lora", "tune.layers=['*']"), tmp_path)
