"""Options that a checkpoint's model adds to a command, declared by its conditioner."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_type_hints

from vdm.checkpoints.run_record import load_config
from vdm.config.signatures import Signature, signature_of
from vdm.config.static_signatures import read_declared
from vdm.config.targets import resolve

_ATTRIBUTE = "options"
"""Attribute that declares them; see ``vdm.models.conditioner.Conditioner.options``."""


def options_of_model(checkpoint: Path, allow_own_code: bool) -> Mapping[str, Any] | None:
    """Return the annotations of the options that a run's conditioner declares, by name.

    The class of the conditioner is read from source, not imported, unless it is the user's own.

    Returns:
        None if the run does not exist, or importing its conditioner's class is not allowed.

    Raises:
        ConfigError: If a class of the user's own can't be imported.
    """
    try:
        node = load_config(checkpoint)["model"]["conditioner"]["_target_"]
    except (ValueError, KeyError, TypeError):
        return None
    declared = read_declared(node, _ATTRIBUTE) if isinstance(node, str) else None
    if declared is None and allow_own_code:
        declared = _ask_python(node)
    if declared is None:
        return None
    return {name: declared.annotations[name] for name in declared.named if name in declared.annotations}


def _ask_python(target: object) -> Signature:
    cls: Any = resolve(target, "model.conditioner._target_", None)
    hint = get_type_hints(cls).get(_ATTRIBUTE)
    return Signature({}, {}) if hint in (None, NoneType) else signature_of(hint)
