"""constraints.txt pins what pyproject.toml asks for."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
REQUIREMENTS = [
    *PYPROJECT["build-system"]["requires"],
    *PYPROJECT["project"]["dependencies"],
    *chain.from_iterable(PYPROJECT["project"]["optional-dependencies"].values()),
]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("text", sorted(set(REQUIREMENTS)))
def test_requirement_is_pinned_to_a_version_that_satisfies_it(pins: dict[str, Version], text: str) -> None:
    requirement = Requirement(text)
    assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def test_pins_name_versions_and_not_builds(pins: dict[str, Version]) -> None:
    assert [name for name, version in pins.items() if version.local] == []


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_of_lightning_are_excluded(version: str) -> None:
    (lightning,) = [Requirement(text) for text in REQUIREMENTS if Requirement(text).name == "lightning"]
    assert version not in lightning.specifier
