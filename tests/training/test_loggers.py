from pathlib import Path

from vdm.training.loggers import close, wandb


def test_each_run_of_a_process_has_its_own_wandb_run_and_a_resumed_one_its_own_again(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b", "a"):
        logger = wandb(tmp_path / name)
        logger.log_metrics({"train/loss": 1.0}, step=1)
        ids.append(logger.experiment.id)  # type: ignore[attr-defined]
        close([logger])
    assert ids[0] == ids[2] != ids[1]
    assert all(list((tmp_path / name / "wandb").glob("offline-run-*")) for name in ("a", "b"))
