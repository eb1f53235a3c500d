"""From composed YAML to validated, built components."""

from vdm.config.components import build, check, takes
from vdm.config.errors import ConfigError, did_you_mean, errors_at

__all__ = ["ConfigError", "build", "check", "did_you_mean", "errors_at", "takes"]
