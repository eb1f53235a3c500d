"""What is read of a constructor's source is what Python says of the constructor."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.config.components import TARGETS
from vdm.config import ConfigError, check
from vdm.config.signatures import signature_of
from vdm.config.static_signatures import read_signature

ELSEWHERE = {"lightning.Trainer", "hydra_plugins.vdm.SlurmLauncher"}
"""Read from what stands for them."""
NOT_READ = ("torch.", "lightning.", "numpy.")
"""Parts of annotations that are left to ``build``."""


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    __import__(module)
    return getattr(sys.modules[module], name)


@pytest.mark.parametrize("path", sorted(TARGETS - ELSEWHERE))
def test_source_says_what_python_says(path: str) -> None:
    read, asked = read_signature(path), signature_of(_imported(path))

    assert read is not None
    assert (dict(read.named), read.takes_any) == (dict(asked.named), asked.takes_any)
    for name in asked.named:
        if name in read.annotations:
            assert repr(read.annotations[name]) == repr(asked.annotations[name])
        else:
            assert any(part in repr(asked.annotations[name]) for part in NOT_READ), name


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that counts as ours, whose modules can't be imported."""
    folder = tmp_path_factory.mktemp("source") / "unimportable"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "base.py").write_text(
        textwrap.dedent("""
        import heavy
        from dataclasses import KW_ONLY, dataclass, field
        from typing import Annotated, ClassVar, Literal

        from annotated_types import Interval

        raise RuntimeError("imported")
        LARGEST = 2 * 4
        Few = Annotated[int, Interval(ge=1, le=LARGEST)]
        Kind = Literal["a", "b"]

        @dataclass
        class Base:
            count: Few
            kind: Kind = "a"
            known: ClassVar[int] = 3
            made: int = field(init=False)
            tensor: heavy.Tensor | None = None
            several: list[Few] = field(default_factory=list)
        """)
    )
    (folder / "child.py").write_text(
        textwrap.dedent("""
        from dataclasses import dataclass
        from unimportable.base import Base, Few as Many, Kind

        @dataclass(frozen=True)
        class Child(Base):
            count: Many = 2
            parent: "Base | None" = None

        class Plain(Child):
            pass

        class Written(Plain):
            def __init__(self, first, /, second: Kind, *, third: Many = 1, **rest: int) -> None: ...

        def function(second: Kind, third: Many = 1) -> None: ...
        """)
    )
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr("vdm.config.static_signatures.PROJECT", ("unimportable",))
    return "unimportable.child"


def test_dataclass_is_read_with_its_bases(project: str) -> None:
    for name in ("Child", "Plain"):
        signature = read_signature(f"{project}.{name}")

        assert signature is not None
        optional = {"count": False, "kind": False, "tensor": False, "several": False, "parent": False}
        assert signature.named == optional
        assert set(signature.annotations) == {"count", "kind", "several", "parent"}


def test_constructor_and_function_are_read(project: str) -> None:
    written, function = read_signature(f"{project}.Written"), read_signature(f"{project}.function")

    assert written is not None
    assert function is not None
    assert (written.named, written.takes_any) == ({"second": True, "third": False}, True)
    assert (function.named, function.takes_any) == ({"second": True, "third": False}, False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 9}, "model.count: 9 is not allowed: must be at most 8"),
        ({"kind": "c"}, "model.kind: 'c' is not allowed: must be 'a' or 'b'"),
        ({"several": [1, 0]}, "model.several[1]: [1, 0] is not allowed: must be at least 1"),
        ({"parent": 3}, "model.parent: 3 is not allowed: must be a Base, as a mapping with its _target_"),
        ({"made": 1}, "model.made: unknown key"),
        ({"known": 1}, "model.known: unknown key"),
        (
            {"_target_": "unimportable.child.Chld"},
            "model._target_: 'unimportable.child.Chld': it has no 'Chld': did",
        ),
        (
            {"_target_": "unimportable.chld.Child"},
            "model._target_: 'unimportable.chld.Child': it has no 'chld': did",
        ),
    ],
)
@pytest.mark.usefixtures("project")
def test_values_are_checked_without_an_import(values: dict[str, Any], message: str) -> None:
    check({"_target_": "unimportable.child.Child", "tensor": "left to build"}, "model")

    with pytest.raises(ConfigError) as caught:
        check({"_target_": "unimportable.child.Child", **values}, "model")

    assert str(caught.value).startswith(message)


def test_class_of_another_is_imported_when_all_else_is_right(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_code_of_a_user.py").write_text("def own(size: int) -> None: ...\n")
    monkeypatch.syspath_prepend(folder)
    own = {"_target_": "own_code_of_a_user.own", "size": "x"}
    sampler = {"_target_": "vdm.diffusion.samplers.ddim.DDIM", "eta": 2}

    with pytest.raises(ConfigError, match=r"^sampler\.eta: 2 is not allowed: must be at most 1$"):
        check({"model": own, "sampler": sampler})
    assert "own_code_of_a_user" not in sys.modules
    with pytest.raises(ConfigError, match=r"^model\.size: 'x' is not allowed: must be a whole number$"):
        check({"model": own})


def test_check_of_all_components_imports_neither_torch_nor_lightning() -> None:
    code = """
import sys
from tests.config.components import NODES
from vdm.config import check
for key, node in NODES:
    check(node, key)
print([name for name in ("torch", "lightning", "numpy", "wandb") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
