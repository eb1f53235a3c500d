"""The whole model: network, conditioner, autoencoder and diffusion, from noise to video."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from vdm.diffusion.denoiser import Denoise, Denoiser, Network, bounded
from vdm.diffusion.frame_levels import after_reference
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.guidance import Extrapolation, Guidance, IsHigh, by_expert
from vdm.diffusion.noise_priors import NoisePrior
from vdm.diffusion.observations import Observation, ObservationMethod, ReconstructionGuidance, denoise_after
from vdm.diffusion.samplers.base import DrawNoise, OnStep, OnTransition, Sampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.models.autoencoder import Autoencoder
from vdm.models.conditioner import Conditioner, append_images
from vdm.models.experts import TwoExperts
from vdm.prompts import Prompts
from vdm.types import NoisedLatents


class VideoDiffusionModel(nn.Module):
    """A text- or image-to-video diffusion model; calling it with noise makes a video.

    Videos can be made consistent with observations, here with their first three frames::

        known = Observation(model.encoder.encode(video[:, :, :3]), Frames((0, 1, 2), num_frames=8))
        video = model(noise, ["the digit three moves up"], observations=[known])

    ``vdm.generation.generate`` makes any number of videos of any length; ``vdm.generation.tasks`` extends, interpolates
    and enlarges videos.

    Args:
        network: Predicts from noised latents; has most of the weights.
        conditioner: Embeds conditions, such as captions, classes and first frames.
        encoder: The autoencoder, between pixels and latents.
        diffusion: Schedule, parameterization and training distribution.
        sampler: Default sampler.
        guidance: Default guidance.
        autoguidance_model: A smaller or less trained model of the same latents, to guide away from (Karras et al.
            2024). Without one, sampling guides away from this model without conditions (classifier-free guidance).
    """

    from_checkpoint: ClassVar[Callable[..., "VideoDiffusionModel"]]
    """``vdm.assembly.load.load_trained``, which assigns itself here."""

    def __init__(
        self,
        network: nn.Module,
        conditioner: Conditioner,
        encoder: Autoencoder,
        diffusion: GaussianDiffusion,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        autoguidance_model: "VideoDiffusionModel | None" = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.conditioner = conditioner
        self.encoder = encoder
        self.diffusion = diffusion
        self.sampler: Sampler = sampler or DDIM()
        self.guidance: Guidance = guidance or Extrapolation()
        self.autoguidance_model = autoguidance_model

    @property
    def denoiser(self) -> Denoiser:
        """The network and the parameterization of its output, as a function that denoises."""
        diffusion, network = self.diffusion, cast(Network, self.network)
        return Denoiser(network, diffusion.parameterization, diffusion.learned_variance)

    @property
    def device(self) -> torch.device:
        """Where the weights are, but for an expert that is kept elsewhere while it is idle."""
        if isinstance(self.network, TwoExperts):
            return self.network.device
        return next(self.parameters()).device

    def prompts(
        self,
        captions: str | Sequence[str],
        labels: Sequence[int] | None = None,
        image: UInt8[Tensor, "b c h w"] | None = None,
        seed: int = 0,
    ) -> Prompts:
        """Return prompts on the model's device; ``Prompts.with_conditions`` adds further conditions.

        Args:
            captions: One caption a clip; a single text is one clip.
            labels: One class a clip, -1 for none.
            image: RGB first frame of each clip.
            seed: Seed of random parts of conditions, such as noise on a first frame.

        Raises:
            ValueError: If there is a first frame, but the model takes none.
        """
        captions = (captions,) if isinstance(captions, str) else tuple(captions)
        prompts = Prompts.of(captions, None if labels is None else torch.tensor(list(labels))).to(self.device)
        if image is None:
            return prompts
        if "image" not in self.conditioner.takes:
            takes = ", ".join(self.conditioner.takes) or "none"
            raise ValueError(f"image: the model has no such condition; it has: {takes}")
        return self.conditioner.with_first_frame(prompts, image.to(self.device), self.encoder, seed)

    def denoising_loss(
        self,
        x0: Float[Tensor, "b c t h w"],
        noise: Float[Tensor, "b c t h w"],
        t: Float[Tensor, "b *frames"],
        prompts: Prompts,
        image_prompts: Prompts | None = None,
        counted: Bool[Tensor, "b t"] | None = None,
        reference: Float[Tensor, "b c t2 h w"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Add noise to latents, predict, and return the loss of each clip.

        Args:
            x0: Clean latents: the clip's frames, then those of its ``k`` independent images.
            noise: Noise drawn from the diffusion's ``noise_prior``.
            t: Time of each clip, or of each frame (``b t``), its images included; 0 is data, 1 is noise.
            prompts: Conditions of the ``b`` clips.
            image_prompts: Conditions of the ``b k`` images, those of a clip adjacent; none where there are no images.
            counted: Frames that count in the loss; None for all. If ``t`` has a time for each frame, the others stay
                clean.
            reference: Clean latents of a reference clip, encoded by itself, that stands before the clip in time.
        """
        noised = self.diffusion.add_noise(x0, noise, t, counted)
        return self.diffusion.loss(self.predict(noised, prompts, image_prompts, reference), noised, counted)

    def predict(
        self,
        noised: NoisedLatents,
        prompts: Prompts,
        image_prompts: Prompts | None = None,
        reference: Float[Tensor, "b c t2 h w"] | None = None,
    ) -> Float[Tensor, "b c_out t h w"]:
        """Return the network's raw output for noised latents; the arguments are those of ``denoising_loss``."""
        num_images = len(image_prompts) // len(prompts) if image_prompts is not None else 0
        levels = noised.xt, noised.alpha, noised.sigma
        number = 0 if reference is None else reference.shape[2]
        if reference is not None:
            levels = after_reference(reference, *levels)
        num_frames = levels[0].shape[2] - num_images
        condition = self.conditioner(prompts, num_frames)
        if image_prompts is not None:
            condition = append_images(condition, self.conditioner(image_prompts, 1), num_frames, num_images)
        return self.denoiser.predict(*levels, condition, num_images)[:, :, number:]

    def forward(
        self,
        noise: Float[Tensor, "b c t h w"],
        condition: Prompts | Sequence[str],
        negative: str = "",
        draw_noise: DrawNoise | None = None,
        on_step: OnStep | None = None,
        observations: Sequence[Observation] = (),
        method: ObservationMethod | None = None,
    ) -> UInt8[Tensor, "b c t h w"]:
        """Run the whole denoising loop and return RGB video; the arguments are those of ``sample``."""
        latents = self.sample(noise, condition, negative, draw_noise, on_step, observations, method)
        with torch.no_grad():
            return self.encoder.decode(latents)

    def sample(
        self,
        noise: Float[Tensor, "b c t h w"],
        condition: Prompts | Sequence[str],
        negative: str = "",
        draw_noise: DrawNoise | None = None,
        on_step: OnStep | None = None,
        observations: Sequence[Observation] = (),
        method: ObservationMethod | None = None,
        on_transition: OnTransition | None = None,
        gradients: bool = False,
        reference: Float[Tensor, "b c t2 h w"] | None = None,
    ) -> Float[Tensor, "b c t h w"]:
        """Run the sampler and return clean latents.

        Args:
            noise: Noise in the shape of the latents, drawn from the diffusion's ``noise_prior``.
            condition: Captions, or prompts made by ``prompts``, one a clip.
            negative: Caption to guide away from, in place of the empty one. Not with an autoguidance model.
            draw_noise: Noise for the steps of stochastic samplers; by default a function of the clip's row.
            on_step: Called after each step with the number of steps done and the denoised latents.
            observations: What is known of each clip, in latents.
            method: How sampling is made consistent with observations, by default reconstruction guidance.
            on_transition: Called when the sampler adds noise, with the distribution that it draws from; may return
                other latents to continue from.
            gradients: Whether latents and transitions are differentiable with respect to the weights. The activations
                of all steps are kept.
            reference: Clean latents of a reference clip, encoded by itself, that stands before each clip in time.

        Raises:
            ValueError: If noise, conditions and observations are not of equally many clips, a negative caption is given
                to a model with an autoguidance model, or gradients are asked for with reconstruction guidance, which
                computes gradients of its own.
        """
        with nullcontext() if gradients else torch.no_grad():
            denoise = self._denoise_function(noise, condition, negative, observations, method, gradients, reference)
            noise = noise.to(self.device)
            draw = draw_noise or step_noise(self.diffusion.noise_prior, 0, range(len(noise)), noise)
            schedule = self.diffusion.sampling_schedule(tuple(noise.shape[1:]))
            return self.sampler(denoise, noise, schedule, draw, on_step, on_transition)

    def _denoise_function(
        self,
        noise: Float[Tensor, "b c t h w"],
        condition: Prompts | Sequence[str],
        negative: str,
        observations: Sequence[Observation],
        method: ObservationMethod | None,
        gradients: bool,
        reference: Float[Tensor, "b c t2 h w"] | None,
    ) -> Denoise:
        """Return the denoising function with conditions, guidance, observations and bounds."""
        prompts = condition if isinstance(condition, Prompts) else self.prompts(condition)
        for name, count in (("conditions", len(prompts)), *(("observations", len(known.y)) for known in observations)):
            if count != len(noise):
                raise ValueError(f"noise for {len(noise)} clips, but {name} for {count}")
        number = 0 if reference is None else reference.shape[2]
        denoise = self._guided(prompts, number + noise.shape[2], negative)
        if reference is not None:
            denoise = denoise_after(denoise, reference.to(self.device))
        if observations:
            method = method or ReconstructionGuidance()
            if gradients and isinstance(method, ReconstructionGuidance):
                raise ValueError("gradients can't go through reconstruction guidance: choose another method")
            denoise = method(denoise, [observation.to(self.device) for observation in observations])
        return bounded(denoise, self.diffusion.clip_denoised)

    def _guided(self, prompts: Prompts, num_frames: int, negative: str) -> Denoise:
        """Return the denoising function with conditions and guidance, without bounds."""
        strong, guidance = self.conditioned(prompts, num_frames), by_expert(self.guidance, self._is_high)
        if self.autoguidance_model is not None:
            if negative:
                raise ValueError(f"negative={negative}: has no effect with an autoguidance model")
            return guidance(strong, self.autoguidance_model.conditioned(prompts, num_frames))
        without = prompts.without_conditions()
        return guidance(strong, self.conditioned(without.asking(negative) if negative else without, num_frames))

    @property
    def _is_high(self) -> IsHigh | None:
        """Tells which noise levels belong to the expert for high ones, if the network consists of two."""
        if not isinstance(self.network, TwoExperts):
            return None
        c_noise, of_timestep = self.diffusion.parameterization.c_noise, self.network.is_high
        return lambda alpha, sigma: of_timestep(c_noise(alpha, sigma))

    def conditioned(self, prompts: Prompts, num_frames: int) -> Denoise:
        """Return the denoising function with conditions, without guidance and bounds."""
        return partial(self.denoiser, condition=self.conditioner(prompts, num_frames))


def step_noise(
    prior: NoisePrior, seed: int, clips: Sequence[int], like: Tensor, purpose: str = "sampler step"
) -> DrawNoise:
    """Return noise for each step as a function of (seed, step, clip), with the shape and device of ``like``."""

    def draw(step: int) -> Tensor:
        return prior(seed, f"{purpose} {step}", clips, tuple(like.shape[1:])).to(like)

    return draw
