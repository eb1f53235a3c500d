"""Collective operations on Python objects, by which processes agree while they save and load a checkpoint."""

from collections.abc import Callable
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import distributed

T = TypeVar("T")


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """Return the number of processes; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, in order of ranks, to all of them."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def run_on_all(action: Callable[[], T]) -> list[T]:
    """Run an action in every process, and return all results; an error in one process becomes an error in all.

    Raises:
        ValueError: If the action fails with a storage error or a ``ValueError`` in any process: the error of the lowest
            rank. Any other exception is raised as it is in its own process.
    """
    result: T | None = None
    complaint: str | None = None
    bug: Exception | None = None
    try:
        result = action()
    except (OSError, SafetensorError, ValueError) as error:
        complaint = getattr(error, "strerror", None) or str(error).removeprefix("Error while serializing: ")
    except Exception as error:
        bug, complaint = error, repr(error)
    outcomes = all_gather((result, complaint))
    if bug is not None:
        raise bug
    for _, found in outcomes:
        if found is not None:
            raise ValueError(found)
    return [outcome for outcome, _ in outcomes]  # pyright: ignore[reportReturnType] - all have a result
