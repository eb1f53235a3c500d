"""Weights of published files and other runs: each process reads its part, and the run is that of one process."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.data.shard_sets import write_set
from tests.models.dit.pipelines import save_pipeline
from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.test_strategies import content, curve
from tests.training.zygote import Zygote
from vdm.assembly.load import load_trained

NETWORK = "transformer/diffusion_pytorch_model.safetensors"
NOT_WAN = ("model.", "text_encoder")
LORA = "tune=lora tune.rank=2"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("published") / "pipeline")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("clips"), {"train": (5, 6), "validation": (5,)}, shapes=((5, 16, 32),))


def tuning(published: Path, *options: str) -> list[str]:
    recomputed = "blocks.recompute=[0]"  # the network's only level
    return ["experiment=wan_finetune", f"model.pretrained={published}", "callbacks.samples=null", recomputed, *options]


def same_content(one: Path, many: Path) -> None:
    expected, found = content(one), content(many)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-7, msg=name)
    assert curve(many, "train/loss") == pytest.approx(curve(one, "train/loss"), rel=1e-5)


def _rows(number: int, rank: int) -> int:
    """Return how many rows of a tensor one of two processes has: the first one has the odd one."""
    return -(-number // 2) if rank == 0 else number // 2


@pytest.mark.parametrize("options", ["", LORA], ids=["all weights", "LoRA"])
def test_each_process_reads_its_part_of_published_weights_once_and_the_run_is_that_of_one(
    published: Path, clips: Path, tmp_path: Path, zygote: Zygote, options: str
) -> None:
    folder = shutil.copytree(published, tmp_path / "pipeline")
    wishes = tuning(folder, *options.split())
    train(
        tmp_path / "one", configuration(clips, *ADAMW, *MICRO_BATCHES, *wishes, "trainer.max_steps=4", without=NOT_WAN)
    )

    counting = f"+callbacks.x={{_target_:tests.training.planting.CountReading,folder:{tmp_path}/counts}}"
    stage = " ".join([*wishes, f"without={','.join(NOT_WAN)}"])
    train_in_processes(clips, tmp_path / "many", f"fsdp2 2 {counting} {stage}", zygote=zygote)
    shapes = {name: tensor.shape for name, tensor in load_file(folder / NETWORK).items()}
    for rank in (0, 1):
        counts = json.loads((tmp_path / "counts" / f"{rank}.json").read_text())
        rows = [_rows(shape[0], rank) for shape in shapes.values()]
        parts = [number * math.prod(shape[1:]) for number, shape in zip(rows, shapes.values(), strict=True)]
        assert counts == {"all": sum(parts), "largest": max(parts), "on_meta": sum(map(math.prod, shapes.values()))}
    assert set(load_trained(tmp_path / "many").network.state_dict()) == set(shapes)

    (folder / "transformer").rename(tmp_path / "gone")  # a resumed run takes its weights from the checkpoint alone
    stages = (f"fsdp2 3 {stage} strategy.offload=true", f"ddp 4 {stage}")
    train_in_processes(clips, tmp_path / "many", *stages, zygote=zygote)
    same_content(tmp_path / "one", tmp_path / "many")


@pytest.mark.parametrize("objective", ["", "objective._target_=tests.objectives.own.NearReference"])
def test_each_process_begins_with_its_part_of_another_runs_averages(
    shards: Path, tmp_path: Path, zygote: Zygote, objective: str
) -> None:
    lora = [*LORA.split(), "tune.layers=[network.*]", "optimizer.lr=1e-2", "trainer.max_steps=2"]
    train(tmp_path / "first", configuration(shards, *lora))
    wishes = [f"init_from={tmp_path / 'first'}", *objective.split()]
    train(tmp_path / "one", configuration(shards, *ADAMW, *MICRO_BATCHES, *wishes, "trainer.max_steps=2"))
    train_in_processes(shards, tmp_path / "many", " ".join(["fsdp2 2", *wishes]), zygote=zygote)

    same_content(tmp_path / "one", tmp_path / "many")
    if objective:  # it copies the model when it is built
        reference = content(tmp_path / "one")
        begun = load_trained(tmp_path / "first").state_dict()
        assert all(torch.equal(reference[f"weights objective.reference.{name}"], begun[name]) for name in begun)
