"""Small training runs for tests: the real configuration, a network of some thousand weights, in this process."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir
from vdm.training.training_run import TrainingRun, build_training

TINY = (
    "model.network.channels=[16,16]",
    "model.network.attention_levels=[1]",
    "model.network.temporal_levels=[1]",
    "model.network.head_channels=8",
    "text_encoder.channels=16",
    "text_encoder.head_channels=8",
    "text_encoder.num_layers=1",
    "lr_schedule.warmup_steps=2",
    "optimizer.lr=1e-3",
    "data.global_batch_size=4",
    "data.micro_batch_size=4",
    "data.num_workers=0",
    "trainer.max_steps=4",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "sampler.num_steps=2",
    "logger=csv",
    "callbacks.samples=null",
    "callbacks.progress=null",
)
"""Overrides that make a run small."""
SGD = ("+optimizer.momentum=0", "~optimizer.betas", "optimizer._target_=torch.optim.SGD", "optimizer.weight_decay=0")
"""With plain gradient descent, one step moves the weights by the gradient itself."""


def tiny_without(*keys: str) -> list[str]:
    """Return ``TINY`` without the overrides that begin with one of the keys."""
    return [override for override in TINY if not keys or not override.startswith(keys)]


def configuration(shards: Path, *overrides: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Compose ``conf/train.yaml`` for a small run, leaving out of ``TINY`` the keys that begin as in ``without``."""
    tiny = tiny_without(*without)
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [f"data.path={shards}", *tiny, *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def train(run: Path, config: dict[str, Any], resume: bool = False) -> TrainingRun:
    """Build a run, record it and train to the end, as ``vdm train`` does; return what was trained."""
    training = build_training(config, run)
    training.record()
    training.fit(run if resume else None)
    return training
