"""What training time buys: ours against ``video-diffusion-pytorch``, and settings of ours against each other.

    python -m benchmarks.quality [TRIAL ...] [--group peer|settings] [--data SHARDS] [--output FOLDER] [--list]

Each trial trains on moving digits for its minutes of wall-clock, samples, and compares the samples with held-out clips:
Fréchet distances of the digit classifier's and of TransNet's features. Of each trial FOLDER/TRIAL has the videos, a
picture of them and ``result.json``; trials that have one are not run again. The last table has them all.

The peer trains as its own ``Trainer`` does: Adam, L1 loss, 1000 steps of the cosine schedule, an average of the weights
with decay 0.995 after the first 2% of the time; batches of 8 clips, without its gradient accumulation, so that it makes
at least 100 steps in ten minutes. It samples by its only sampler, of 1000 steps, as many videos as an hour allows. Ours
samples in 20 steps. Without captions both learn clips alone; with them, which the peer can't read without a language
model from a hub, ours is sampled with held-out captions. Nothing else should run on the machine meanwhile.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

import vdm
from benchmarks.figures import Figure, record
from benchmarks.peers import video_diffusion_pytorch
from benchmarks.trainer import configuration
from vdm.config import build
from vdm.generation.video_files import write_grid, write_mp4

CLIP = (3, 8, 32, 32)
NUM_VIDEOS = 128
SAMPLING_SECONDS = 3600
"""For the peer's sampler, after its first 128 videos."""
METRICS = ("metric=[frechet_digits,frechet_transnet]", f"metric.frechet_transnet.num_frames={CLIP[1]}")
ALONE = ("callbacks.samples=null", "data.max_validation_clips=0", "logger=csv", "trainer.log_every_n_steps=10")
"""Nothing is done but training."""
TRIED_STEPS = 60
VDM = (sys.executable, "-m", "vdm.cli.main")
BATCH_SIZE = 16


@dataclass(frozen=True)
class Trial:
    """A training of so many minutes; settings are overrides of ``vdm train``, or the peer's own."""

    minutes: float
    settings: tuple[str, ...] = ()
    captions: bool = True
    peer: dict[str, float] = field(default_factory=dict)


PEER_TRIALS = {
    "peer_32_10": Trial(10, peer={"dim": 32, "lr": 1e-4}, captions=False),
    "peer_64_10": Trial(10, peer={"dim": 64, "lr": 1e-4}, captions=False),
    "peer_32_lr_10": Trial(10, peer={"dim": 32, "lr": 1e-3}, captions=False),
    "ours_10": Trial(10, captions=False),
    "ours_captions_10": Trial(10),
    "peer_32_30": Trial(30, peer={"dim": 32, "lr": 1e-3}, captions=False),
    "ours_30": Trial(30, captions=False),
}
SETTINGS_TRIALS = {
    "demo_3": Trial(3),
    "lr_1e-3_3": Trial(3, ("optimizer.lr=1e-3",)),
    "lr_4e-3_3": Trial(3, ("optimizer.lr=4e-3",)),
    "batch_16_3": Trial(3, ("data.global_batch_size=16", "data.micro_batch_size=16")),
    "batch_4_3": Trial(3, ("data.global_batch_size=4", "data.micro_batch_size=4")),
    "narrow_3": Trial(3, ("model.network.channels=[48,96]", "model.network.head_channels=48")),
    "wide_3": Trial(3, ("model.network.channels=[96,192]", "model.network.head_channels=96")),
    "min_snr_3": Trial(3, ("diffusion/loss_weight=min_snr",)),
    "ema_short_3": Trial(3, ("averages.half_lives=[250]",)),
    "dit_3": Trial(3, ("experiment=dit_digits",)),
}
GROUPS = {"peer": PEER_TRIALS, "settings": SETTINGS_TRIALS}


def train_ours(trial: Trial, data: str, folder: Path) -> int:
    """Train a run in the trial's time, and return its number of steps.

    The learning rate falls over a number of steps, which is found beforehand by a run of ``TRIED_STEPS``.
    """

    def train(num_steps: int) -> float:
        """Train so many steps, and return the seconds of a step."""
        shutil.rmtree(folder, ignore_errors=True)
        chosen = () if any(each.startswith("experiment=") for each in trial.settings) else ("experiment=moving_digits",)
        dropout = () if trial.captions else ("training.condition_dropout.text=1",)
        where = (f"data.path={data}", f"hydra.run.dir={folder}", f"trainer.max_steps={num_steps}")
        subprocess.run([*VDM, "train", *chosen, *where, *ALONE, *dropout, *trial.settings], check=True)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        first, last = ([row for row in rows if "train/loss" in row][place] for place in (1, -1))
        return (last["time"] - first["time"]) / (last["step"] - first["step"])

    num_steps = int(60 * trial.minutes / train(TRIED_STEPS))
    took = num_steps * train(num_steps)
    print(f"  {num_steps} steps in {took / 60:.1f} minutes", flush=True)
    return num_steps


def sample_ours(trial: Trial, data: str, folder: Path) -> Iterator[UInt8[Tensor, "c t h w"]]:
    """Sample as the run would, with held-out captions or none."""
    pipe = vdm.load_model(str(folder))
    texts = held_out_captions(data) if trial.captions else itertools.repeat("")
    guidance = {} if trial.captions else {"guidance_scale": 1.0}
    for start in range(0, NUM_VIDEOS, BATCH_SIZE):
        prompts = list(itertools.islice(texts, BATCH_SIZE))
        yield from pipe(prompts, num_steps=20, seed=start, batch_size=BATCH_SIZE, progress=False, **guidance).videos


def held_out_captions(data: str) -> Iterator[str]:
    """Yield the captions of held-out clips, again and again."""
    module = build({**configuration(data)["data"], "max_validation_clips": NUM_VIDEOS}, "data")
    captions = [caption for batch in module.val_dataloader() for caption in batch.captions]
    return itertools.cycle(captions)


class Peer:
    """The other project's model and its average, trained as by its ``Trainer``.

    Args:
        dim: Width of the first level.
        lr: Learning rate of Adam.
    """

    def __init__(self, dim: float, lr: float) -> None:
        theirs = video_diffusion_pytorch()
        torch.manual_seed(0)

        def model() -> Any:
            network = theirs.Unet3D(dim=int(dim), dim_mults=(1, 2, 4))
            return theirs.GaussianDiffusion(network, image_size=CLIP[2], num_frames=CLIP[1], timesteps=1000)

        self.model, self.averaged = model(), model()
        self.averaged.load_state_dict(self.model.state_dict())
        self.average = theirs.video_diffusion_pytorch.EMA(0.995)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)

    def train(self, seconds: float, clips: Iterator[UInt8[Tensor, "b c t h w"]]) -> int:
        """Train for some time, and return the number of steps."""
        start, step = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < seconds:
            loss = self.model(next(clips).float() / 255)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            step += 1
            if elapsed < 0.02 * seconds:
                self.averaged.load_state_dict(self.model.state_dict())
            else:
                self.average.update_model_average(self.averaged, self.model)
            if step % 20 == 0:
                print(f"  {elapsed:.0f} s  step {step}  loss {loss.item():.4f}", flush=True)
        return step

    def sample(self) -> Iterator[UInt8[Tensor, "c t h w"]]:
        """Yield videos, at least ``NUM_VIDEOS`` and for an hour at most after these."""
        start, number = time.monotonic(), 0
        while number < NUM_VIDEOS or (time.monotonic() - start < SAMPLING_SECONDS and number < 2 * NUM_VIDEOS):
            videos = self.averaged.sample(batch_size=BATCH_SIZE)
            number += len(videos)
            yield from (255 * videos.clamp(0, 1)).round().byte()


def training_clips(data: str) -> Iterator[UInt8[Tensor, "b c t h w"]]:
    """Yield batches of 8 training clips, without end."""
    module = build(configuration(data)["data"], "data")
    for batch in module.train_dataloader():
        yield batch.video


def run(name: str, trial: Trial, data: str, folder: Path) -> None:
    """Train, sample and measure; write the result once it is there."""
    print(f"== {name}: {trial.minutes:g} minutes", flush=True)
    if trial.peer:
        peer = Peer(**trial.peer)
        steps = peer.train(60 * trial.minutes, training_clips(data))
        videos: Iterator[UInt8[Tensor, "c t h w"]] = peer.sample()
    else:
        steps = train_ours(trial, data, folder / "run")
        videos = sample_ours(trial, data, folder / "run")
    shutil.rmtree(folder / "videos", ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    start, shown = time.monotonic(), []
    for number, video in enumerate(videos):
        write_mp4(folder / "videos" / f"{number:05}.mp4", video, fps=8)
        shown.append(video)
    seconds = (time.monotonic() - start) / len(shown)
    write_grid(folder / "pictures", shown[:32], fps=8)
    output = folder / "evaluation"
    subprocess.run(
        [*VDM, "evaluate", f"videos={folder / 'videos'}", f"reference={data}", *METRICS, f"output={output}"], check=True
    )
    result = {
        "trial": asdict(trial),
        "steps": steps,
        "num_videos": len(shown),
        "seconds_a_video": seconds,
        "metrics": json.loads((output / "results.json").read_text())["metrics"],
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2))


def show(names: Sequence[str], folder: Path) -> None:
    """Print what is there of the trials."""
    for name in names:
        file = folder / name / "result.json"
        if not file.exists():
            continue
        result = json.loads(file.read_text())
        record(Figure("quality", name, "training steps", result["steps"]))
        record(Figure("quality", name, "seconds a video", result["seconds_a_video"]))
        for metric, found in result["metrics"].items():
            record(Figure("quality", name, f"{metric}, {result['num_videos']} videos", found["value"]))


def main() -> None:
    """Run the trials that are not there yet, and print all of them."""
    every = {**PEER_TRIALS, **SETTINGS_TRIALS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(every)}; none: all of them")
    parser.add_argument("--group", choices=GROUPS, help="the trials of one kind")
    parser.add_argument("--data", default="data/moving_digits", help="shards of moving digits, made by make demo")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    given = parser.parse_args()
    if unknown := set(given.trials) - set(every):
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(every)}")
    names = given.trials or list(GROUPS.get(given.group, every))
    for name in names:
        if not (given.output / name / "result.json").exists():
            run(name, every[name], given.data, given.output / name)
    show(names, given.output)
    print(f"Videos are in {given.output.resolve()}")


if __name__ == "__main__":
    main()
