from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import pytest
import torch
from annotated_types import Gt

from vdm.config import ConfigError, build

if TYPE_CHECKING:
    from nowhere import Nothing  # pyright: ignore[reportMissingImports]


class Block:
    def __init__(self, width: int, kind: Literal["conv", "attention"] = "conv") -> None:
        if width % 8:
            raise ValueError(f"width {width} is not divisible by 8\n(it is folded)")
        self.width, self.kind = width, kind


@dataclass
class Network:
    blocks: list[Block]
    channels: tuple[int, ...] = ()
    rate: float = 0.0
    limit: int | None = None
    folder: Path = Path()
    positive: Annotated[int, Gt(0)] = 1
    named: Mapping[str, Block] | None = None


class Runs(Protocol):
    def run(self) -> None: ...


def flexible(**options: int) -> dict[str, int]:
    return options


def loose(block: Runs | None = None, other: Nothing = None, call: Callable[[int], int] = abs) -> Any:
    return block, other, call


def several(items: Iterable[int]) -> list[list[int]]:
    return [list(items), list(items)]


def opens(path: Path) -> bytes:
    return path.read_bytes()


def needs_package() -> None:
    import nowhere_to_be_found  # noqa: F401 # pyright: ignore[reportMissingImports]


def two(first: int, second: int) -> tuple[int, int]:
    return first, second


def target(what: Any, **values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{what.__qualname__}", **values}


def fault(node: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(node, "model", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nested_nodes_are_built_first() -> None:
    network = build(
        target(Network, blocks=[target(Block, width=8)], named={"last": target(Block, width=16, kind="attention")}),
        "model",
    )

    assert isinstance(network, Network)
    assert [block.width for block in network.blocks] == [8]
    assert network.named is not None
    assert network.named["last"].kind == "attention"


def test_nodes_are_found_in_plain_mappings_and_lists() -> None:
    built = build({"a": [target(Block, width=8)], "b": 3}, "callbacks")

    assert built["a"][0].width == 8
    assert built["b"] == 3


def test_values_become_what_annotations_ask_for() -> None:
    network = build(target(Network, blocks=[], channels=[1, 2], rate=1, limit=1e5, folder="runs"), "model")

    assert (network.channels, network.rate, network.limit, network.folder) == ((1, 2), 1.0, 100_000, Path("runs"))
    assert isinstance(network.limit, int)


def test_iterable_argument_can_be_read_twice() -> None:
    assert build(target(several, items=[1, 2]), "model") == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, "model.rate: 'fast' is not allowed: must be a number"),
        (
            {"limit": 1.5},
            "model.limit: 1.5 is not allowed: must be a whole number",
        ),
        ({"limit": "12"}, "model.limit: '12' is not allowed: must be a number, not text in quotes"),
        ({"limit": True}, "model.limit: True is not allowed: must be a number, not true or false"),
        ({"rate": True}, "model.rate: True is not allowed: must be a number, not true or false"),
        ({"channels": [1, "x"]}, "model.channels[1]: [1, 'x'] is not allowed: must be a whole number"),
        ({"channels": [1, True]}, "model.channels: [1, True] is not allowed: must be a number, not true or false"),
        ({"channels": 3}, "model.channels: 3 is not allowed: must be a list"),
        ({"positive": 0}, "model.positive: 0 is not allowed: must be above 0"),
        ({"blocks": [3]}, "model.blocks[0]: [3] is not allowed: must be a Block"),
        ({"named": target(Block, width=8)}, "model.named: a Block is not allowed: must be a mapping"),
    ],
)
def test_value_against_its_annotation_is_refused(values: dict[str, Any], message: str) -> None:
    assert fault(target(Network, **{"blocks": [], **values})).startswith(message)


def test_message_lists_the_choices() -> None:
    message = fault(target(Network, blocks=[target(Block, width=8, kind="con")]))

    assert message == "model.blocks[0].kind: 'con' is not allowed: must be 'conv' or 'attention'"


def test_unknown_key_names_the_nearest() -> None:
    message = fault(target(Block, width=8, knd="conv"))

    assert message == "model.knd: unknown key: did you mean 'model.kind'? (allowed: kind, width)"


@pytest.mark.parametrize("values", [{}, {"width": "???"}])
def test_missing_key_is_named(values: dict[str, Any]) -> None:
    assert fault(target(Block, **values)) == "model.width: no value given"


def test_value_error_of_a_constructor_gets_the_key() -> None:
    message = fault(target(Network, blocks=[target(Block, width=9)]))

    assert message == "model.blocks[0]: width 9 is not divisible by 8 (it is folded)"


def test_missing_file_and_missing_package_get_the_key(tmp_path: Path) -> None:
    assert fault(target(opens, path=f"{tmp_path}/x")) == f"model: [Errno 2] No such file or directory: '{tmp_path}/x'"
    assert fault(target(needs_package)) == "model: No module named 'nowhere_to_be_found'"


@pytest.mark.parametrize("of_torch", [True, False])
def test_component_that_no_memory_holds_is_one_line(of_torch: bool) -> None:
    message = fault(target(takes_memory, size=10**18, of_torch=of_torch))

    assert message == "model: takes more memory than there is; choose smaller sizes"


def takes_memory(size: int, of_torch: bool) -> object:
    return torch.zeros(size) if of_torch else bytearray(size)


def test_bug_in_a_constructor_stays_what_it_is() -> None:
    def node(what: str) -> dict[str, str]:
        return {"_target_": what}

    with pytest.raises(ZeroDivisionError):
        build(node(f"{__name__}.divides_by_zero"), "model")


def divides_by_zero() -> float:
    return 1 / 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "model._target_: None is not allowed: it is a dotted path such as package.module.Class"),
        ("Block", "model._target_: 'Block' is not allowed: it is a dotted path such as package.module.Class"),
        ("vdm.nowhere.Block", "model._target_: 'vdm.nowhere.Block': it has no 'nowhere'"),
        ("nowhere.Block", "model._target_: 'nowhere.Block': there is no module 'nowhere'"),
        (f"{__name__}.Blok", f"model._target_: '{__name__}.Blok': it has no 'Blok': did you mean 'Block'?"),
        ("math.pi", "model._target_: 'math.pi' is not allowed: it is neither a class nor a function"),
    ],
)
def test_target_that_does_not_exist_is_refused(path: object, message: str) -> None:
    assert fault({"_target_": path}) == message


def test_target_whose_module_lacks_a_package_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)

    message = fault({"_target_": "needs_more.Thing"})

    assert message == (
        "model._target_: 'needs_more.Thing' needs the package 'nowhere_to_be_found', which is not installed"
    )


def test_partial_may_lack_arguments_but_is_checked() -> None:
    partial = build(target(two, second=2, _partial_=True), "optimizer")

    assert isinstance(partial, functools.partial)
    assert partial(1) == (1, 2)
    assert fault(target(two, second="x", _partial_=True)).startswith("model.second: 'x' is not allowed")
    assert fault(target(two, third=3, _partial_=True)).startswith("model.third: unknown key")


def test_given_arguments_are_passed_to_the_outermost_target() -> None:
    assert build(target(two, second=2), "model", first=1) == (1, 2)


def test_keyword_arguments_are_taken_as_they_are() -> None:
    assert build(target(flexible, a=1, b=2), "logger") == {"a": 1, "b": 2}


def test_annotation_that_cannot_be_checked_is_not() -> None:
    block = object()

    assert build(target(loose, other=3), "model", block=block) == (block, 3, abs)
    assert build(target(loose, block=target(Block, width=8)), "model")[0].width == 8
    assert fault(target(loose, call=3)) == "model.call: 3 is not allowed: must be a function"


class TestAllowedModules:
    def test_class_of_an_allowed_module_is_built(self) -> None:
        assert build(target(Block, width=8), "model", allowed_modules=(__name__,)).width == 8

    @pytest.mark.parametrize("path", ["os.system", "builtins.eval", "tests.config.test_componentsx.Block"])
    def test_other_module_is_refused(self, path: str) -> None:
        assert "it must lie in tests.config.test_components" in fault({"_target_": path}, allowed_modules=(__name__,))

    def test_other_module_is_not_even_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
        monkeypatch.syspath_prepend(tmp_path)

        fault({"_target_": "hostile.Thing"}, allowed_modules=("vdm.models",))

        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize(
        "path", ["functools.partial", "pytest.exit", "Path", "build", "Block.__init__.__globals__"]
    )
    def test_what_an_allowed_module_imported_is_refused(self, path: str) -> None:
        message = fault({"_target_": f"{__name__}.{path}"}, allowed_modules=(__name__,))

        assert "it is defined outside of" in message or "neither a class nor a function" in message

    def test_nested_targets_are_held_to_it_too(self) -> None:
        node = target(Network, blocks=[{"_target_": "os.system", "command": "true"}])

        assert fault(node, allowed_modules=(__name__,)).startswith(
            "model.blocks[0]._target_: 'os.system' is not allowed"
        )


@pytest.mark.parametrize(
    "path",
    [
        "vdm.models.pretrained.diffusers_folder._write_json",
        "vdm.models.pretrained.svd.write_folder",
        "vdm.models.diffusers_autoencoders.FrameAutoencoder.load",
        "vdm.models.diffusers_autoencoders.WanAutoencoder.load",
        "vdm.models.lora.add_lora",
    ],
)
def test_of_allowed_modules_only_classes_and_functions_that_take_nothing_are_called(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model._target_: '{path}' is not allowed: it is no public class$"):
        build({"_target_": path}, "model", allowed_modules=("vdm.models",))
    assert build({"_target_": "vdm.models.text_encoders.no_text"}, "model", allowed_modules=("vdm.models",)) is None


@pytest.mark.parametrize("name", ["vdm.objectives.base.ObjectiveWithModules", "vdm.objectives.base.Objective"])
def test_what_others_are_derived_from_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^objective._target_: '{name}' is not allowed: it is an interface"):
        build({"_target_": name}, "objective")


def _forgets() -> Any:
    """Return nothing."""


def _says_so() -> Block | None:
    """Return nothing, as it says."""


def test_function_that_returns_nothing_is_named_unless_it_says_so() -> None:
    assert fault({"_target_": f"{__name__}._forgets"}) == (
        f"model: {__name__}._forgets returned None; it must return the component"
    )
    assert build({"_target_": f"{__name__}._says_so"}, "model") is None
