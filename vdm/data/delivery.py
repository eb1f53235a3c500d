"""Transfer of batches from loader workers to the training process, in anonymous shared memory.

By default torch uses ``/dev/shm``, which containers make small (Docker: 64 MB). If it is full, a batch is lost and
training waits for it forever.
"""

import errno
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdm.data.quarantine import Fault
from vdm.types import ClipBatch


class UndeliverableBatchError(ValueError):
    """A batch that a worker could not hand over."""


class Delivery(NamedTuple):
    """A batch, and the faults of its clips of weight 0.

    Pickling it, which a thread of the worker does, moves its tensors to memory that both processes see.
    """

    batch: ClipBatch
    faults: tuple[Fault, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            parts = (self.batch.map(shared), self.faults)
            return _received, (bytes(ForkingPickler.dumps(parts)),)
        except (OSError, RuntimeError) as error:  # raised here, it would only be printed
            return _undeliverable, (str(error),)


def _received(content: bytes) -> Delivery | UndeliverableBatchError:
    """Unpickle a batch of a worker; errors are returned, since the caller may be a thread of torch."""
    try:
        return Delivery(*pickle.loads(content))
    except (OSError, EOFError, RuntimeError) as error:
        return _undeliverable(str(error))


def _undeliverable(reason: str) -> UndeliverableBatchError:
    return UndeliverableBatchError(
        f"data.num_workers: a loader worker can't hand over a batch: {' '.join(reason.split())}; if /dev/shm is short,"
        " enlarge it (docker run --shm-size=8g); data.num_workers=0 loads in the training process"
    )


def shared(tensor: Tensor) -> Tensor:
    """Return the tensor in memory that can be passed to another process without a copy.

    Raises:
        OSError: If the process has too many open files.
        RuntimeError: Where the system has no anonymous memory, if ``/dev/shm`` is full.
    """
    content = tensor.untyped_storage()
    size = content.nbytes()
    file = _anonymous_file() if size else None
    if file is None:
        return tensor.share_memory_() if size else tensor
    try:
        os.ftruncate(file, size)
        storage = torch.UntypedStorage._new_shared_fd_cpu(file, size)  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        os.close(file)
    storage.copy_(content)
    return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _anonymous_file() -> int | None:
    """Open an anonymous file in memory; None if the system or a sandbox does not allow it."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return os.memfd_create("vdm-batch")
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            return None
        raise
