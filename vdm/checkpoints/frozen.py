"""Weights of the model that are not trained: saved once in a run, beside its checkpoints, which refer to them.

A checkpoint that lacks them has a file ``frozen.json``, which names a folder in ``RUN/frozen`` and the checksum of that
folder. Together they are as whole as a checkpoint with all weights: nothing outside of the run is needed.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.folder import checksum_of, verify_folder
from vdm.checkpoints.layout import FROZEN_NAME, frozen_weights_folder, step_of
from vdm.records import read_record

FROZEN_FILE = "frozen.json"


class _Reference(TypedDict):
    folder: Annotated[str, StringConstraints(pattern=r"^step=\d{1,12}$")]
    checksum: str


def reference_to(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint records of a folder with weights that it lacks."""
    return {"folder": folder.name, "checksum": checksum_of(folder)}


def is_frozen_folder_of(run: Path, folder: Path | None) -> bool:
    """Return whether a folder holds weights that checkpoints of the run can refer to."""
    return folder is not None and folder.is_dir() and folder.parent.resolve() == (run / FROZEN_NAME).resolve()


def frozen_folder_of(checkpoint: Path) -> Path | None:
    """Return the folder with the weights that a checkpoint lacks; None if it lacks none.

    Raises:
        ValueError: If the reference is damaged.
    """
    reference = _reference_in(checkpoint)
    return None if reference is None else _place(checkpoint, reference)


def verify_checkpoint(checkpoint: Path, rank: int = 0, num_processes: int = 1) -> None:
    """Verify every byte of a checkpoint, and of the weights that it refers to; see ``verify_folder``.

    Raises:
        ValueError: If it is not whole; the message names the file.
    """
    verify_folder(checkpoint, rank, num_processes)
    reference = _reference_in(checkpoint)
    if reference is None:
        return
    file, frozen = checkpoint / FROZEN_FILE, _place(checkpoint, reference)
    if not frozen.is_dir():
        raise ValueError(f"{file}: {frozen} is missing: the weights that were not trained")
    if checksum_of(frozen) != reference["checksum"]:
        raise ValueError(f"{frozen}: other weights than those that {file} names")
    verify_folder(frozen, rank, num_processes)


def _reference_in(checkpoint: Path) -> _Reference | None:
    file = checkpoint / FROZEN_FILE
    return read_record(file, _Reference) if file.exists() else None


def _place(checkpoint: Path, reference: _Reference) -> Path:
    return frozen_weights_folder(checkpoint.absolute().parent.parent, step_of(Path(reference["folder"])))
