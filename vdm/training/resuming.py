"""Checks of the training state in a checkpoint, and the learning rate after a resume."""

from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.records import checked

_Count = Annotated[int, Field(ge=0)]
_EpochLoop = TypedDict("_EpochLoop", {"epoch_loop.state_dict": dict[str, Any]})


class _Loops(TypedDict):
    fit_loop: _EpochLoop


class _Data(TypedDict):
    position: _Count


class _Schedule(TypedDict):
    base_lrs: list[float]
    last_epoch: _Count
    lr_lambdas: list[Any]


class _State(TypedDict):
    """The keys that Lightning and this project need to resume a run."""

    epoch: _Count
    global_step: _Count
    loops: _Loops
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[_Schedule]
    ClipDataModule: _Data
    ema_names: list[str]
    ema_updates: _Count
    ema_updates_of: NotRequired[dict[str, _Count]]


def checked_state(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint, once it is known that training can resume from it.

    Args:
        state: Everything in the checkpoint but weights and EMA weights.
        folder: Folder of the checkpoint.

    Raises:
        ValueError: In one line that names the key.
    """
    if not state:
        raise ValueError(f"{folder}: holds weights, and no state of training to resume; init_from starts from weights")
    checked(state, _State, folder / "state.json")
    return state


def follow_schedule(scheduler: LambdaLR) -> tuple[float, float]:
    """Set the learning rates of the next step to the schedule's; a checkpoint has those of the former schedule.

    Returns:
        The rate of the first group of weights before and after.
    """
    groups = scheduler.optimizer.param_groups
    before = float(groups[0]["lr"])
    step = scheduler.last_epoch
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
    return before, float(rates[0])
