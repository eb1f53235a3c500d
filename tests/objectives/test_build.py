"""An objective is refused where a checkpoint would not hold what it keeps."""

from typing import Any

import pytest

from tests.assembly.small_model import small_model
from tests.objectives.own import KeepsModel, NearReference
from vdm.config import ConfigError
from vdm.objectives.base import losses_of
from vdm.objectives.build import build_objective


def own(name: str) -> dict[str, str]:
    return {"_target_": f"tests.objectives.own.{name}"}


def test_module_that_no_checkpoint_would_hold_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        build_objective(own("KeepsReference"), small_model())
    assert str(refused.value).startswith("objective: KeepsReference keeps a module of its own as 'references', whose")
    assert "ObjectiveWithModules" in str(refused.value)


def test_the_model_itself_and_modules_of_an_objective_with_modules_may_be_kept() -> None:
    assert isinstance(build_objective(own("KeepsModel"), small_model()), KeepsModel)
    assert isinstance(build_objective(own("NearReference"), small_model()), NearReference)


def test_objective_that_returns_something_else_is_named_with_what_it_must_return() -> None:
    def forgets(*_: object) -> Any:
        """Return nothing."""

    with pytest.raises(ValueError, match=r"^objective: function returned NoneType; it must return Losses"):
        losses_of(forgets, small_model(), None, None)  # pyright: ignore[reportArgumentType]
