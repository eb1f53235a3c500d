"""What holds in every test: one thread a process, no network, and annotations that are checked, shapes included."""

import os

# Before torch is imported. Subprocesses inherit them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from jaxtyping import install_import_hook

from tests.runtime_types import check

install_import_hook(["vdm", "data_pipelines"], f"{check.__module__}.{check.__name__}")
