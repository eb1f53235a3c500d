"""What the options of all commands have in common."""


class CommandOptions:
    """Checks that go beyond single values, in the order in which they are made.

    Raises:
        ConfigError: From each of its methods, in one line that names the key.
    """

    @property
    def imports_any_code(self) -> bool:
        """Whether its components may be imported from anywhere: not where they come from others' runs."""
        return True

    def check_paths(self) -> None:
        """Refuse files and folders that are not as they must be; this imports nothing heavy."""

    def check_machine(self) -> None:
        """Refuse what this machine does not have; this may import PyTorch."""
