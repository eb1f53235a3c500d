"""Networks that are built without memory for weights that will be read from files."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.assembly.small_model import config
from vdm.assembly.build_model import build_model
from vdm.models.embeddings import NumberEmbedding
from vdm.models.frozen import Frozen
from vdm.models.lora import add_lora
from vdm.models.meta_weights import make_on_meta, materialize


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)


class OfAnotherWeight(nn.Module):
    """A layer with a buffer that depends on its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("copy", self.layer.weight.detach().clone(), persistent=False)


class Measured(nn.Linear):
    """A layer whose constructor uses the value of its weight."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.size = float(self.weight.square().sum())


def test_weights_have_no_memory_and_buffers_have_their_values() -> None:
    made = make_on_meta(lambda: NumberEmbedding(8))
    assert made is not None
    assert all(weight.is_meta for weight in made.parameters())
    assert torch.equal(made.frequencies, NumberEmbedding(8).frequencies)
    assert not nn.Linear(1, 1).weight.is_meta, "the next network is made as usual"


@pytest.mark.parametrize(
    "make",
    [lambda: nn.Sequential(nn.Linear(2, 2), Frozen(nn.Linear(2, 2))), OfAnotherWeight, Measured],
    ids=["a frozen part, which no checkpoint has", "a buffer that is computed from a weight", "a value that is used"],
)
def test_a_network_that_needs_its_values_is_none(make: Callable[[], nn.Module]) -> None:
    assert make_on_meta(make) is None
    assert not any(weight.is_meta for weight in make().parameters())


def test_memory_keeps_ties_and_what_is_trained() -> None:
    made = make_on_meta(Tied)
    assert made is not None
    materialize(made)

    assert made.first.weight is made.second.weight
    assert [weight.requires_grad for weight in made.parameters()] == [True, False, True]
    assert all(weight.isnan().all() for weight in made.parameters()), "what is never read is seen at once"


def test_a_model_has_its_network_alone_on_the_meta_device_and_lora_has_values() -> None:
    model = build_model(config(), is_network_read=True)
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.is_meta} == {"network"}
    assert add_lora(model, ["network.*"], rank=2) > 0
    added = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    assert all(weight.isfinite().all() for weight in added.values())
    assert {name for name, weight in added.items() if not weight.any()} == {name for name in added if "lora_B" in name}
