"""Same seeds, same curves: two revisions train and sample alike, bit for bit, on this machine's CPU.

Both train the same small models from the same seeds, and sample from them, each in processes of its own that run side
by side, with one thread each. Compared are the shards that each makes, all losses of training and validation, weights,
averages and the optimizer's state in every checkpoint, and videos. Tensors are compared by name. Where each of the two
has one left over, of the same content but another name, it counts as renamed; all others that only one has are a
difference. The exit code is 1 where anything differs.

    python benchmarks/same_curves.py [BEFORE [AFTER]] [--only CONFIGURATION ...]

BEFORE and AFTER are revisions, or folders with a checkout; without them, the last two commits that touch ``vdm`` or
``conf``, and with BEFORE alone, that and HEAD. ``.`` is the checkout as it is, with what is not committed.

Longer than other files, and alone in one: it judges revisions of this project, so it imports nothing of them.
"""

import argparse
import csv
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor

CHECKOUT = Path(__file__).parents[1]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
DIGITS, LATENTS, VIDEOS, PIPELINE, PICTURE = "digits", "latents", "videos", "pipeline", "first.png"
"""Names in the folder in which commands run."""
NUM_VIDEOS = 30
FRAMES, SIZE, DIGIT = 4, 16, 8
CLIP = (f"clip.num_frames={FRAMES}", f"clip.height={SIZE}", f"clip.width={SIZE}")
ALWAYS = (
    "data.global_batch_size=8",
    "data.micro_batch_size=4",
    "data.num_workers=0",
    "data.max_validation_clips=8",
    "optimizer.lr=1e-3",
    "lr_schedule.warmup_steps=2",
    "trainer.max_steps=6",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "validate.every_steps=3",
    "save.every_steps=3",
    "logger=csv",
    "callbacks.progress=null",
    "callbacks.samples.every_steps=3",
    "callbacks.samples.num_videos=2",
    "sampler.num_steps=4",
)
UNET = (
    "model.network.channels=[16,16]",
    "model.network.attention_levels=[1]",
    "model.network.temporal_levels=[1]",
    "model.network.head_channels=8",
    "text_encoder.channels=16",
    "text_encoder.head_channels=8",
    "text_encoder.num_layers=1",
    "guidance_scale=2",
)
SVD = ("experiment=svd_digits", "model.network.channels=[32,32]", "model.network.num_heads=[1,1]")
PROMPTS = "prompts=[the digit 3 moves to the right,the digit 1 moves to the left]"


@dataclass(frozen=True)
class Configuration:
    """A small run.

    Args:
        training: Further options of ``vdm train``.
        sampling: Further options of ``vdm sample``; none leaves it at the videos that training makes.
        data: Which of the data sets.
        extras: Packages that it needs beside the project's own.
    """

    training: tuple[str, ...]
    sampling: tuple[str, ...] = ()
    data: str = DIGITS
    extras: tuple[str, ...] = ()


CONFIGURATIONS = {
    "text_label_images": Configuration(
        (
            *UNET,
            "model.conditioner.num_classes=10",
            "training.condition_dropout={all:0.2,text:0.3,label:0.3}",
            "data.num_images_per_clip=2",
            "averages=post_hoc",
            "callbacks.averages.every_steps=3",
        ),
        (PROMPTS, "labels=[3,1]"),
    ),
    "first_frame": Configuration(
        (
            *UNET,
            "model.conditioner.image=true",
            "model.network.dropout=0.1",
            "training.condition_dropout={all:0.1,image:0.5}",
            "sampler=dpm_solver_pp_2m",
        ),
        (PROMPTS, f"image={PICTURE}"),
    ),
    "edm": Configuration((*UNET, "diffusion=edm", "sampler=heun")),
    "rectified_flow": Configuration((*UNET, "diffusion=rectified_flow", "sampler=euler")),
    "iddpm": Configuration((*UNET, "diffusion=iddpm", "sampler=ddpm")),
    "svd_tiny": Configuration(SVD, (f"image={PICTURE}",)),
    "svd_latents": Configuration(
        (*SVD, "encoder=svd", f"encoder.name_or_path={PIPELINE}/svd"),
        extras=("diffusers",),
    ),
    "stored_latents": Configuration(
        (*UNET, "encoder=frames", f"encoder.name_or_path={PIPELINE}/frames", "data.stored_latents=true"),
        (PROMPTS,),
        LATENTS,
        ("diffusers", "scenedetect"),
    ),
}


def checkout_of(revision: str, folder: Path) -> Path:
    """Return the folder of a checkout: the one that is named, or one written into ``folder``."""
    if (Path(revision) / "vdm").is_dir():
        return Path(revision).absolute()
    archive = folder.with_suffix(".tar")
    git("archive", "--format=tar", f"--output={archive}", revision)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def git(*arguments: str) -> str:
    """Run git in this checkout and return what it said."""
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return done.stdout.strip()


class Side:
    """One of the two revisions, and the folder in which its commands run.

    Args:
        checkout: Folder of the revision's checkout.
        folder: A folder that is there.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        where = self.start("where.log", "-c", "import vdm; print(vdm.__file__)")
        where.wait()
        imported = (folder / "where.log").read_text().strip()
        if imported != str(checkout / "vdm" / "__init__.py"):
            raise SystemExit(f"{checkout}: Python imports {imported} in its place")

    def start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Python on the checkout's code."""
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(self.checkout)}
        with (self.folder / log).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )


def run_on(sides: Sequence[Side], name: str, *arguments: str) -> str | None:
    """Run a command on both sides at once, and return the last line of what went wrong, if anything did."""
    processes = [side.start(f"{name}.log", *arguments) for side in sides]
    codes = [process.wait() for process in processes]
    for which, side, code in zip(("before", "after"), sides, codes, strict=True):
        if code:
            lines = (side.folder / f"{name}.log").read_text(errors="replace").strip().splitlines() or [f"code {code}"]
            return f"fails {which}: {lines[-1]}"
    return None


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported."""
    return subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True).returncode == 0


def save_autoencoders(folder: Path) -> None:
    """Write small autoencoders with random weights, as diffusers saves them; a latent is 2x2 pixels."""
    from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

    torch.manual_seed(0)
    down = ("DownEncoderBlock2D",) * 2
    sizes = {"block_out_channels": (32, 64), "latent_channels": 4, "layers_per_block": 1, "down_block_types": down}
    AutoencoderKL(**sizes, up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(folder / "frames" / "vae")
    AutoencoderKLTemporalDecoder(**sizes).save_pretrained(folder / "svd" / "vae")


def write_picture(path: Path) -> None:
    """Write a picture to begin videos with."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[4:12, 6:9] = 255
    Image.fromarray(pixels).save(path)


def write_videos(folder: Path) -> None:
    """Write videos of handwritten digits that move to the right or left, with captions and classes."""
    folder.mkdir()
    pictures, labels = load_digits(return_X_y=True)
    rows = ["file,caption,label"]
    for number, (picture, label) in enumerate(zip(pictures[:NUM_VIDEOS], labels[:NUM_VIDEOS], strict=True)):
        gray = (255 / 16 * picture.reshape(DIGIT, DIGIT)).astype(np.uint8)[:, :, None]
        top, moves_right = number % (SIZE - DIGIT), number % 2
        with av.open(folder / f"{number:02}.mkv", "w") as container:
            stream = container.add_stream("ffv1", rate=8)
            stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "bgr0"
            for time_step in range(FRAMES):
                left = 2 * time_step if moves_right else SIZE - DIGIT - 2 * time_step
                pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
                pixels[top : top + DIGIT, left : left + DIGIT] = gray
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        rows.append(f"{number:02}.mkv,the digit {label} moves to the {'right' if moves_right else 'left'},{label}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def make_data(sides: Sequence[Side], with_latents: bool) -> Iterator[tuple[str, str]]:
    """Make the data sets on both sides, and yield the name of each and how they differ."""
    for side in sides:
        write_picture(side.folder / PICTURE)
        write_videos(side.folder / VIDEOS)
    common = (f"input={VIDEOS}", "validation_fraction=0.3", *CLIP)
    commands = {DIGITS: ("build", f"output={DIGITS}", "num_workers=0", *common)}
    if with_latents:
        encoder = ("encoder=frames", f"encoder.name_or_path={PIPELINE}/frames", "executor.num_workers=0")
        commands[LATENTS] = ("curate", f"output={LATENTS}", "shots=none", "filter=none", *encoder, *common)
    for name, command in commands.items():
        failure = run_on(sides, name, "-m", "data_pipelines.cli", *command)
        yield name, failure or difference(*(shards_of(side.folder / name) for side in sides))


def shards_of(folder: Path) -> dict[str, Tensor]:
    """Return the bytes of all shards."""
    return {path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in sorted(folder.glob("*.tar"))}


def results_of(run: Path, videos: Path) -> dict[str, dict[str, Tensor]]:
    """Return all that is compared of a run: by quantity, tensors by name."""
    found: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("training losses", "validation losses", "weights", "averages", "optimizer", "other state")
    }
    for path in run.glob("logs/*/metrics.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if value and key != "step" and "per_second" not in key and "wait" not in key:
                        quantity = "validation losses" if key.startswith("val/") else "training losses"
                        found[quantity][f"step {row['step']} {key}"] = torch.tensor(float(value), dtype=torch.float64)
    for path in sorted(run.rglob("*.safetensors")):
        kind = path.name.split(".")[0].split("-")[0]
        of_kind = {"model": "weights", "ema": "averages", "optimizer": "optimizer", "state": "other state"}
        quantity = "averages" if "averages" in path.parts else of_kind.get(kind, "other state")
        where = path.relative_to(run).with_suffix("")
        found[quantity] |= {f"{where}:{name}": tensor for name, tensor in load_file(path).items()}
    found["videos"] = {
        str(path.relative_to(folder)): torch.from_numpy(np.asarray(Image.open(path)).copy())
        for folder in (videos, run)
        for path in sorted(folder.rglob("*.png"))
    }
    return found


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    """Say how two sets of tensors differ, "identical" if they don't."""
    if not before and not after:
        return "none there"
    unlike = {name: distance(before[name], after[name]) for name in before if name in after}
    unlike = {name: size for name, size in unlike.items() if size > 0}
    only_before = {name: tensor for name, tensor in before.items() if name not in after}
    only_after = {name: tensor for name, tensor in after.items() if name not in before}
    num_renamed = 0
    places: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in only_after.items():
        places.setdefault(content(tensor), []).append(name)
    for name, tensor in list(only_before.items()):
        if places.get(content(tensor)):
            del only_before[name], only_after[places[content(tensor)].pop(0)]
            num_renamed += 1
    parts = []
    if unlike:
        worst = max(unlike, key=lambda name: unlike[name])
        parts.append(f"{len(unlike)} of {len(before)} differ, by up to {unlike[worst]:.2g}: {worst}")
    for when, only in (("before", only_before), ("after", only_after)):
        if only:
            parts.append(f"{len(only)} only {when}: {next(iter(only))}")
    renamed = f", {num_renamed} under other names" if num_renamed else ""
    return "; ".join(parts) + renamed if parts else f"identical ({len(before)}{renamed})"


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors: 0 if they are the same bit for bit, infinite if of unlike kinds."""
    if content(one) == content(other):
        return 0.0
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    largest = float((one.double() - other.double()).abs().max())
    return largest if largest > 0 else float("inf")  # NaN, or zeros of other sign


def content(tensor: Tensor) -> tuple[object, ...]:
    """Return what tells tensors apart whatever they are called."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def compare(sides: Sequence[Side], name: str) -> Iterator[tuple[str, str]]:
    """Train and sample on both sides; yield each quantity and how it differs."""
    configuration = CONFIGURATIONS[name]
    run = f"hydra.run.dir=runs/{name}"
    training = (run, f"data.path={configuration.data}", *ALWAYS, *configuration.training)
    failure = run_on(sides, f"{name}_train", "-m", "vdm.cli.main", "train", *training)
    if failure:
        yield "vdm train", failure
        return
    if configuration.sampling:
        sampling = (f"checkpoint=runs/{name}", f"output=videos/{name}", "device=cpu", *configuration.sampling)
        failure = run_on(sides, f"{name}_sample", "-m", "vdm.cli.main", "sample", *sampling)
        if failure:
            yield "vdm sample", failure
    before, after = (results_of(side.folder / "runs" / name, side.folder / "videos" / name) for side in sides)
    for quantity in before:
        yield quantity, difference(before[quantity], after[quantity])


def chosen_revisions(given: argparse.Namespace) -> tuple[str, str]:
    """Return the two revisions to compare."""
    if given.before is not None:
        return given.before, given.after
    commits = git("log", "-2", "--format=%h", "--", "vdm", "conf").split()
    if len(commits) < 2:
        raise SystemExit("This checkout has no two commits that touch vdm or conf; name what to compare")
    return commits[1], commits[0]


def main() -> None:
    """Compare, and print each figure as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", nargs="?")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    given = parser.parse_args()
    before, after = chosen_revisions(given)
    begun, num_different = time.monotonic(), 0
    missing = {one for name in given.only for one in CONFIGURATIONS[name].extras if not is_installed(one)}
    print(f"{before} against {after}")
    with tempfile.TemporaryDirectory() as temporary:
        sides = []
        for which, revision in (("before", before), ("after", after)):
            checkout = checkout_of(revision, Path(temporary) / f"{which}_code")
            (folder := Path(temporary) / which).mkdir()
            sides.append(Side(checkout, folder))
            if "diffusers" not in missing:
                save_autoencoders(folder / PIPELINE)
        names = [name for name in given.only if not missing & set(CONFIGURATIONS[name].extras)]
        for name in set(given.only) - set(names):
            print(f"{name:18} left out: needs {', '.join(CONFIGURATIONS[name].extras)}")
        rows = {"data": make_data(sides, any(CONFIGURATIONS[name].data == LATENTS for name in names))}
        rows |= {name: compare(sides, name) for name in names}
        for name, of_configuration in rows.items():
            for quantity, outcome in of_configuration:
                num_different += not outcome.startswith(("identical", "none there"))
                print(f"{time.monotonic() - begun:5.0f} s  {name:18} {quantity:18} {outcome}", flush=True)
    print(f"{num_different} quantities differ" if num_different else "identical everywhere")
    sys.exit(num_different > 0)


if __name__ == "__main__":
    main()
