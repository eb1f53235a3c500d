"""Steps of one of two experts under DeepSpeed ZeRO."""

from collections.abc import Callable
from typing import Any


def skip_idle_expert(zero: Any, stage: int, offloads: bool, idle_expert: Callable[[], str | None]) -> None:
    """Have DeepSpeed step only the groups of weights of the expert in use, with the gradients of that one alone.

    DeepSpeed gives weights that a step does not use gradients of zero, or in stage 3 those of an earlier step. Either
    would move the weights and the moments, and count a step.

    Args:
        zero: DeepSpeed's optimizer, whose groups say by ``expert`` to which expert they belong.
        stage: Its stage.
        offloads: Whether the optimizer's state is in the CPU's memory; then norms of gradients are kept there.
        idle_expert: Returns the expert that the coming step leaves alone, None if there are no two experts.
    """
    groups = zero.optimizer.param_groups
    weights_of = zero.fp16_groups if stage == 3 else zero.bit16_groups
    step = zero._optimizer_step
    name = "_get_norm_groups" if stage == 3 else "scaled_global_norm"
    norm = getattr(zero, name)

    def is_idle(number: int) -> bool:
        owner = groups[zero.sub_group_to_group_id[number] if stage == 3 else number].get("expert")
        return owner is not None and owner == idle_expert()

    def step_unless_idle(number: int) -> None:
        if not is_idle(number):
            step(number)

    def norm_in_use() -> Any:
        for number in filter(is_idle, range(len(weights_of))):
            for gradient in (zero.averaged_gradients.get(number) or ()) if stage == 3 else ():
                gradient.zero_()
            for weight in weights_of[number] if offloads else ():
                zero.norm_for_param_grads.pop(zero.get_param_id(weight), None)
        return norm()

    zero._optimizer_step = step_unless_idle
    setattr(zero, name, norm_in_use)
