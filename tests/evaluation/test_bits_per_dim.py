import math

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import small_model
from tests.evaluation.test_denoising_loss import batch
from vdm.diffusion.likelihood.exact import ExactLikelihood
from vdm.diffusion.likelihood.variational import VariationalBound
from vdm.diffusion.ode import DormandPrince
from vdm.evaluation.bits_per_dim import bits_per_dim, check
from vdm.prompts import LabelCondition, TensorCondition
from vdm.types import ClipBatch


def row(clips: ClipBatch, index: int) -> ClipBatch:
    part = clips.map(lambda tensor: tensor[index : index + 1])
    return ClipBatch(
        part.video, ("",), part.labels, part.positions, part.weights, clips.keys[index : index + 1], part.fps
    )


@pytest.mark.parametrize(
    "likelihood", [VariationalBound(4), ExactLikelihood(DormandPrince(1e-2, 1e-2), sigma_min=0.1)], ids=str
)
def test_batches_do_not_matter(likelihood: VariationalBound | ExactLikelihood) -> None:
    model, clips = small_model(), batch(3, [1.0] * 3)
    together = bits_per_dim(model, [clips], likelihood)
    apart = bits_per_dim(model, [row(clips, index) for index in range(3)], likelihood)

    assert together.mean == pytest.approx(apart.mean, rel=1e-4)
    assert together.standard_error == pytest.approx(apart.standard_error, rel=1e-2)
    assert together.num_clips == apart.num_clips == 3


def test_mean_and_its_standard_error_are_those_of_the_clips() -> None:
    model, clips, bound = small_model(), batch(4, [1.0] * 4), VariationalBound(2)
    alone = [bits_per_dim(model, [row(clips, index)], bound) for index in range(4)]
    values = torch.tensor([found.mean for found in alone], dtype=torch.float64)
    found = bits_per_dim(model, [clips], bound)

    assert all(one.standard_error is None for one in alone)
    assert found.mean == pytest.approx(values.mean().item(), rel=1e-5)
    assert found.standard_error == pytest.approx(values.std().item() / math.sqrt(4), rel=1e-3)


def test_conditions_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions, classes and the first frame's latents enter the network, as in the held-out loss."""
    model, clips = small_model(), batch(2, [1.0] * 2)
    seen: list[tuple[tuple[str, ...], Tensor, Tensor]] = []
    conditioner = model.conditioner.forward

    def recorded(prompts, num_frames):  # noqa: ANN001, ANN202
        label, image = prompts.find("label", LabelCondition), prompts.find("image", TensorCondition)
        assert label is not None
        assert image is not None
        seen.append((prompts.captions, label.labels, image.values))
        return conditioner(prompts, num_frames)

    monkeypatch.setattr(model.conditioner, "forward", recorded)
    bits_per_dim(model, [clips], VariationalBound(1))
    (captions, labels, image) = seen[0]
    assert len(seen) == 1
    assert captions == clips.captions
    assert torch.equal(labels, clips.labels)
    assert torch.equal(image, model.encoder.encode(clips.video)[:, :, 0])


def test_model_without_first_frames_is_measured_too() -> None:
    model = small_model(model__conditioner__image=False, model__network__image_conditioned=False)
    assert "image" not in model.conditioner.takes
    assert bits_per_dim(model, [batch(2, [1.0] * 2)], VariationalBound(1)).num_clips == 2


def test_protocol_tells_how_it_was_measured() -> None:
    found = bits_per_dim(small_model(), [batch(2, [1.0] * 2)], VariationalBound(2, gamma=0.5), seed=3)

    for part in ("VariationalBound(num_steps=2, gamma=0.5, spacing=Trailing())", "captions", "no guidance", "seed 3"):
        assert part in found.protocol


def test_models_of_other_latents_or_correlated_noise_are_refused() -> None:
    class Latents(torch.nn.Module):
        channels = 4

    check(small_model())
    other = small_model()
    other.encoder = Latents()
    with pytest.raises(ValueError, match=r"^bits_per_dim: .* the latents of Latents: choose bits_per_dim=none$"):
        check(other)
    mixed = small_model(diffusion__noise_prior={"_target_": "vdm.diffusion.noise_priors.Mixed"})
    with pytest.raises(ValueError, match=r"^bits_per_dim: known for independent noise alone, not for Mixed\(alpha=1"):
        check(mixed)
