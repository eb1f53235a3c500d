"""What the options of all commands have in common."""

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
        """Return the class with the options that depend on what else is told, as those of a checkpoint's model.

        Args:
            told: Values by their keys, as far as they are known.
        """
        return cls

    @classmethod
    def imports_from_here(cls, told: Mapping[str, Any]) -> bool:
        """Whether packages in the current folder may be imported; ``told`` as in ``completed``."""
        return told.get("allow_own_code") is True

    @property
    def imports_any_code(self) -> bool:
        """Whether its components may be imported from anywhere: not where they come from others' runs."""
        return True

    def check_paths(self) -> None:
        """Refuse files and folders that are not as they must be; this imports nothing heavy."""

    def check_machine(self) -> None:
        """Refuse what this machine does not have; this may import PyTorch."""
