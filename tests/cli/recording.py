"""The record of a run that is not trained."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vdm.checkpoints.run_record import record_run


def record(config: DictConfig) -> None:
    """Record a run in its folder, as ``vdm train`` does; it stands in for training."""
    plain: Any = OmegaConf.to_container(config)
    record_run(Path(HydraConfig.get().runtime.output_dir), plain)
