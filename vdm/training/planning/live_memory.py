"""How much memory tensors take from moment to moment, on tensors without memory as on real ones."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Follows the storages that operations make, and those that are let go, while the context lasts.

    What was there before is not counted, nor is what an operation needs for itself.

    Args:
        weights: Weights whose gradients are told apart from all else.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.moments: list[tuple[int, int]] = [(0, 0)]
        """Bytes of gradients, and bytes of all else, after each change."""
        self._sizes: dict[int, int] = {}
        self._gradients: set[int] = set()
        weights = list(weights)
        self._before = {_key(weight) for weight in weights}
        self._hooks = [weight.register_post_accumulate_grad_hook(self._note_gradient) for weight in weights]

    @property
    def other_bytes(self) -> int:
        """Bytes that all but gradients take now."""
        return self.moments[-1][1]

    def peak(self, share_of_gradients: float = 1.0) -> int:
        """Return the most bytes at any moment.

        Args:
            share_of_gradients: Share of each gradient that a process keeps once it is there.
        """
        return max(int(share_of_gradients * gradients) + other for gradients, other in self.moments)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or key in self._before:
            return
        self._sizes[key] = storage.nbytes()
        self._change(0, storage.nbytes())
        weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._gradients:
            self._gradients.remove(key)
            self._change(-size, 0)
        else:
            self._change(0, -size)

    def _note_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        key = _key(weight.grad)
        if key in self._sizes and key not in self._gradients:
            self._gradients.add(key)
            self._change(self._sizes[key], -self._sizes[key])

    def _change(self, gradients: int, other: int) -> None:
        before = self.moments[-1]
        self.moments.append((before[0] + gradients, before[1] + other))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
