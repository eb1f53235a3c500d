"""Options of each command: a frozen dataclass with the keys of ``conf/COMMAND.yaml``, which has their defaults.

They are checked before a command's own module is imported, so nothing here imports PyTorch before it is needed.
"""
