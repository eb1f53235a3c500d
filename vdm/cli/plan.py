"""``vdm plan``: memory and work of a training run, before anything is rented."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vdm.assembly.pretrained import configured, open_pretrained
from vdm.cli.next_step import command, say_next
from vdm.cli.options.memory import GIB
from vdm.cli.options.plan import PlanOptions
from vdm.cli.options.train import TrainOptions
from vdm.config import ConfigError, build
from vdm.config.options import options_of, parse
from vdm.data.datamodule import ClipDataModule
from vdm.data.order import accumulation, idle_devices
from vdm.training.devices import Devices
from vdm.training.ema import count_emas
from vdm.training.planning.sharding import Memory, ddp, fsdp2, memory_of, sharding_of, single, zero
from vdm.training.planning.step import Clips, StepMeasure, measure_step
from vdm.training.strategies.slicewise import SlicewiseStrategy
from vdm.training.trainer_options import canonical_precision
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Print the plan."""
    options: Any = OmegaConf.to_container(config, resolve=True)
    told = parse(PlanOptions, options)
    published = open_pretrained(options)
    if published is not None:
        options = configured(options, published)
    size = _clip_size(told, options["data"])
    devices = _devices(told, options["trainer"])
    micro_batches = _micro_batches(options["data"], devices)
    if complaint := idle_devices(options["data"]["global_batch_size"], devices.number):
        _log.warning("%s", complaint)
    clips = Clips(
        min(options["data"]["micro_batch_size"], -(-options["data"]["global_batch_size"] // devices.number)),
        size,
        options["data"]["num_images_per_clip"],
        options["data"]["stored_latents"],
        "x" * told.caption_bytes,
    )
    step = measure_step(options, clips)
    num_emas = count_emas(options["averages"])
    memories = list(_memories(options, step, devices, num_emas, micro_batches > 1))
    for line in describe(step, clips, devices, options["data"]["global_batch_size"], micro_batches, num_emas):
        print(line)
    print()
    for line in table(memories, devices.memory_bytes, int(told.reserve_gib * GIB)):
        print(line)
    say_next(command("vdm check", *_of_training(HydraConfig.get().overrides.task)))


def _of_training(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that ``vdm train`` takes too."""
    own = {option.key for option in options_of(PlanOptions)} - {option.key for option in options_of(TrainOptions)}
    own |= {"nodes"} if not any(one.startswith("launcher=") for one in overrides) else set()
    kept = [one for one in overrides if one.lstrip("+~").partition("=")[0] not in own]
    has_data = any(one.startswith("data.path=") for one in kept)
    return kept if has_data else [*kept, "data.path=SHARDS"]


def _clip_size(told: PlanOptions, data: Mapping[str, Any]) -> ClipSize:
    if told.clip_shape is not None:
        return ClipSize(*told.clip_shape)
    module: ClipDataModule = build(data, "data")
    try:
        return ClipSize(*module.clip_shape)
    except ValueError as error:
        raise ConfigError(f"data.path: {error}") from error


def _devices(told: PlanOptions, trainer: Mapping[str, Any]) -> Devices:
    per_node = trainer["devices"] if isinstance(trainer["devices"], int) else 1
    if told.launcher:
        per_node = told.launcher["tasks_per_node"] or max(1, told.launcher["gpus_per_node"])
    nodes = trainer["num_nodes"] if told.nodes is None else told.nodes
    return Devices(torch.device("cpu"), told.devices or per_node, nodes, int(told.memory_gib * GIB))


def _micro_batches(data: Mapping[str, Any], devices: Devices) -> int:
    for name in ("global_batch_size", "micro_batch_size"):
        if not isinstance(data[name], int) or data[name] < 1:
            raise ConfigError(f"data.{name}={data[name]}: must be a whole number, at least 1")
    return accumulation(data["global_batch_size"], data["micro_batch_size"], devices.number)


def _memories(
    options: Mapping[str, Any], step: StepMeasure, devices: Devices, num_emas: int, several: bool
) -> list[Memory]:
    """Return the memory under each strategy, first that of the configured one."""
    product_bytes = 2 if canonical_precision(options["trainer"]["precision"]) in ("bf16-mixed", "16-mixed") else 4
    trained, frozen = (torch.empty(number, device="meta") for number in (step.num_trained, step.num_frozen))
    weights = [torch.nn.Parameter(trained), torch.nn.Parameter(frozen, requires_grad=False)]
    defaults = {"model": torch.nn.ParameterList(weights), "devices": devices, "num_emas": num_emas}
    strategy: SlicewiseStrategy = build(options["strategy"], "strategy", defaults=defaults)
    chosen = sharding_of(strategy, step, devices, num_emas, product_bytes)
    number, per_node = devices.number, devices.per_node
    others = [
        single(),
        ddp(),
        fsdp2(step, number, num_emas, product_bytes),
        *(zero(step, stage, number, num_emas) for stage in (1, 2, 3)),
    ]
    if devices.num_nodes > 1:
        others.insert(3, fsdp2(step, per_node, num_emas, product_bytes, replicate="nodes"))
    shardings = [chosen, *(other for other in others if other != chosen)]
    return [memory_of(sharding, step, num_emas, several) for sharding in shardings]


def describe(
    step: StepMeasure,
    clips: Clips,
    devices: Devices,
    global_batch_size: int,
    micro_batches: int,
    num_emas: int,
) -> Sequence[str]:
    """Return the lines that do not depend on the strategy."""
    size = f"{clips.size.num_frames}x{clips.size.height}x{clips.size.width}"
    per_device = micro_batches * step.flops
    saved = step.saved_bytes + num_emas * step.trained_bytes + step.optimizer_bytes
    return [
        f"weights          {step.num_trained:,} trained, {step.num_frozen:,} frozen"
        + ("; a step trains one of two experts" if step.gradient_bytes < step.trained_bytes else ""),
        f"devices          {devices.number} ({devices.num_nodes} x {devices.per_node}) of"
        f" {devices.memory_bytes / GIB:g} GiB",
        f"batch            data.global_batch_size={global_batch_size}: {micro_batches} micro-batches of"
        f" {clips.number} clips of {size} on each device",
        f"work of a step   {per_device / 1e12:,.3f} TFLOP on each device,"
        f" {devices.number * per_device / 1e12:,.3f} in all",
        f"checkpoint       {saved / GIB:,.2f} GiB: weights, {num_emas} EMAs, optimizer;"
        f" {step.saved_bytes / GIB:,.2f} GiB of weights alone",
    ]


def table(memories: Sequence[Memory], memory_bytes: int, reserve_bytes: int) -> Sequence[str]:
    """Return a table of the memory of each process under each strategy, the configured one first."""
    parts = ("weights", "gradients", "optimizer", "ema", "activations", "temporary", "peak")
    names = [("* " if index == 0 else "  ") + memory.sharding.name for index, memory in enumerate(memories)]
    title = "GiB per device"
    width = max(map(len, [title, *names]))
    lines = [f"{title:{width}}" + "".join(f"{part:>13}" for part in (*parts, "in host")) + "   fits"]
    for name, memory in zip(names, memories, strict=True):
        sizes = [*(getattr(memory, part) for part in parts), memory.sharding.host_bytes]
        fits = memory.peak + reserve_bytes <= memory_bytes
        lines.append(
            f"{name:{width}}" + "".join(f"{size / GIB:13.3f}" for size in sizes) + ("   yes" if fits else "   no")
        )
    lines += [
        "",
        "* as configured. Activations: kept for the backward pass. Temporary: what a step makes beyond them, gathered",
        "weights and gradients under way included. Peak: the most at one moment; gradients come as activations go.",
        f"It fits if {reserve_bytes / GIB:g} GiB stay free beside the peak, for the device's needs and fragmentation.",
    ]
    return lines
