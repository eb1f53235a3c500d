from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.data.shard_sets import write_set
from tests.training.runs import configuration
from vdm.cli.train import check
from vdm.config import ConfigError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (4,), "validation": (2,)})


def test_configuration_that_can_be_trained_passes_the_check_before_submitting(shards: Path) -> None:
    check(OmegaConf.create(configuration(shards, "launcher=slurm", "nodes=2", "gpus_per_node=8")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network.channels=wide", r"^model\.network\.channels: 'wide' is not allowed"),
        ("trainer.num_nodes=many", r"^trainer\.num_nodes: 'many' is not allowed"),
        ("launcher.cpus_per_task=few", r"^launcher\.cpus_per_task: 'few' is not allowed"),
        ("data.path=/nowhere", "/nowhere"),
    ],
)
def test_mistake_is_found_before_submitting(shards: Path, override: str, message: str) -> None:
    config = configuration(shards, "launcher=slurm", override)

    with pytest.raises(ValueError, match=message) as caught:
        check(OmegaConf.create(config))

    assert isinstance(caught.value, ConfigError)
