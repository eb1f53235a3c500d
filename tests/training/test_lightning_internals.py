"""Each private name of Lightning that is used exists in the installed version, and is used in one file alone."""

import ast
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import lightning
import pytest
from lightning.pytorch import strategies
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy, launchers

from vdm.training import lightning_internals

ROOT = Path(lightning_internals.__file__).parents[2]
PROGRESS = "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step"

NAMES = {
    "trainer": (
        "_signal_connector.register_signal_handlers",
        "fit_loop._should_accumulate",
        "fit_loop.epoch_loop._batches_that_stepped",
        "fit_loop.epoch_loop.batch_progress.total.processed",
        "fit_loop.epoch_loop.batch_progress.current.processed",
        f"{PROGRESS}.total.completed",
        f"{PROGRESS}.current.completed",
    ),
    "module": ("_device",),
    "precision": ("_after_closure",),
    "strategy": (
        "_configure_launcher",
        "_ddp_kwargs",
        "_get_process_group_backend",
        "_launcher",
        "_lightning_module",
        "_precision_plugin",
        "_timeout",
    ),
    "launchers": ("_SubprocessScriptLauncher._call_children_scripts",),
}


def owner(name: str) -> object:
    if name == "trainer":
        return lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return {
        "module": lightning.LightningModule(),
        "precision": Precision(),
        "strategy": DDPStrategy(),
        "launchers": launchers,
    }[name]


@pytest.mark.parametrize(("of", "path"), [(of, path) for of, paths in NAMES.items() for path in paths])
def test_installed_lightning_has(of: str, path: str) -> None:
    attrgetter(path)(owner(of))


def test_saved_loops_have_the_keys_that_are_rewritten() -> None:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    saved = trainer.fit_loop.state_dict()
    assert saved["epoch_loop.state_dict"].keys() == {"_batches_that_stepped"}
    assert saved["epoch_progress"]["total"].keys() == {"ready", "started", "processed", "completed"}
    assert saved["epoch_loop.batch_progress"].keys() == {"total", "current", "is_last_batch"}


def private_names(file: Path) -> Iterator[str]:
    """Yield the private names that a file defines or takes from objects, keys of dictionaries apart."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("lightning"):
            yield from (alias.name for alias in node.names)


def test_each_private_name_is_tested() -> None:
    tested = {part for paths in NAMES.values() for path in paths for part in path.split(".") if part.startswith("_")}
    used = {name for name in private_names(Path(lightning_internals.__file__)) if _is_private(name)}
    assert used | {"_configure_launcher", "_get_process_group_backend", "_call_children_scripts"} == tested


def test_no_other_file_uses_them() -> None:
    base = {name for kind in (strategies.Strategy, DDPStrategy, lightning.LightningModule) for name in vars(kind)}
    forbidden = {part for paths in NAMES.values() for path in paths for part in path.split(".") if _is_private(part)}
    forbidden |= {name for name in base if _is_private(name)}
    forbidden -= {"_device", "_launcher"}  # also names of ours
    files = [file for file in (ROOT / "vdm").rglob("*.py") if file != Path(lightning_internals.__file__)]
    found = {f"{file.relative_to(ROOT)}: {name}" for file in files for name in private_names(file) if name in forbidden}
    assert found == set()


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
