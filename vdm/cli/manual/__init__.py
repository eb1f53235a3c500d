"""Help, shell completion and versions of the commands, without imports of Hydra and PyTorch."""

FLAGS = ("-h", "--help")
"""Flags that ask for a command's help, anywhere in the command line."""
