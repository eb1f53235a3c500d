"""ModelScope's network in small, trained from scratch: pixels and a text encoder that is trained along."""

from pathlib import Path

import torch

from tests.training.runs import configuration, train
from vdm.assembly.model import VideoDiffusionModel
from vdm.generation.generate import generate
from vdm.models.modelscope.unet import ModelScopeUNet
from vdm.training.training_run import TrainingRun, build_training
from vdm.types import ClipSize


@torch.no_grad()
def held_out_loss(model: VideoDiffusionModel, training: TrainingRun) -> float:
    batch = next(iter(training.data.val_dataloader()))
    x0 = model.encoder.encode(batch.video)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    prompts = model.prompts(batch.captions)
    times = torch.tensor([0.25, 0.75])
    losses = [model.eval().denoising_loss(x0, noise, t.expand(len(x0)), prompts) for t in times]
    return torch.cat(losses).mean().item()


def test_a_few_steps_on_moving_digits_lower_the_held_out_loss(tmp_path: Path, digits: Path) -> None:
    wishes = ("trainer.max_steps=6", "data.num_images_per_clip=1", "optimizer.lr=4e-3", "averages.half_lives=[2]")
    config = configuration(digits, "experiment=modelscope_digits", *wishes, without=("model.network.",))
    untrained = build_training(config, tmp_path / "untrained")
    before = held_out_loss(untrained.module.model, untrained)
    training = train(tmp_path / "run", config)
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run")

    assert isinstance(model.network, ModelScopeUNet)
    assert model.network.text_channels == model.conditioner.text_channels == 16
    after = held_out_loss(model, training)
    assert after < 0.5 * before
    video = generate(model, model.prompts(["the digit one moves down"]), ClipSize(3, 16, 16))
    assert video.shape == (1, 3, 3, 16, 16)
