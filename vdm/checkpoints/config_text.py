"""A run's configuration as YAML: plain values, which every reader takes for what they are."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+.\d]*\d[\d_.:eE+-]*")
"""A text that is a number to some readers of YAML, such as 1e3: not to PyYAML, but to OmegaConf and YAML 1.2."""


class _PlainDumper(yaml.SafeDumper):
    """Writes each value where it stands: without references to equal ones elsewhere."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _PlainDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlainDumper.add_representer(str, _text)


def config_text(config: Mapping[str, Any]) -> str:
    """Return a configuration as YAML; nothing in it is an interpolation, though it may look like one."""
    return yaml.dump(dict(config), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
