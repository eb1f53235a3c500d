"""Each block of Python in the documentation runs, in order, against a small run and a small data set."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.data.shard_sets import write_set
from tests.training.runs import configuration, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``RUN`` and ``SHARDS``, whose clips have 8 frames of 16x32."""
    folder = tmp_path_factory.mktemp("reader")
    shards = write_set(folder / "SHARDS", {"train": (5,), "validation": (3,)}, shapes=((8, 16, 32),))
    train(folder / "RUN", configuration(shards, "trainer.max_steps=1"))
    return folder


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("README.md", ["dog.mp4"]),
        (
            "docs/python.md",
            [
                *("dog.mp4", "animals/0003-a-cat-sleeps.mp4", "animals-0003.gif", "cat.mp4", "unipc.mp4", "mine.mp4"),
                *("longer.mp4", "trained.mp4"),
            ],
        ),
    ],
)
def test_every_block_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, page: str, made: list[str]) -> None:
    monkeypatch.chdir(folder)
    found = blocks(ROOT / page)
    assert found
    variables: dict[str, Any] = {"__name__": "reader"}
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), variables)
    for name in made:
        file = folder / name
        assert file.is_file(), name
        file.unlink()
