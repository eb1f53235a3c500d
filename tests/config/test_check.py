from typing import Any

import pytest

from vdm.config import ConfigError, check


class Recorder:
    built = 0

    def __init__(self, width: int, child: "Recorder | None" = None) -> None:
        Recorder.built += 1


def _node(**values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.Recorder", **values}


def test_nothing_is_built() -> None:
    check({"network": [_node(width=1, child=_node(width=2))]}, "model")

    assert Recorder.built == 0


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (_node(width="x"), "model.width: 'x' is not allowed"),
        (_node(widht=1), "model.widht: unknown key: did you mean 'model.width'?"),
        (_node(child=_node(width="x")), "model.child.width: 'x' is not allowed"),
        ([{"a": {"_target_": "nowhere.Thing"}}], "model[0].a._target_: 'nowhere.Thing': there is no module 'nowhere'"),
    ],
)
def test_mistake_is_found(node: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(node, "model")

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"all": 0.1, "text": 2, "image": 3}, ".text: 2 is not allowed: must be at most 1"),
        ({"all": 0.1, "text": True}, ".text: True is not allowed: must be a number, not true or false"),
        ({"all": "much"}, ".all: 'much' is not allowed: must be a number"),
        (0.1, ": 0.1 is not allowed: must be a mapping"),
    ],
)
def test_mistake_in_a_mapping_is_named_by_its_key(shares: Any, message: str) -> None:
    node = {"_target_": "vdm.training.module.DiffusionModule", "condition_dropout": shares}
    with pytest.raises(ConfigError) as caught:
        check(node, "training")

    assert str(caught.value) == f"training.condition_dropout{message}"


def test_what_is_given_later_may_be_missing() -> None:
    check(_node(), "model")
    check(_node(width="???"), "model")
