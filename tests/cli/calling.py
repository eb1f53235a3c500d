"""Calls of commands from Python, and what they make."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vdm.cli import sample
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir


def call_vdm(*arguments: str) -> None:
    """Run a command, which must succeed: for fixtures of modules, where there is no ``run_vdm``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vdm", *arguments])
        assert run_program("vdm", COMMANDS) == 0


def import_and_export(published: Path, folder: Path) -> Path:
    """Import a published pipeline into the folder ``run`` in a folder, and export it from there into ``given``."""
    call_vdm("import", f"from={published}", f"to={folder / 'run'}")
    call_vdm("export", f"checkpoint={folder / 'run'}", f"to={folder / 'given'}")
    return folder


def composed(command: str, *overrides: str) -> DictConfig:
    """Return the configuration that a command composes from its command line."""
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, list(overrides))
    OmegaConf.resolve(config)
    return config


def frames_of(path: Path) -> np.ndarray:
    """Return the frames of a video: t h w c, RGB."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sampled(trained: Path, folder: Path, *overrides: str) -> list[np.ndarray]:
    """Run ``vdm sample`` and return the videos it wrote."""
    options = [f"checkpoint={trained}", f"output={folder}", "sampler.num_steps=2", *overrides]
    sample.run(composed("sample", *options))
    return [frames_of(path) for path in sorted(folder.glob("0*.mp4"))]


def names_in(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def refuses_damaged(
    open_folder: Callable[[Path, str], object], published: Path, damage: Callable[[Path], object], message: str
) -> None:
    """Expect that a copy of a published folder, named x in the present folder, is refused in one line when damaged."""
    shutil.copytree(published, "x")
    damage(Path("x"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as refused:
        open_folder(Path("x"), "x")
    assert "\n" not in str(refused.value)
