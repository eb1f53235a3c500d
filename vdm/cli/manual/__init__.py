"""What the commands say of themselves: help, shell completion and versions, without Hydra and PyTorch."""

FLAGS = ("-h", "--help")
"""Ask for a command's help, wherever they stand."""
