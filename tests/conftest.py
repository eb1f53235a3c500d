"""What holds in every test: one thread a process, no network, and annotations that are checked, shapes included."""

import os

# Before torch is imported. Subprocesses inherit them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_GCE_CHECK"] = "true"  # Google's clients would ask for credentials from the machine, at each request
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # and about kinds of buckets that no emulator has

import logging
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

from tests.browser import browser, tab  # noqa: F401 - fixtures of all tests
from tests.gpu.selection import selects_gpu_tests_alone
from tests.runtime_types import check
from tests.training.zygote import Zygote

install_import_hook(["vdm", "data_pipelines"], f"{check.__module__}.{check.__name__}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where tests marked gpu run: on a CPU they check themselves, on a machine without a GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, from subprocesses too, unless only tests marked gpu run."""
    if selects_gpu_tests_alone(config.option.markexpr) and config.option.gpu_device == "cuda":
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # fp32 is fp32, so that results can be compared with a CPU's
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def shared_zygote() -> Iterator[Zygote]:
    """Starts processes of ``vdm``; shared, since it has imported what they need, which takes seconds."""
    with Zygote() as zygote:
        yield zygote


@pytest.fixture
def zygote(shared_zygote: Zygote) -> Iterator[Zygote]:
    """Starts processes of ``vdm``, and kills those that the test leaves."""
    yield shared_zygote
    shared_zygote.kill_all()


@pytest.fixture(autouse=True)
def no_real_time_priority() -> Iterator[None]:
    """Fail the test that left this process with real-time priority, as some encoders do: it would starve all others."""
    before = os.sched_getscheduler(0)
    yield
    after = os.sched_getscheduler(0)
    if after != before:
        os.sched_setscheduler(0, before, os.sched_param(0))
        pytest.fail(f"the test changed the scheduling of its process: policy {after}, and no longer {before}")


@pytest.fixture(autouse=True)
def no_log_files_of_others() -> Iterator[None]:
    """Take away the log files that commands, which end with their process, opened in this one."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, logging.FileHandler) and handler not in before:
            logging.getLogger().removeHandler(handler)
            handler.close()
