"""``vdm plan``: for the shipped models, without their memory, their weights or a data set; near what training takes."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.plan_memory import measure_apart
from tests.data.shard_sets import write_set
from tests.models.wan import save_autoencoder
from tests.training.runs import configuration
from vdm.assembly.build_model import build_model
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.training.planning.step import Clips, measure_step
from vdm.training.planning.structure import no_memory, pretrained_by_configuration
from vdm.types import ClipSize

Plan = Callable[..., tuple[int, str, str]]
SVD = ("model=svd", "encoder=svd", "text_encoder=none", "diffusion=svd", "sampler=svd", "guidance=linear_over_frames")


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Plan:
    """Run ``vdm plan`` within this process; it returns its exit code, its output and what it said to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vdm", "plan", *arguments])
        capfd.readouterr()
        code = run_program("vdm", COMMANDS)
        return code, *capfd.readouterr()

    return run


def rows(output: str) -> dict[str, list[str]]:
    """Return the table's rows by strategy."""
    lines = output.split("\n\n")[1].splitlines()[1:]
    return {" ".join(line[2:].split()[:-9] or line[2:].split()[:1]): line.split()[-9:] for line in lines}


def test_plan_tells_what_each_strategy_takes(plan: Plan, tmp_path: Path) -> None:
    code, output, _ = plan(
        "experiment=moving_digits", "clip_shape=[8,32,32]", "devices=4", "nodes=2", "memory_gib=2.1", "strategy=fsdp2"
    )
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    assert "devices          8 (2 x 4) of 2.1 GiB" in output
    assert "1 micro-batches of 1 clips of 8x32x32 on each device" in output
    table = rows(output)
    assert list(table) == [
        "strategy=fsdp2",
        "one device",
        "strategy=ddp",
        "strategy=fsdp2 strategy.replicate=nodes",
        *(f"strategy=deepspeed_zero{stage}" for stage in (1, 2, 3)),
    ]
    assert len({len(line) for line in output.split("\n\n")[1].splitlines()[1:]}) <= 2, "but for yes and no"
    weights = {name: float(row[0]) for name, row in table.items()}
    assert weights["strategy=fsdp2"] == pytest.approx(weights["one device"] / 8, abs=1e-3)
    assert {row[-1] for row in table.values()} <= {"yes", "no"}
    assert table["strategy=ddp"][-1] == "no"


@pytest.mark.parametrize(("more", "per_node"), [(("gpus_per_node=8",), 8), (("gpus_per_node=0",), 1)])
def test_options_of_a_slurm_job_are_planned_for_and_not_submitted(
    plan: Plan, tmp_path: Path, more: tuple[str, ...], per_node: int
) -> None:
    job = ("launcher=slurm", "nodes=2", "launcher.partition=gpu", *more)
    code, output, _ = plan("experiment=moving_digits", "clip_shape=[8,32,32]", *job)
    assert code == 0
    assert f"devices          {2 * per_node} (2 x {per_node}) of 80 GiB" in output
    assert list(tmp_path.iterdir()) == []


def test_plan_takes_the_clips_of_a_set(plan: Plan, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "set", {"train": (2,), "validation": (1,)})
    code, output, _ = plan("model=unet_small", f"data.path={shards}")
    assert code == 0
    assert "clips of 4x16x32 on each device" in output


def test_stable_video_diffusion_is_planned_without_its_weights_or_memory(plan: Plan) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clips = ("clip_shape=[14,320,576]", "data.micro_batch_size=1", "data.global_batch_size=8", "devices=8")
    code, output, errors = plan(*SVD, *clips, "trainer.precision=bf16-mixed", "strategy=ddp")
    assert code == 0, errors
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "KiB; the weights alone are 8.6 GiB"
    assert rows(output)["strategy=ddp"][-1] == "yes"
    # Published: 1,524,623,082 weights of the network.
    config = configuration(Path("nowhere"), *SVD, without=("model.", "text_encoder.", "sampler."))
    with pretrained_by_configuration():
        model = build_model(config, on=no_memory(FakeTensorMode(allow_non_fake_inputs=True)))
    assert sum(p.numel() for p in model.network.parameters()) == 1_524_623_082


def test_latent_frames_are_planned_for_and_not_those_of_clips(plan: Plan, tmp_path: Path) -> None:
    """Of five frames, a causal autoencoder makes two."""
    encoder = ("encoder=wan", f"encoder.name_or_path={save_autoencoder(tmp_path)}", "text_encoder=none")
    config = configuration(tmp_path, *encoder, without=("text_encoder.",))
    one, two = (measure_step(config, Clips(1, ClipSize(n, 16, 32), latents=True)) for n in (1, 5))
    from_pixels = measure_step(config, Clips(1, ClipSize(5, 16, 32)))

    assert two.flops / one.flops == pytest.approx(2, rel=0.1)
    assert from_pixels.flops > two.flops, "the autoencoder's own"
    assert from_pixels.kept.bytes(0) == pytest.approx(two.kept.bytes(0), rel=0.1)
    code, _, errors = plan(*encoder, "clip_shape=[8,16,32]")
    assert code == 2
    assert errors.strip() == "clip_shape: num_frames=8: the autoencoder takes 4k + 1 frames: 5 or 9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("data.path=nowhere",),
            "data.path: nowhere: no such folder; plan without it by clip_shape=[frames,height,width]",
        ),
        (("data=shards",), "data.path: not given; plan without it by clip_shape=[frames,height,width]"),
        (("clip_shape=[8,32]",), "clip_shape=[8, 32]: must be [frames, height, width], each a whole number above 0"),
        (("clip_shape=[8,30,32]",), "clip_shape: "),
        (("clip_shape=[8,32,32]", "devices=0"), "devices=0: must be a whole number, at least 1"),
        (("clip_shape=[8,32,32]", "memory_gib=much"), "memory_gib=much: must be a number of GiB, at least 0"),
        (
            ("clip_shape=[8,32,32]", "data.micro_batch_size=0"),
            "data.micro_batch_size: 0 is not allowed: must be at least 1",
        ),
        (("clip_shape=[8,32,32]", "blocks.recompute=[9]"), "blocks: recompute: the network has blocks of levels"),
    ],
)
def test_impossible_plan_is_refused_in_one_line(plan: Plan, arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = plan(*arguments)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith(message)


def test_planned_peak_is_near_what_training_takes(tmp_path: Path) -> None:
    shards = write_set(tmp_path / "set", {"train": (4,), "validation": (1,)}, ((8, 32, 32),))
    measured, planned = measure_apart(str(shards), "experiment=moving_digits")
    assert planned == pytest.approx(measured, rel=0.15)
