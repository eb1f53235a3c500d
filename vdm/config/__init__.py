"""From composed YAML to validated, built components."""

from vdm.config.build import build
from vdm.config.errors import ConfigError, did_you_mean

__all__ = ["ConfigError", "build", "did_you_mean"]
