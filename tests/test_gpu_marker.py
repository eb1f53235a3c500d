"""Tests that need a GPU: which runs of pytest they are in, and what becomes of them on a machine without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.selection import selects_gpu_tests_alone

KERNELS = "tests/gpu/test_attention_kernels.py"


def run_gpu_tests(*arguments: str) -> str:
    """Run pytest in a process of its own; it sees no GPU, since this one doesn't. Returns its output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", KERNELS, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("marks", "alone"),
    [
        ("gpu", True),
        ("gpu and not chaos", True),
        ("not chaos and gpu", True),
        ("not chaos and not gpu", False),
        ("gpu or chaos", False),
        ("chaos", False),
        ("", False),
    ],
)
def test_only_runs_of_gpu_tests_alone_see_gpus(marks: str, alone: bool) -> None:
    assert selects_gpu_tests_alone(marks) == alone
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_gpu_tests_are_skipped_without_a_gpu_and_say_so() -> None:
    output = run_gpu_tests()
    assert "no GPU: torch.cuda.is_available() is false" in output
    assert "passed" not in output


def test_gpu_tests_run_on_a_cpu_if_told_to() -> None:
    assert "2 passed" in run_gpu_tests("--gpu-device=cpu", "-k", "textbook and space and (math or flash)")
