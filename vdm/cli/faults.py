"""Users' mistakes in one line: messages of Hydra and OmegaConf shortened, mistakes told from bugs."""

import errno
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationKeyError,
    OmegaConfBaseException,
)
from yaml import YAMLError

from vdm.config import ConfigError, did_you_mean
from vdm.config.conf_dir import conf_dir
from vdm.config.quoting import escaped, shell_list, shell_override, shell_word
from vdm.logs import OWN_PACKAGES

COMPOSITION_FAULTS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, UserWarning)
"""Errors before a command's own code runs; the cause is always the command line or a YAML."""

_OF_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Storage that is full, over quota or read-only: never a bug, in whichever code the error arises."""
_OF_PATHS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Wrong paths: not permitted, a file in place of a folder or the reverse, too long, a circle of links. They are users'
paths, since this project makes none such."""

_KEY = re.compile(r"[\w.+~/@:-]+")
_REFERENCE = re.compile(r"\$\{[^${}]*\}")
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*?)'\n1\. ", re.DOTALL)


def is_mistake(error: Exception) -> bool:
    """Tell whether an error in a command's own code is a user's mistake, or full storage, rather than a bug.

    A ``ValueError`` of this project is a user's mistake, with a message for users; one of a library is a bug.
    """
    if isinstance(error, ConfigError) or (isinstance(error, OSError) and error.errno in _OF_STORAGE):
        return True
    if isinstance(error, OSError) and error.errno in _OF_PATHS and error.filename is not None:
        return True
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    innermost = error.__traceback__
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    return innermost.tb_frame.f_globals.get("__name__", "").partition(".")[0] in OWN_PACKAGES


def one_line(error: BaseException) -> str:
    """Return one line that says what is wrong, where, and what is allowed."""
    cause = error.__cause__
    own = _config_error_behind(error)
    if own is not None:
        return _joined(str(own))
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unparsable(error)
    key = unknown_key(error) if isinstance(error, ConfigCompositionException) else None
    if key is not None and isinstance(cause, OmegaConfBaseException):
        return _unknown_key(key, cause)
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _joined(f"{error}: {one_line(cause)}".removeprefix(": "))
    if isinstance(error, ConfigCompositionException) and (found := _AMBIGUOUS.match(str(error))):
        return _joined(_ambiguous(found[1]))
    if isinstance(error, OmegaConfBaseException):
        message = str(error).split("\n", 1)[0]
        if isinstance(error, GrammarParseError | InterpolationKeyError):
            message += "; in a text that means no other key, '${' is written '\\${'"
        return f"{error.full_key}: {message}" if error.full_key else message
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _joined(f"{error.filename}: {error.strerror}")
    return _joined(str(error))


def _config_error_behind(error: BaseException | None) -> ConfigError | None:
    """Return the ``ConfigError`` behind an error, such as one that OmegaConf wraps when a resolver raises it."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__ or error.__context__
    return error


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    # for one of a list, metric=[a,b], Hydra does not say what there is
    options = error.options or [path.stem for path in (conf_dir() / group).glob("*.yaml") if group]
    if not options:
        return _joined(str(error).split("\nConfig search path:", 1)[0])
    return f"{group}={option}: no such option{did_you_mean(option, options)}"


def _unparsable(error: OverrideParseException) -> str:
    found = str(error).partition("LexerNoViableAltException")[0]  # it repeats only the place
    reasons = [line for line in found.splitlines() if not line.startswith(("See https", "Error parsing"))]
    reason = f": {_joined(' '.join(reasons))}" if reasons else ""
    key, _, value = str(error.override).partition("=")
    advice = f"; quote the value: {_quoted(key, value)}" if _KEY.fullmatch(key) else ""
    return f"Cannot read '{error.override}' as KEY=VALUE{reason}{advice}"


def _quoted(key: str, value: str) -> str:
    """Return the quoted form of a value that Hydra can't read: a list of texts if it has brackets, else a text."""
    if value.startswith("[") and value.endswith("]"):
        return shell_list(key, [item.strip().strip("'\"") for item in value[1:-1].split(",")])
    return shell_override(key, value if "${" not in _REFERENCE.sub("", value) else escaped(value))


def _ambiguous(override: str) -> str:
    key, _, value = override.partition("=")
    return (
        f"{override}: a list has brackets: {shell_word(f'{key}=[{value}]')}; a text with commas has quotes:"
        f" {shell_override(key, value)}; -m makes a run of each"
    )


def unknown_key(error: ConfigCompositionException) -> str | None:
    """Return the overridden key that does not exist; None if something else is wrong."""
    cause = error.__cause__
    if not isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return None
    named = re.match(r"Could not override '(.+)'", str(error))
    return cause.full_key or (named.group(1) if named else "")


def _unknown_key(key: str, cause: OmegaConfBaseException) -> str:
    parent, _, word = key.rpartition(".")
    node = cause.parent_node
    siblings = [str(name) for name in node if name != "hydra"] if isinstance(node, DictConfig) else []
    if not siblings:
        return f"Unknown key '{key}': '{parent}' has no keys"
    deeper = sorted(path for path in _paths(node, siblings) if path.endswith(f".{word}"))
    if deeper:
        return f"Unknown key '{key}': did you mean '{f'{parent}.{deeper[0]}'.lstrip('.')}'?"
    return f"Unknown key '{key}'{did_you_mean(word, siblings, parent)}"


def _paths(node: Any, names: Iterable[str]) -> Iterator[str]:
    """Yield the dotted keys below ``names`` in ``node``."""
    for name in names:
        yield name
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from (f"{name}.{path}" for path in _paths(child, map(str, child)))


def _joined(text: str) -> str:
    return " ".join(text.split())
