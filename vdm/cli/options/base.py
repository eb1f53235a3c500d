"""Base class of the options of all commands."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self


class CommandOptions:
    """Checks that go beyond single values, in the order in which they are made.

    Raises:
        ConfigError: From each of its methods, in one line that names the key.
    """

    of_run: ClassVar[frozenset[str]] = frozenset()
    """Components that are those of the checkpoint's run, unless others are chosen by ``KEY=NAME``."""
    instead: ClassVar[Mapping[str, str]] = {}
    """Advice for keys that users may expect and that the command does not have."""

    @classmethod
    def completed(cls, told: Mapping[str, Any]) -> type[Self]:
        """Return the class with further options that depend on values, such as those of a checkpoint's model.

        Args:
            told: Values by key, as far as they are known.
        """
        return cls

    @classmethod
    def imports_from_here(cls, told: Mapping[str, Any]) -> bool:
        """Whether packages in the current folder may be imported; ``told`` as in ``completed``."""
        return told.get("allow_own_code") is True

    @property
    def imports_any_code(self) -> bool:
        """Whether components may be imported from anywhere; not if they come from others' runs."""
        return True

    def check_paths(self) -> None:
        """Refuse wrong files and folders; this imports nothing heavy."""

    def check_machine(self) -> None:
        """Refuse devices and sizes that this machine does not have; this may import PyTorch."""
