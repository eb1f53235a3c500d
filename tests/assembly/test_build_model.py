import re
from pathlib import Path

import pytest
import torch

import vdm
from tests.assembly.small_model import config, save_config, save_run, small_model
from tests.models.networks import random_input
from vdm.assembly.build_model import build_model
from vdm.assembly.load import load_autoguidance_model, load_into, load_trained
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.layout import checkpoint_folder
from vdm.config import ConfigError
from vdm.generation.pipeline import load_model
from vdm.models.autoencoder import Compression

HARMFUL = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "vdm.models.space_time_unet.torch.load",
    "vdm.models.space_time_unet.torch.hub.load",
    "vdm.models.attention.nn.Linear",
    "vdm.models.text_encoders.Path",
    "vdm.diffusion.schedules.cosine.math.exp",
    "vdm.modelsx.Network",
    "vdm.cli.train.run",
]


def test_network_is_told_what_it_must_fit() -> None:
    model = build_model(config())

    assert model.network.text_channels == model.conditioner.text_channels == 8
    assert model.network.vector_channels == model.conditioner.vector_channels == 16
    assert model.network.image_conditioned
    assert model.network.in_channels == 3


def test_model_without_conditions_needs_no_text_encoder() -> None:
    conditioner = {
        "_target_": "vdm.models.embedding_conditioner.EmbeddingConditioner",
        "text_encoder": {"_target_": "vdm.models.text_encoders.no_text"},
    }
    model = build_model(config(model__conditioner=conditioner))

    assert model(torch.zeros(1, 3, 2, 8, 8), [""]).shape == (1, 3, 2, 8, 8)


def test_loaded_model_makes_the_videos_of_the_saved_one(tmp_path: Path) -> None:
    saved = small_model()
    noise = random_input("sampling", 1, 3, 2, 8, 8)
    run = save_run(tmp_path, saved)
    loaded = VideoDiffusionModel.from_checkpoint(run)

    assert not loaded.training
    assert torch.equal(loaded(noise, ["a dog"]), saved(noise, ["a dog"]))
    assert torch.equal(
        VideoDiffusionModel.from_checkpoint(checkpoint_folder(run, 7))(noise, ["a dog"]), saved(noise, ["a dog"])
    )


def test_averaged_weights_are_taken_unless_told_otherwise(tmp_path: Path) -> None:
    model = small_model()
    save_run(tmp_path, model, ema={name: 2 * weight for name, weight in model.named_parameters()})

    for name, weight in model.named_parameters():
        assert torch.equal(VideoDiffusionModel.from_checkpoint(tmp_path).get_parameter(name), 2 * weight)
        break
    for name, weight in VideoDiffusionModel.from_checkpoint(str(tmp_path), ema=False).named_parameters():
        assert torch.equal(weight, model.get_parameter(name))


@pytest.mark.parametrize("target", HARMFUL)
def test_checkpoint_that_names_foreign_code_is_refused(tmp_path: Path, target: str) -> None:
    save_config(tmp_path, encoder={"_target_": target})

    with pytest.raises(
        ConfigError, match=rf"^encoder\._target_: '{target}' is not allowed: it (must lie in|is defined)"
    ):
        VideoDiffusionModel.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "key",
    ["model__network", "model__conditioner__text_encoder", "diffusion", "diffusion__schedule", "sampler", "guidance"],
)
def test_foreign_code_is_refused_in_every_part_of_a_model(tmp_path: Path, key: str) -> None:
    save_config(tmp_path, **{key: {"_target_": "os.system", "command": "false"}})

    with pytest.raises(ConfigError, match=r"'os\.system' is not allowed"):
        VideoDiffusionModel.from_checkpoint(tmp_path)


def test_own_code_is_run_where_the_user_says_so(tmp_path: Path) -> None:
    own = {"_target_": "tests.assembly.test_build_model.OwnEncoder"}
    save_run(tmp_path, small_model(), encoder=own)

    with pytest.raises(ConfigError, match=r"^encoder\._target_: "):
        VideoDiffusionModel.from_checkpoint(tmp_path)
    assert type(VideoDiffusionModel.from_checkpoint(tmp_path, allow_own_code=True).encoder).__name__ == "OwnEncoder"


class OwnEncoder:
    """Stands for a class of the user's own."""

    channels = 3
    compression = Compression()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__network__channels": [16, 16]}, r"network\.\S+ has shape \[.*\], but \[.*\] here"),
        ({"model__network__num_blocks": 2}, r"network\.\S+ has shape"),
        ({"model__conditioner__num_classes": 5}, r"conditioner\.embed_class\.weight has shape \[4, 8\], but \[6, 8\]"),
        ({"model__conditioner__image": False}, r"network\.entrance\.weight has shape"),
    ],
    ids=str,
)
def test_weights_of_another_model_are_named_in_one_line(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    save_run(tmp_path, small_model(), **changes)

    with pytest.raises(ValueError, match=rf"^{tmp_path}/checkpoints/\S+: weights of another model: {named}") as caught:
        VideoDiffusionModel.from_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_go_into_a_model_already_built(tmp_path: Path) -> None:
    saved, model = small_model(), build_model(config())
    load_into(model, save_run(tmp_path, saved))

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name])


def test_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{tmp_path}/none: not a run"):
        VideoDiffusionModel.from_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__conditioner__num_classes": 5}, "its number of classes is 5, but that of the model to be guided is 3"),
        (
            {"encoder": {"_target_": "tests.assembly.test_build_model.OwnEncoder"}},
            "its encoder is OwnEncoder, but that of the model to be guided is PixelAutoencoder",
        ),
    ],
    ids=str,
)
def test_guide_that_can_t_be_told_the_same_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    save_run(tmp_path, small_model(**changes), **changes)

    with pytest.raises(ValueError, match=f"^guide={tmp_path}: {message}$"):
        load_autoguidance_model(small_model(), tmp_path, allow_own_code=True)


def test_guide_with_another_compression_is_refused(tmp_path: Path) -> None:
    model = small_model()
    model.encoder.compression = Compression(frames=4, pixels=8)
    save_run(tmp_path, small_model())

    message = "its frames and pixels in a latent is (1, 1), but that of the model to be guided is (4, 8)"
    with pytest.raises(ValueError, match=f"^{re.escape(f'guide={tmp_path}: {message}')}$"):
        load_autoguidance_model(model, tmp_path)


def test_guide_may_be_of_another_size(tmp_path: Path) -> None:
    smaller = {"model__network__channels": [8, 8]}
    save_run(tmp_path, small_model(**smaller), **smaller)
    model = small_model()
    model.autoguidance_model = load_autoguidance_model(model, tmp_path)

    assert model(random_input("sampling", 1, 3, 2, 8, 8), ["a dog"]).shape == (1, 3, 2, 8, 8)


def test_conditioner_that_lacks_what_all_have_is_refused_by_name() -> None:
    node = {"_target_": "vdm.models.svd.conditioner.MotionBuckets"}

    with pytest.raises(
        ConfigError,
        match=r"^model\.conditioner: MotionBuckets lacks needs_motion, needs_pixels, num_classes, .*, with_",
    ):
        build_model(config(model__conditioner=node))


def test_the_public_ways_in_are_one() -> None:
    assert vdm.VideoDiffusionModel is VideoDiffusionModel
    assert vdm.load_model is load_model
    assert VideoDiffusionModel.from_checkpoint is load_trained
