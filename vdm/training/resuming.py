"""Lightning's loops put between two optimizer steps, wherever a run was saved."""

from typing import Any


def put_between_steps(checkpoint: dict[str, Any], micro_batches: int) -> None:
    """Rewrite the progress of loops in a checkpoint so that training goes on with the first micro-batch of a step.

    Lightning counts micro-batches, and from that count knows which of them complete a step. The count that was saved
    is of no use where the number of processes, and with it that of micro-batches a step, has changed, nor where
    training ended between steps. Training is one endless epoch, which is therefore still under way.

    Args:
        checkpoint: What Lightning loaded; changed in place.
        micro_batches: Micro-batches of an optimizer step from now on.
    """
    loop = checkpoint["loops"]["fit_loop"]
    num_done = checkpoint["global_step"] * micro_batches
    done = {"ready": num_done, "started": num_done, "processed": num_done, "completed": num_done}
    under_way = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    checkpoint["epoch"] = 0
    loop["epoch_progress"] = {"total": dict(under_way), "current": dict(under_way)}
    loop["epoch_loop.batch_progress"] = {"total": dict(done), "current": dict(done), "is_last_batch": False}
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
