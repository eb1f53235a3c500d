"""Networks from TorchScript files that the user names, as published metrics distribute them.

A TorchScript file is code: loading and calling it runs what it says. So none is ever looked for, downloaded or taken
from a run; the path comes from the user, who may pin the file by its SHA-256, and each load is logged.
"""

import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.jit._fuser import optimized_execution

from vdm.evaluation.extractors.checksums import file_checksum
from vdm.regular_files import open_regular

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TorchScriptFile:
    """A network from a TorchScript file.

    Args:
        module: The network, on the CPU.
        path: The file.
        checksum: SHA-256 of the file.
    """

    module: Any
    path: str
    checksum: str

    @property
    def arguments(self) -> list[str]:
        """Names of the arguments of its ``forward``."""
        return [argument.name for argument in self.module.forward.schema.arguments[1:]]

    @property
    def required(self) -> int:
        """Number of arguments without a default."""
        return sum(not argument.has_default_value() for argument in self.module.forward.schema.arguments[1:])

    def takes(self, *names: str) -> bool:
        """Tell whether ``forward`` takes arguments of these names."""
        return set(names) <= set(self.arguments)

    def call(self, *inputs: Tensor, **options: bool) -> Tensor:
        """Call the network.

        Raises:
            ValueError: In one line, if it fails, or returns no tensor.
        """
        try:
            # Optimized, it would compile other kernels after its first calls, and round differently.
            with optimized_execution(False):
                output = self.module(*inputs, **options)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            shapes = " and ".join(str(tuple(one.shape)) for one in inputs)
            raise ValueError(f"{self.path}: its network fails on input of shape {shapes}: {reason}") from None
        if not isinstance(output, Tensor):
            raise ValueError(f"{self.path}: its network returns a {type(output).__name__}, not a tensor")
        return output

    def checked(self, output: Tensor, rows: int, widths: Collection[int], what: str) -> Tensor:
        """Return the network's output if it is a matrix of the expected size.

        Args:
            output: What the network returned.
            rows: Expected number of rows.
            widths: Allowed numbers of columns; any, if empty.
            what: The network that was expected, for messages.

        Raises:
            ValueError: In one line, if it has another size.
        """
        if output.ndim != 2 or len(output) != rows or (widths and output.shape[1] not in widths):
            wanted = " or ".join(map(str, widths)) or "d"
            raise ValueError(
                f"{self.path}: its network returns shape {tuple(output.shape)} for {rows} inputs, but {what}"
                f" returns ({rows}, {wanted})"
            )
        return output

    def log_probabilities(self, output: Tensor) -> Tensor:
        """Return the logarithm of probabilities, which are logits too: their softmax gives the probabilities back.

        Raises:
            ValueError: In one line, if rows are no probabilities.
        """
        sums = output.sum(1)
        if output.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            raise ValueError(
                f"{self.path}: its network returns numbers that are not probabilities: a row sums to {sums[0]:.4g}"
            )
        return output.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def load_torchscript(path: str, sha256: str | None) -> TorchScriptFile:
    """Load a TorchScript file, which is code; see above.

    Args:
        path: The file.
        sha256: The SHA-256 that it must have; None if any will do.

    Raises:
        ValueError: In one line, if it is missing, has another checksum, or is another kind of file.
    """
    try:
        with open_regular(path) as file:
            checksum = file_checksum(file, path, sha256)
            _log.warning("%s is TorchScript, which is code: running it, since its path was given (%s)", path, checksum)
            with warnings.catch_warnings():
                # torch.jit is deprecated, but the published networks of metrics exist in no other form.
                warnings.simplefilter("ignore", DeprecationWarning)
                module = torch.jit.load(file, map_location="cpu")
    except FileNotFoundError:
        raise ValueError(f"path: {path}: no such file") from None
    except OSError as error:
        raise ValueError(f"path: {path}: can't be read: {error.strerror or error}") from None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". This is an internal")[0]
        raise ValueError(f"path: {path}: not a TorchScript file: {reason}") from None
    return TorchScriptFile(module, path, checksum)
