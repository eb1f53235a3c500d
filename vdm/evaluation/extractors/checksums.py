"""Checksums of weights, which say with which network a metric was measured."""

import hashlib
from collections.abc import Mapping
from io import BufferedReader

from torch import Tensor


def file_checksum(file: BufferedReader, path: str, expected: str | None) -> str:
    """Return the SHA-256 of an open file, and go back to its beginning.

    Args:
        file: The file, open for reading.
        path: Its name, for messages.
        expected: The SHA-256 that it must have; None if any will do.

    Raises:
        ValueError: In one line, if it is another file.
    """
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if expected is not None and found != expected.lower():
        raise ValueError(f"sha256: {path} has SHA-256 {found}, not {expected.lower()}")
    return found


def weights_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors in fp32, whatever files they came from."""
    digest = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()
