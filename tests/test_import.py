"""``from vdm import VideoDiffusionModel``."""

import subprocess
import sys

import pytest

import vdm
from vdm.assembly.model import VideoDiffusionModel


def test_model_is_found_at_the_top() -> None:
    assert vdm.VideoDiffusionModel is VideoDiffusionModel


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="module 'vdm' has no attribute 'Video'"):
        vdm.Video  # noqa: B018 - an attribute that is looked up when it is asked for


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, vdm; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
