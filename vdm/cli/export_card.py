"""The model card of an export: data, training and evaluation, as recorded in the run's folder."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.layout import run_folder, step_of
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import versions_of
from vdm.credentials import without_credentials
from vdm.files import MALFORMED
from vdm.models.pretrained.model_card import Facts, model_card
from vdm.outside import dump_yaml
from vdm.records import read_record

CARD_NAME = "README.md"
"""File name of the model card."""

_SOFTWARE = ("torch", "lightning", "diffusers", "transformers", "video-diffusion-training")


def facts_of(checkpoint: Path, trained: RunConfig, weights: Mapping[str, Tensor], average: bool | str) -> Facts:
    """Return the facts of a checkpoint for its model card.

    Args:
        checkpoint: Its folder.
        trained: Configuration of its run.
        weights: Its weights as they are exported.
        average: Name of the EMA that was taken; true for the only one, false for none.
    """
    run = run_folder(checkpoint)
    metrics, protocol = _evaluation(run)
    training = _training(run, checkpoint, trained, weights, average)
    return Facts(_data(trained), training, metrics, protocol, trained.text)


def write_card(
    folder: Path, title: str, usage: str, facts: Facts, notes: str = "", front_matter: Mapping[str, str] | None = None
) -> None:
    """Write ``README.md``; the arguments are those of ``model_card``."""
    card = without_credentials(model_card(title, usage, facts, notes, front_matter))
    (folder / CARD_NAME).write_text(card, encoding="utf-8")


def _data(trained: RunConfig) -> dict[str, object]:
    data = {} if trained.data.path is None else {"set": trained.data.path}
    clip = {} if trained.recorded_clip is None else asdict(trained.recorded_clip)
    return {**data, **{f"clip {name}": value for name, value in clip.items() if value != ()}}


def _training(
    run: Path, checkpoint: Path, trained: RunConfig, weights: Mapping[str, Tensor], average: bool | str
) -> dict[str, object]:
    training: dict[str, object] = {"started from": trained.started_from} if trained.started_from else {}
    steps = _steps(checkpoint)
    if steps is not None:
        training["optimizer steps"] = steps
        clips = trained.data.global_batch_size
        training |= {} if clips is None else {"clips trained on": steps * clips}
    training["weights"] = sum(tensor.numel() for tensor in weights.values())
    training["type"] = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}))
    training["averaged over training"] = average if isinstance(average, str) else "yes" if average else "no"
    return {**training, **_software(run)}


def _steps(checkpoint: Path) -> int | None:
    with suppress(ValueError):
        return step_of(checkpoint)
    return None


def _software(run: Path) -> dict[str, object]:
    """Return the software versions of the run's last start."""
    starts = versions_of(run)
    if not starts:
        return {}
    packages = {name: starts[-1]["packages"][name] for name in _SOFTWARE if name in starts[-1]["packages"]}
    git = starts[-1].get("git")
    return {**packages, **({} if git is None else {"commit": git["commit"]})}


class _Results(TypedDict, total=False):
    checkpoint: str
    options: dict[str, Any]


def _evaluation(run: Path) -> tuple[dict[str, float], str]:
    """Return the figures of a run, and the protocol of their measurement as YAML."""
    file = run / "evaluation" / "results.json"
    if not file.exists():
        return {}, ""
    results: Mapping[str, Any] = read_record(file, _Results)
    protocol = {name: results[name] for name in ("checkpoint", "options") if name in results}
    figures = {name: value for name, value in results.items() if name not in protocol}
    try:
        return dict(_numbers(figures)), dump_yaml(protocol) if protocol else ""
    except MALFORMED as error:  # nested too deep, or a number too large
        raise ValueError(f"{file}: damaged: {error}") from None


def _numbers(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield all numbers; nested ones have dotted names."""
    for name, value in results.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
