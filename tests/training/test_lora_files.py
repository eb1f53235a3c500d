"""LoRA files of peft, diffusers, ComfyUI and Kohya, from which training goes on; diffusers and peft are the judges."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.dit.peers import Inputs, diffusers_transformer, our_transformer
from tests.models.dit.pipelines import SIZES, pipeline
from vdm.models.lora import Addition, LoRALinear, additions, merged
from vdm.models.pretrained.lora_files import LoRAFile, comfyui_tensors
from vdm.models.pretrained.wan_names import wan_names
from vdm.randomness import generator
from vdm.training.tuning import LoRA

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
RANK, ALPHA = 3, 7.0
INPUTS = Inputs.random(SIZES, 2, 3)


class Holder(nn.Module):
    """What training makes trained: a model with a network."""

    def __init__(self) -> None:
        super().__init__()
        self.network = our_transformer(SIZES)
        self.network.load_state_dict(diffusers_transformer(SIZES).state_dict())

    @torch.no_grad()
    def output(self) -> Tensor:
        return INPUTS.of_ours(self.network)


def random_lora(pattern: str, rank: int = RANK) -> dict[str, Addition]:
    """Return random LoRA of the layers whose names match, for alpha = ``ALPHA``."""
    random = generator(0, "lora", 0)
    found: dict[str, Addition] = {}
    for name, layer in our_transformer(SIZES).named_modules():
        if isinstance(layer, nn.Linear) and re.search(pattern, name):
            down = 0.1 * torch.randn(rank, layer.in_features, generator=random)
            found[name] = Addition(down, 0.1 * torch.randn(layer.out_features, rank, generator=random), ALPHA)
    return found


IN_BLOCKS, EVERYWHERE, ATTENTION = r"^blocks\.", "", r"\.attn[12]\."


def of_diffusers(folder: Path) -> Path:
    layers = random_lora(EVERYWHERE)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=sorted(layers))
    named = {f"{name}.lora_A.weight": one.down for name, one in layers.items()}
    named |= {f"{name}.lora_B.weight": one.up for name, one in layers.items()}
    WanPipeline.save_lora_weights(folder, named, transformer_lora_adapter_metadata=config.to_dict())
    return folder


def without_alpha(folder: Path) -> Path:
    layers = random_lora(ATTENTION)
    file = folder / "pytorch_lora_weights.safetensors"
    named = {f"transformer.{name}.lora_A.weight": one.down for name, one in layers.items()}
    save_file(named | {f"transformer.{name}.lora_B.weight": one.up for name, one in layers.items()}, file)
    return folder


def of_comfyui(folder: Path) -> Path:
    file = folder / "comfyui.safetensors"
    save_file(comfyui_tensors(random_lora(EVERYWHERE)), file)
    return file


def of_diffusion_pipe(folder: Path) -> Path:
    """In Wan's names with Kohya's parts, without alpha, in bf16."""
    layers = random_lora(ATTENTION)
    tensors: dict[str, Tensor] = {}
    for name, theirs in wan_names(layers).items():
        tensors[f"diffusion_model.{theirs}.lora_down.weight"] = layers[name].down.bfloat16()
        tensors[f"diffusion_model.{theirs}.lora_up.weight"] = layers[name].up.bfloat16()
    save_file(tensors, folder / "x.safetensors")
    return folder / "x.safetensors"


def of_kohya(folder: Path) -> Path:
    layers = random_lora(IN_BLOCKS)
    tensors: dict[str, Tensor] = {}
    for name, theirs in wan_names(layers).items():
        prefix = f"lora_unet_{theirs.replace('.', '_')}"
        tensors |= {f"{prefix}.lora_down.weight": layers[name].down, f"{prefix}.lora_up.weight": layers[name].up}
        tensors[f"{prefix}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, folder / "kohya.safetensors")
    return folder / "kohya.safetensors"


FORMS: dict[str, tuple[Callable[[Path], Path], float]] = {
    "diffusers": (of_diffusers, ALPHA),
    "diffusers without alpha": (without_alpha, RANK),
    "ComfyUI": (of_comfyui, ALPHA),
    "diffusion-pipe": (of_diffusion_pipe, RANK),
    "Kohya": (of_kohya, ALPHA),
}


@pytest.mark.parametrize(("write", "alpha"), FORMS.values(), ids=FORMS)
def test_training_begins_with_what_diffusers_loads(write: Callable[[Path], Path], alpha: float, tmp_path: Path) -> None:
    path = write(tmp_path)
    model = Holder()
    LoRA(file=str(path)).apply(model)
    judge = pipeline()
    judge.load_lora_weights(path)
    with torch.no_grad():
        expected = INPUTS.of_diffusers(judge.transformer, SIZES.num_text_tokens)

    assert not torch.allclose(model.output(), Holder().output(), atol=1e-2)
    torch.testing.assert_close(model.output(), expected, rtol=1e-6, atol=2e-6)
    layers = additions(model.network.state_dict())
    assert {(one.rank, one.alpha) for one in layers.values()} == {(RANK, alpha)}
    assert layers.keys() == LoRAFile.open(path).names.keys(), "and to nothing else"


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"alpha_pattern": {"blocks.1.attn2.to_k": 1.5}}], ids=str
)
def test_training_begins_with_what_peft_loads(options: dict[str, object], tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_k", "ffn.net.0.proj"], **options)
    made = get_peft_model(diffusers_transformer(SIZES), config)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    made.save_pretrained(tmp_path)
    model = Holder()
    LoRA(file=str(tmp_path)).apply(model)
    judge = PeftModel.from_pretrained(diffusers_transformer(SIZES), str(tmp_path))
    with torch.no_grad():
        expected = INPUTS.of_diffusers(judge.base_model.model, SIZES.num_text_tokens)
    torch.testing.assert_close(model.output(), expected, rtol=1e-6, atol=2e-6)
    # And after merging, which reads what is saved.
    plain = Holder()
    plain.network.load_state_dict(merged(model.network.state_dict()))
    torch.testing.assert_close(plain.output(), expected, rtol=1e-5, atol=1e-5)


def test_another_rank_and_alpha_begin_with_the_same_outputs(tmp_path: Path) -> None:
    path = of_comfyui(tmp_path)
    expected, model = Holder(), Holder()
    LoRA(file=str(path)).apply(expected)
    LoRA(file=str(path), rank=8, alpha=2.0, layers=["network.*"]).apply(model)
    torch.testing.assert_close(model.output(), expected.output(), rtol=1e-5, atol=1e-5)
    assert {(one.rank, one.alpha) for one in additions(model.network.state_dict()).values()} == {(8, 2.0)}


def test_ranks_that_differ_from_layer_to_layer_begin_with_the_same_outputs(tmp_path: Path) -> None:
    layers = {**random_lora(IN_BLOCKS, rank=2), **random_lora(r"^blocks\.0\.attn", rank=5)}
    save_file(comfyui_tensors(layers), tmp_path / "x.safetensors")
    model, judge = Holder(), pipeline()
    LoRA(file=str(tmp_path / "x.safetensors")).apply(model)
    judge.load_lora_weights(
        {f"transformer.{name}.lora_A.weight": one.down for name, one in layers.items()}
        | {f"transformer.{name}.lora_B.weight": one.scale * one.up for name, one in layers.items()}
    )
    with torch.no_grad():
        expected = INPUTS.of_diffusers(judge.transformer, SIZES.num_text_tokens)
    torch.testing.assert_close(model.output(), expected, rtol=1e-6, atol=2e-6)


def test_layers_of_a_file_are_recorded_as_few_patterns(tmp_path: Path) -> None:
    own = LoRA(file=str(of_kohya(tmp_path))).settled()
    parts = [f"attn{i}.{layer}" for i in (1, 2) for layer in ("to_k", "to_out.0", "to_q", "to_v")]
    assert own.layers == [f"network.blocks.*.{part}" for part in (*parts, "ffn.net.0.proj", "ffn.net.2")]
    assert (own.rank, own.alpha) == (RANK, pytest.approx(ALPHA))

    save_file(comfyui_tensors(random_lora(r"^blocks\.1\.attn1")), tmp_path / "x.safetensors")
    LoRA(file=str(tmp_path / "x.safetensors")).apply(model := Holder())
    adapted = {name for name, layer in model.network.named_modules() if isinstance(layer, LoRALinear)}
    assert adapted == {f"blocks.1.attn1.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")}


def tensors_of_one(**changes: Tensor | None) -> dict[str, Tensor]:
    name = "diffusion_model.blocks.0.self_attn.q"
    width = SIZES.num_heads * SIZES.head_channels
    tensors = {"lora_A.weight": torch.ones(2, width), "lora_B.weight": torch.ones(width, 2), "alpha": torch.tensor(1.0)}
    changed = {**tensors, **{key.replace("_weight", ".weight"): value for key, value in changes.items()}}
    return {f"{name}.{key}": tensor for key, tensor in changed.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "there is no LoRA in it"),
        (tensors_of_one(lora_B_weight=None), "blocks.0.attn1.to_q has not both parts of a LoRA"),
        (
            tensors_of_one(dora_scale=torch.ones(1)),
            "diffusion_model.blocks.0.self_attn.q.dora_scale is no part of a LoRA",
        ),
        (
            tensors_of_one(diff_b=torch.ones(1)),
            "diffusion_model.blocks.0.self_attn.q.diff_b is no part of a LoRA for a",
        ),
        (
            tensors_of_one(lora_B_weight=torch.ones(24, 3)),
            "blocks.0.attn1.to_q has shapes [2, 24] and [24, 3]: no LoRA",
        ),
        (
            tensors_of_one(alpha=torch.tensor(float("nan"))),
            "diffusion_model.blocks.0.self_attn.q.alpha must be one number",
        ),
        (tensors_of_one(alpha=torch.ones(2)), "diffusion_model.blocks.0.self_attn.q.alpha must be one number above 0"),
        (tensors_of_one(lora_up_weight=torch.ones(24, 2)), "blocks.0.attn1.to_q has up under two names"),
        (
            {
                "lora_te_text_model_q.lora_down.weight": torch.ones(2, 3),
                "lora_te_text_model_q.lora_up.weight": torch.ones(3, 2),
            },
            "is of another network: it has lora_te_text_model_q, which is no linear layer here",
        ),
        (
            tensors_of_one(lora_A_weight=torch.ones(2, 1536)),
            "is of another network: its blocks.0.attn1.to_q has 1536 inputs and 24 outputs, but here 24 and 24",
        ),
        (
            {k.replace("blocks.0", "blocks.35"): v for k, v in tensors_of_one().items()},
            "is of another network: it has blocks.35.attn1.to_q, which is no linear layer here",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        LoRA(file=str(tmp_path / "x.safetensors")).apply(Holder())
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "x.safetensors") in str(refused.value)


def test_settings_that_exclude_the_file_are_refused(tmp_path: Path) -> None:
    file = str(of_kohya(tmp_path))
    with pytest.raises(ValueError, match=r"^file=\S+: has rank 3, but rank=2; null takes the file's$"):
        LoRA(file=file, rank=2).apply(Holder())
    with pytest.raises(
        ValueError, match=r"^file=\S+: has network\.blocks\.0\.\S+, which is not in layers=\['network\.x"
    ):
        LoRA(file=file, layers=["network.x"]).apply(Holder())
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"^\S+x\.pt: not a safetensors file; a pickle"):
        LoRA(file=str(tmp_path / "x.pt")).apply(Holder())
    (tmp_path / "empty").mkdir()
    for path, message in (("empty", "empty: holds no LoRA"), ("none.safetensors", "none.safetensors: no such file")):
        with pytest.raises(ValueError, match=f"{message}$"):
            LoRA(file=str(tmp_path / path)).apply(Holder())


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("pattern", [r"blocks\.\d+\.attn1\.to_q", "blocks.7.attn1.to_q", "to_(q|k)"])
def test_patterns_of_alpha_that_name_no_layer_are_refused(pattern: str, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q"], alpha_pattern={pattern: 1.5})
    get_peft_model(diffusers_transformer(SIZES), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"alpha_pattern: .* must be the name of a layer with LoRA"):
        LoRAFile.open(tmp_path)


def test_lora_in_eight_bits_is_refused(tmp_path: Path) -> None:
    name = "diffusion_model.blocks.0.self_attn.q"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 24), f"{name}.lora_B.weight": torch.ones(24, 2)}
    for dtype in (torch.int8, torch.float8_e4m3fn):
        save_file({key: value.to(dtype) for key, value in tensors.items()}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="eight bits"):
            LoRAFile.open(tmp_path / "x.safetensors")
