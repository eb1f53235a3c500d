"""Stable Video Diffusion in training: what its network is told of each clip, and starting from published weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.svd.peers import our_unet
from tests.models.svd.pipelines import SIZES, pipeline, save_pipeline
from tests.training.runs import configuration, train
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.config import ConfigError
from vdm.models.pretrained.stability import stability_names
from vdm.models.svd.conditioner import MotionBuckets
from vdm.models.svd.unet import ADDED_TIME_IDS
from vdm.objectives.condition_dropout import ConditionDropout
from vdm.prompts import Prompts
from vdm.training.training_run import TrainingRun, build_training

DIGITS = ("experiment=svd_digits", "model.network.channels=[32,32]", "model.network.num_heads=[1,1]")
NOT_SVD = ("model.network", "text_encoder")


def from_scratch(shards: Path, *overrides: str) -> dict:
    return configuration(shards, *DIGITS, "callbacks.samples=null", *overrides, without=NOT_SVD)


def finetuning(shards: Path, pretrained: Path, *overrides: str) -> dict:
    options = ("experiment=svd_finetune", f"model.pretrained={pretrained}", "blocks.recompute=none")
    return configuration(shards, *options, "callbacks.samples=null", *overrides, without=NOT_SVD)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("published"))


def prompts_of_first_batch(training: TrainingRun, rows: slice = slice(None)):  # noqa: ANN201
    batch = next(iter(training.data.train_dataloader()))
    part = batch.map(lambda tensor: tensor[rows])
    part = replace(part, captions=batch.captions[rows], keys=batch.keys[rows])
    model = training.module.model
    x0 = model.encoder.encode(part.video)
    return part, model.conditioner.of_clips(part, x0, model.encoder, seed=5, clip_ids=part.positions.tolist())


def test_each_clip_has_levels_and_numbers_of_its_own_whatever_its_batch(tmp_path: Path, shards: Path) -> None:
    training = build_training(from_scratch(shards), tmp_path)
    batch, together = prompts_of_first_batch(training)
    ids = together.conditions[ADDED_TIME_IDS].values

    assert torch.equal(ids[:, 0], batch.fps - 1)
    assert batch.motion is not None
    assert torch.equal(ids[:, 1], MotionBuckets()(batch.motion))
    assert len(set(ids[:, 2].tolist())) == len(batch) == 4
    for row in range(4):
        _, alone = prompts_of_first_batch(training, slice(row, row + 1))
        assert torch.equal(alone.conditions[ADDED_TIME_IDS].values, ids[row : row + 1])
        assert torch.equal(alone.conditions["image"].values, together.conditions["image"].values[row : row + 1])


def test_noise_on_the_first_frame_has_the_deviation_that_the_network_is_told(tmp_path: Path, shards: Path) -> None:
    training = build_training(from_scratch(shards), tmp_path)
    batch, prompts = prompts_of_first_batch(training)
    noise = prompts.conditions["image"].values - training.module.model.encoder.encode(batch.video[:, :, :1])[:, :, 0]
    # 3 x 16 x 32 draws: their deviation is known to 2%.
    torch.testing.assert_close(
        noise.std(dim=(1, 2, 3)), prompts.conditions[ADDED_TIME_IDS].values[:, 2], rtol=0.08, atol=0
    )


def test_levels_of_augmentation_are_log_normal(tmp_path: Path, shards: Path) -> None:
    conditioner = build_training(from_scratch(shards), tmp_path).module.model.conditioner
    logs = conditioner.augmentation.draw(seed=0, clip_ids=range(4000)).log()
    assert logs.mean().item() == pytest.approx(-3.0, abs=4 * 0.5 / 4000**0.5)
    assert logs.std().item() == pytest.approx(0.5, rel=4 / (2 * 4000) ** 0.5)


def test_buckets_keep_the_order_of_motion_between_0_and_255() -> None:
    buckets = MotionBuckets(0.04)(torch.tensor([0.0, 0.02, 0.04, 0.1, 100.0]))
    assert buckets.tolist() == [0.0, 100.0, 161.0, 234.0, 255.0]  # 255 (1 - exp(-x / 0.04)), rounded


def test_image_token_and_latents_are_left_out_separately(tmp_path: Path, shards: Path) -> None:
    training = build_training(from_scratch(shards), tmp_path)
    dropout = ConditionDropout({"image": 0.5, "image_token": 0.5})
    _, prompts = prompts_of_first_batch(training, slice(0, 1))
    prompts = Prompts(
        {
            name: prompts.conditions[name].map(lambda tensor: tensor.expand(400, *tensor.shape[1:]))
            for name in ("image", "image_token", ADDED_TIME_IDS)
        }
    )
    dropped = dropout.apply(prompts, seed=0, positions=range(400))
    has_image, has_token = (dropped.conditions[name].present for name in ("image", "image_token"))
    kinds = torch.stack([has_image, has_token], dim=1).int()
    counts = [(kinds == torch.tensor(pair)).all(dim=1).sum().item() for pair in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(count == pytest.approx(100, abs=4 * (400 * 0.25 * 0.75) ** 0.5) for count in counts)

    condition = training.module.model.conditioner(dropped, num_frames=4)
    assert torch.equal(condition.text.flatten(1).any(dim=1), has_token)
    assert torch.equal(condition.image.flatten(1).any(dim=1), has_image)


def test_leaving_out_a_condition_that_a_model_has_not_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^training.condition_dropout.text=0.3: the model has no such condition; it has: image, image_token$",
    ):
        build_training(from_scratch(shards, "training.condition_dropout.text=0.3"), tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"^training.condition_dropout.image_token=0.3: the model has no such condition; it has: text$",
    ):
        build_training(configuration(shards, "training.condition_dropout.image_token=0.3"), tmp_path)


def test_images_train_beside_clips_and_by_themselves(tmp_path: Path, shards: Path) -> None:
    beside = train(tmp_path / "beside", from_scratch(shards, "data.num_images_per_clip=2", "trainer.max_steps=1"))
    options = ("data.clips.shapes=[[1,16,32]]", "trainer.max_steps=1", "optimizer.weight_decay=0")
    alone = from_scratch(shards, *options)
    before = {n: p.clone() for n, p in build_training(alone, tmp_path / "x").module.model.network.named_parameters()}
    by_themselves = train(tmp_path / "alone", alone)

    assert all(p.isfinite().all() for p in beside.module.parameters())
    changed = {
        name for name, p in by_themselves.module.model.network.named_parameters() if not torch.equal(p, before[name])
    }
    assert any("spatial_res_block" in name for name in changed)
    assert not [name for name in changed if "temporal" in name], "the indicator keeps images out of layers over time"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_training_begins_with_published_weights_and_records_their_sizes(
    tmp_path: Path, shards: Path, published: Path, kind: str
) -> None:
    source, options = published, []
    if kind == "file":
        names = stability_names(our_unet(SIZES))
        source = tmp_path / "svd.safetensors"
        save_file({names[name]: tensor for name, tensor in pipeline().unet.state_dict().items()}, source)
        options = [f"encoder.name_or_path={published}"]
    config = finetuning(shards, source, "trainer.max_steps=1", *options)
    started = build_training(config, tmp_path / "started").module.model.network.state_dict()
    expected = load_file(published / "unet" / "diffusion_pytorch_model.safetensors")
    assert started.keys() == expected.keys()
    assert all(torch.equal(started[name], tensor) for name, tensor in expected.items())

    train(tmp_path / "run", config)
    recorded = load_config(tmp_path / "run")
    assert recorded["model"]["network"]["channels"] == list(SIZES.channels)
    assert recorded["encoder"]["name_or_path"] == str(published)
    source.rename(tmp_path / "moved") if kind == "file" else None
    assert (
        VideoDiffusionModel.from_checkpoint(tmp_path / "run").network.channels == SIZES.channels
    )  # without the published network


def test_bad_published_weights_are_refused_before_training(tmp_path: Path, shards: Path, published: Path) -> None:
    (tmp_path / "weights.ckpt").write_bytes(b"\x80\x02")
    for name, message in (
        (tmp_path / "weights.ckpt", "model.pretrained: .*weights.ckpt: not a safetensors file; a pickle"),
        (tmp_path / "nowhere", "model.pretrained: .*nowhere: no such folder or file"),
        (shards, "model.pretrained: .*there is no model_index.json; it is a set of shards: data.path="),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            build_training(finetuning(shards, name, f"encoder.name_or_path={published}"), tmp_path)
        assert "\n" not in str(error.value)
