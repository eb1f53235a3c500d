import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.assembly.small_model import config, save_run, small_model
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import load_config, write_config

CLIP = {"num_frames": 2, "height": 8, "width": 8, "fps": 8, "label_names": ["a ${b}", "ünï"]}
DATA = {"_target_": "vdm.data.datamodule.ClipDataModule", "path": "clips", "seed": 3, "global_batch_size": 4}
HARMFUL = {"_target_": "os.mkdir", "path": "made"}


def written(folder: Path, **changes: object) -> Path:
    write_config(folder, config(**{"clip": CLIP, "data": DATA, **changes}))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "made").exists()


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    found = RunConfig.read(written(tmp_path / "run", guidance_scale=2.5))
    assert found.parts["encoder"] == config()["encoder"]
    assert (found.guidance_scale, found.clip.num_frames, found.clip.label_names) == (2.5, 2, ("a ${b}", "ünï"))
    assert (found.data.path, found.data.seed, found.data.global_batch_size) == ("clips", 3, 4)


def test_what_was_read_is_the_same_when_recorded_again(tmp_path: Path) -> None:
    first = RunConfig.read(written(tmp_path / "run", averages={"sigma_rels": [0.05, 0.1]}, guidance_scale=2))
    write_config(tmp_path / "again", first.plain())
    assert RunConfig.read(tmp_path / "again").plain() == first.plain()
    assert first.plain()["averages"] == {"sigma_rels": [0.05, 0.1]}


def test_of_data_nothing_is_kept_that_writes_connects_or_keeps(tmp_path: Path) -> None:
    harmful = {"quarantine_path": "/home/somebody/.bashrc", "cache_path": "/", "cache_gib": 1e-9, "own": HARMFUL}
    found = RunConfig.read(written(tmp_path / "run", data={**DATA, **harmful}))
    assert found.plain()["data"] == DATA
    assert "bashrc" not in str(found.plain())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder": HARMFUL}, r"encoder\._target_"),
        ({"sampler__num_steps": HARMFUL}, r"sampler\.num_steps"),
        ({"sampler__num_steps": {"_target_": "vdm.models.autoencoder.PixelAutoencoder"}}, r"sampler\.num_steps"),
        ({"guidance__scale": [HARMFUL]}, r"guidance\.scale"),
        ({"model__network__channels": [8, HARMFUL]}, r"model\.network\.channels"),
        ({"model__network__num_blocks": 10**7}, r"model\.network\.num_blocks"),
        ({"model__network__num_blocks": "1"}, r"model\.network\.num_blocks"),
        ({"model__network__unknown": 1}, r"model\.network\.unknown"),
        ({"model__network__channels": [8] * 10_000}, r"model\.network\.channels"),
        ({"model__network": "os.system"}, r".*config\.yaml: model\.network"),
        (
            {"diffusion__schedule": {"_target_": "vdm.models.autoencoder.torch.hub.load"}},
            r"diffusion\.schedule\._target_",
        ),
        ({"diffusion__schedule": {"_target_": "vdm.checkpoints.removal.prune"}}, r"diffusion\.schedule\._target_"),
        ({"diffusion__schedule___partial_": True}, r"diffusion\.schedule\._partial_"),
        ({"diffusion__clip_denoised": "${oc.env:HOME}"}, r"diffusion\.clip_denoised"),
        ({"encoder__${oc.env:HOME}": 1}, "encoder"),
        ({"clip": {**CLIP, "num_frames": HARMFUL}}, r".*config\.yaml: clip\.num_frames"),
        ({"clip": {**CLIP, "height": 10**9}}, r".*config\.yaml: clip\.height"),
        ({"clip": {**CLIP, "fps": -1}}, r".*config\.yaml: clip\.fps"),
        ({"clip": {**CLIP, "label_names": "abc"}}, r".*config\.yaml: clip\.label_names"),
        ({"guidance_scale": HARMFUL}, r".*config\.yaml: guidance_scale"),
        ({"guidance_scale": math.nan}, r".*config\.yaml: guidance_scale"),
        ({"data": HARMFUL}, r".*config\.yaml: data\._target_"),
        ({"data": {**DATA, "clips": HARMFUL}}, r".*config\.yaml: data\.clips\._target_"),
        ({"data": {**DATA, "path": HARMFUL}}, r".*config\.yaml: data: path="),
        ({"averages": {"sigma_rels": [HARMFUL]}}, r".*config\.yaml: averages: sigma_rels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_nothing_else_passes_and_is_named_in_one_line(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    run = written(tmp_path / "run", **changes)
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"^{named}") as caught:
        RunConfig.read(run)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, config())
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("run_format: 1", "run_format: 2"))
    with pytest.raises(ValueError, match=rf"^{file}: run_format=2: written by another version of vdm"):
        load_config(tmp_path)


def test_a_run_that_is_older_than_its_format_is_read(tmp_path: Path) -> None:
    write_config(tmp_path, config())
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("run_format: 1\n", ""))
    assert load_config(tmp_path) == config()


def test_a_configuration_inside_of_a_checkpoint_is_not_the_runs(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", small_model())
    checkpoint = next((run / "checkpoints").iterdir())
    write_config(checkpoint, config(encoder=HARMFUL))
    assert RunConfig.read(checkpoint).parts["encoder"] == config()["encoder"]
    with pytest.raises(ValueError, match=r"config\.yaml: is not one of the checkpoint's files$"):
        VideoDiffusionModel.from_checkpoint(checkpoint)


def test_a_model_too_large_for_its_weights_takes_no_memory(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", small_model(), model__network__channels=[32_000, 64_000])
    with pytest.raises(ValueError, match=rf"^{run}/checkpoints/step=00000007: weights of another model: network\."):
        VideoDiffusionModel.from_checkpoint(run)


@pytest.mark.parametrize("kind", ["FrameAutoencoder", "WanAutoencoder"])
def test_what_a_run_names_on_the_hub_is_not_fetched(tmp_path: Path, kind: str) -> None:
    encoder = {"_target_": f"vdm.models.diffusers_autoencoders.{kind}", "name_or_path": "somebody/something"}
    run = save_run(tmp_path / "run", small_model(), encoder=encoder)
    with pytest.raises(ValueError, match=r"^encoder\.name_or_path: somebody/something: not on this machine"):
        VideoDiffusionModel.from_checkpoint(run)


def test_a_run_named_by_its_checkpoint_is_found_from_within(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", small_model())
    (folder,) = (run / "checkpoints").iterdir()
    assert folder == checkpoint_folder(run, 7) or folder.name.startswith("step=")
    os.chdir(run / "checkpoints")
    assert RunConfig.read(Path(folder.name)).parts["encoder"] == config()["encoder"]
