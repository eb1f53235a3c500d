"""The whole model: network, conditions, latents and diffusion, from noise to video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm import randomness
from vdm.diffusion.denoiser import Denoiser, Network
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.guidance import ClassifierFree, Guidance
from vdm.diffusion.samplers import DDIM, DrawNoise, OnStep, Sampler
from vdm.models.conditioner import Conditioner, append_images
from vdm.models.encoders import Encoder
from vdm.types import Prompts


class VideoDiffusionModel(nn.Module):
    """A text- or image-to-video diffusion model; calling it with noise makes a video.

    Args:
        network: Predicts from noised latents; holds most of the weights.
        conditioner: Embeds captions, classes and first frames.
        encoder: Between pixels and latents.
        diffusion: Schedule, parameterization and training distribution.
        sampler: How noise becomes a video unless told otherwise.
        guidance: How conditions are strengthened unless told otherwise.
    """

    def __init__(
        self,
        network: nn.Module,
        conditioner: Conditioner,
        encoder: Encoder,
        diffusion: GaussianDiffusion,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.conditioner = conditioner
        self.encoder = encoder
        self.diffusion = diffusion
        self.sampler: Sampler = sampler or DDIM()
        self.guidance: Guidance = guidance or ClassifierFree()

    @classmethod
    def from_checkpoint(cls, path: str | Path, ema: bool = True) -> Self:
        """Return the trained model of a run's folder, or of one of its checkpoints, on the CPU.

        Args:
            path: Folder of a run or of a checkpoint.
            ema: Take the averaged weights.

        Raises:
            ValueError: If there is no whole checkpoint, its weights don't fit its configuration, or its configuration
                names classes outside this project: ``vdm.generation.build.load_model`` can be told to allow them.
        """
        from vdm.generation.build import load_model  # imports this module

        return cast(Self, load_model(path, ema))

    @property
    def denoiser(self) -> Denoiser:
        """The network as a function that denoises."""
        return Denoiser(cast(Network, self.network), self.diffusion.parameterization, self.diffusion.clip_denoised)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def prompts(
        self,
        captions: str | Sequence[str],
        labels: Sequence[int] | None = None,
        image: UInt8[Tensor, "b c h w"] | None = None,
    ) -> Prompts:
        """Return prompts on the model's device.

        Args:
            captions: One caption a clip; a single text is one clip's.
            labels: One class a clip, -1 for none.
            image: RGB first frame of each clip.
        """
        captions = (captions,) if isinstance(captions, str) else tuple(captions)
        latents = None if image is None else self.encoder.encode(image.to(self.device)[:, :, None])[:, :, 0]
        return Prompts(
            captions=captions,
            labels=torch.tensor([-1] * len(captions) if labels is None else list(labels)),
            image=latents,
            has_image=None if latents is None else torch.ones(len(captions), dtype=torch.bool),
        ).to(self.device)

    def denoising_loss(
        self,
        x0: Float[Tensor, "b c t h w"],
        noise: Float[Tensor, "b c t h w"],
        t: Float[Tensor, " b"],
        prompts: Prompts,
        image_prompts: Prompts | None = None,
    ) -> Float[Tensor, " b"]:
        """Noise latents, predict, and return each clip's loss.

        Args:
            x0: Clean latents: the clip's frames, then those of its ``k`` independent images.
            noise: Standard normal noise.
            t: Time of each clip; 0 is data, 1 is noise.
            prompts: Conditions of the ``b`` clips.
            image_prompts: Conditions of the ``b k`` images, those of a clip adjacent; none where there are no images.
        """
        num_images = len(image_prompts) // len(prompts) if image_prompts is not None else 0
        noised = self.diffusion.add_noise(x0, noise, t)
        condition = self.conditioner(prompts, x0.shape[2] - num_images)
        if image_prompts is not None:
            condition = append_images(
                condition, self.conditioner(image_prompts, 1), x0.shape[2] - num_images, num_images
            )
        prediction = self.denoiser.predict(noised.xt, noised.alpha, noised.sigma, condition, num_images)
        return self.diffusion.loss(prediction, noised)

    @torch.no_grad()
    def forward(
        self,
        noise: Float[Tensor, "b c t h w"],
        condition: Prompts | Sequence[str],
        negative: str = "",
        draw_noise: DrawNoise | None = None,
        on_step: OnStep | None = None,
    ) -> UInt8[Tensor, "b c t h w"]:
        """Run the whole denoising loop and return RGB video.

        Args:
            noise: Standard normal noise in the shape of the latents.
            condition: Captions, or prompts made by ``prompts``, one a clip.
            negative: Caption to be guided away from; the empty one is the unconditional model.
            draw_noise: Fresh noise for each step of samplers that need it; by default a function of the clip's row.
            on_step: Called after each step with the number of steps done and the denoised latents.
        """
        prompts = condition if isinstance(condition, Prompts) else self.prompts(condition)
        if len(prompts) != len(noise):
            raise ValueError(f"noise for {len(noise)} clips, but conditions for {len(prompts)}")
        noise = noise.to(self.device)
        everything = torch.ones(len(prompts), dtype=torch.bool)
        unconditional = prompts.drop(everything, everything, everything)
        unconditional = Prompts(
            (negative,) * len(prompts), unconditional.labels, prompts.image, unconditional.has_image
        )
        denoise = self.guidance(
            self.denoiser,
            self.conditioner(prompts, noise.shape[2]),
            self.conditioner(unconditional, noise.shape[2]),
        )
        draw = draw_noise or step_noise(0, list(range(len(noise))), noise)
        return self.encoder.decode(self.sampler(denoise, noise, self.diffusion.schedule, draw, on_step))


def step_noise(seed: int, clips: Sequence[int], like: Tensor) -> DrawNoise:
    """Return fresh noise for each step as a function of (seed, step, clip), in the shape and place of ``like``."""

    def draw(step: int) -> Tensor:
        return randomness.normal(seed, f"sampler step {step}", clips, tuple(like.shape[1:])).to(like)

    return draw
