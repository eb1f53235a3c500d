import math

import pytest
import torch
from torch import Tensor

from vdm.diffusion.noise_priors import Independent, Mixed, NoisePrior, Offset, Progressive

SHAPE = (2, 4, 1, 2)
FRAMES_APART = (torch.arange(4)[:, None] - torch.arange(4)).abs()
EVERY_PRIOR: list[NoisePrior] = [Independent(), Offset(0.5), Mixed(), Mixed(2.0), Progressive(), Progressive(3.0)]


def _covariance(frames: Tensor) -> Tensor:
    """Return the covariance of everything in a clip: that of frames in each channel and pixel, and 0 elsewhere."""
    return torch.einsum("ce,ts,pq->ctpesq", torch.eye(2), frames, torch.eye(2)).reshape(16, 16)


COVARIANCES: list[tuple[NoisePrior, Tensor]] = [
    (Independent(), torch.eye(16)),
    # Guttenberg 2023: strength times a number that all of a channel shares
    (Offset(0.5), torch.eye(16) + 0.25 * torch.block_diag(torch.ones(8, 8), torch.ones(8, 8))),
    # Ge et al. 2023, mixed: frames share alpha^2 / (1 + alpha^2)
    (Mixed(1.0), _covariance(torch.full((4, 4), 1 / 2).fill_diagonal_(1))),
    (Mixed(2.0), _covariance(torch.full((4, 4), 4 / 5).fill_diagonal_(1))),
    # progressive: alpha / sqrt(1 + alpha^2) from each frame to the next
    (Progressive(1.0), _covariance(math.sqrt(1 / 2) ** FRAMES_APART)),
    (Progressive(3.0), _covariance(math.sqrt(9 / 10) ** FRAMES_APART)),
]


@pytest.mark.parametrize(("prior", "expected"), COVARIANCES, ids=[str(prior) for prior, _ in COVARIANCES])
def test_covariance_of_a_clip_is_that_of_the_paper(prior: NoisePrior, expected: Tensor) -> None:
    draws = prior(0, "noise", range(6000), SHAPE).flatten(1)
    # The deviation of an entry of Gaussian draws' covariance; beyond five, once in two million entries.
    deviation = ((expected.diag()[:, None] * expected.diag() + expected**2) / len(draws)).sqrt()

    assert ((draws.T.cov() - expected).abs() < 5 * deviation).all()
    assert (draws.mean(0).abs() < 5 * (expected.diag() / len(draws)).sqrt()).all()


@pytest.mark.parametrize("prior", EVERY_PRIOR, ids=str)
def test_noise_of_a_position_does_not_depend_on_its_batch(prior: NoisePrior) -> None:
    together = prior(3, "noise", range(8), (3, 5, 4, 2))
    alone = torch.cat([prior(3, "noise", [position], (3, 5, 4, 2)) for position in reversed(range(8))])

    assert (together.shape, together.dtype) == ((8, 3, 5, 4, 2), torch.float32)
    assert torch.equal(together, alone.flip(0))


@pytest.mark.parametrize("prior", EVERY_PRIOR, ids=str)
def test_positions_may_be_read_only_once(prior: NoisePrior) -> None:
    assert torch.equal(prior(0, "noise", iter(["a", "b"]), SHAPE), prior(0, "noise", ["a", "b"], SHAPE))


@pytest.mark.parametrize("prior", EVERY_PRIOR, ids=str)
def test_seed_purpose_and_position_each_change_all_of_the_noise(prior: NoisePrior) -> None:
    draws = [prior(*key, SHAPE) for key in ((0, "a", [0]), (1, "a", [0]), (0, "b", [0]), (0, "a", [1]))]

    for index, one in enumerate(draws):
        for other in draws[:index]:
            assert not (one == other).any()


@pytest.mark.parametrize("prior", [Offset(0.0), Mixed(0.0), Progressive(0.0)], ids=str)
def test_without_correlation_each_is_independent_noise(prior: NoisePrior) -> None:
    assert torch.equal(prior(0, "noise", range(3), SHAPE), Independent()(0, "noise", range(3), SHAPE))


@pytest.mark.parametrize(("prior", "name"), [(Offset, "strength"), (Mixed, "alpha"), (Progressive, "alpha")])
def test_negative_correlation_is_refused(prior: type[NoisePrior], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be >= 0, but is -0\.5$"):
        prior(**{name: -0.5})
