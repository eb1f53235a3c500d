"""Runs that earlier versions wrote go on, make the same videos, and are given away as they were then.

See ``tests/old_runs/README.md``.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.old_runs import commands

OLD_RUNS = sorted(path.parent for path in Path(__file__).parent.glob("old_runs/*/expected.json"))


@pytest.fixture(params=OLD_RUNS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def copy(old: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "copy"))


def expected(old: Path) -> dict[str, Any]:
    return json.loads((old / "expected.json").read_text())


def is_near(value: Any) -> Any:
    """Up to rounding in another order, as on another machine."""
    return pytest.approx(value, rel=1e-5, abs=1e-9)


def test_there_are_old_runs() -> None:
    assert OLD_RUNS


def test_resumed_run_goes_on_as_then(old: Path, copy: Path) -> None:
    found, then = commands.resumed(copy), expected(old)["resumed"]
    assert found.keys() == then.keys()
    for quantity, values in then.items():
        assert found[quantity] == is_near(values), quantity


def test_videos_are_those_of_then(old: Path, copy: Path) -> None:
    then = np.asarray(Image.open(old / "sample.png")).astype(int)
    assert np.abs(commands.sampled(copy) - then).max() <= 1


def test_latents_made_from_python_are_those_of_then(old: Path, copy: Path) -> None:
    np.testing.assert_allclose(commands.latents(copy), np.load(old / "latents.npy"), rtol=0, atol=1e-5)


def test_held_out_losses_are_those_of_then(old: Path, copy: Path) -> None:
    found, then = commands.evaluated(copy), expected(old)["evaluated"]
    assert found.keys() == then.keys()
    for quantity, value in then.items():
        assert found[quantity] == is_near(value), quantity


def test_what_is_exported_has_the_weights_of_then_and_makes_the_same_videos(old: Path, copy: Path) -> None:
    assert commands.exported(copy) == expected(old)["exported"]
    commands.vdm(copy, "import", "from=given", "to=imported")
    then = np.asarray(Image.open(old / "sample.png")).astype(int)
    assert np.abs(commands.sampled(copy, "imported") - then).max() <= 1
