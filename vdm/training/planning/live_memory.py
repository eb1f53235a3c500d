"""Memory of tensors from moment to moment, for fake tensors as for real ones.

``torch.distributed._tools.mem_tracker.MemTracker`` has a similar purpose, but records the peak of one sharding alone.
Here all moments are recorded, with separate counts of gradients and autocast copies, so that one measured step yields
the peak under each strategy.
"""

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Moment(NamedTuple):
    """Bytes at one moment."""

    gradients: int
    """Gradients of weights."""
    copies: int
    """Copies of weights in another precision, made by autocast."""
    other: int
    """All other tensors made since the beginning."""

    def bytes(self, share_of_gradients: float = 1.0, share_of_copies: float = 1.0) -> int:
        """Return the bytes of a process that keeps only a share of the gradients and of the copies."""
        return int(share_of_gradients * self.gradients) + int(share_of_copies * self.copies) + self.other


class LiveMemory(TorchDispatchMode):
    """Records each storage that operations make or release, while the context lasts.

    Storages made before the context are not counted, nor is an operation's internal workspace.

    Args:
        weights: Weights whose gradients, and whose copies in another precision, are counted apart.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.moments: list[Moment] = [Moment(0, 0, 0)]
        """The bytes after each change."""
        self._sizes: dict[int, int] = {}
        self._gradients: set[int] = set()
        self._copies: set[int] = set()
        weights = list(weights)
        self._before = {_key(weight) for weight in weights}
        trained = [weight for weight in weights if weight.requires_grad]
        self._hooks = [weight.register_post_accumulate_grad_hook(self._note_gradient) for weight in trained]

    @property
    def other_bytes(self) -> int:
        """Bytes of all tensors but gradients and copies of weights, now."""
        return self.moments[-1].other

    def peak(self, share_of_gradients: float = 1.0) -> int:
        """Return the most bytes at any moment.

        Args:
            share_of_gradients: Share of each gradient that a process keeps.
        """
        return max(moment.bytes(share_of_gradients) for moment in self.moments)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_copy = func is torch.ops.aten._to_copy.default and _key(args[0]) in self._before
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf, is_copy)
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _note(self, tensor: Tensor, is_copy: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or key in self._before:
            return
        self._sizes[key] = storage.nbytes()
        if is_copy:
            self._copies.add(key)
        self._change(**{"copies" if is_copy else "other": storage.nbytes()})
        weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._gradients:
            self._gradients.remove(key)
            self._change(gradients=-size)
        elif key in self._copies:
            self._copies.remove(key)
            self._change(copies=-size)
        else:
            self._change(other=-size)

    def _note_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        key = _key(weight.grad)
        if key in self._sizes and key not in self._gradients:
            self._gradients.add(key)
            self._change(gradients=self._sizes[key], other=-self._sizes[key])

    def _change(self, gradients: int = 0, copies: int = 0, other: int = 0) -> None:
        before = self.moments[-1]
        self.moments.append(Moment(before.gradients + gradients, before.copies + copies, before.other + other))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
