"""Model card: the README of exported weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Facts about a model.

    Args:
        data: Facts about the training data, by name.
        training: Facts about the training, by name.
        metrics: Values of metrics, by name.
        protocol: Options of the evaluation that measured them, as YAML. Empty if not recorded.
        config: The whole configuration, as YAML.
    """

    data: Mapping[str, object]
    training: Mapping[str, object]
    metrics: Mapping[str, float]
    protocol: str
    config: str


def model_card(
    title: str, usage: str, facts: Facts, notes: str = "", front_matter: Mapping[str, str] | None = None
) -> str:
    """Return a model card in Markdown.

    Args:
        title: Heading of the card.
        usage: Lines of code or shell commands that use the weights.
        facts: Facts about the model.
        notes: A paragraph about the licence.
        front_matter: Keys that the hub reads, such as ``license``.
    """
    parts = [f"# {title}", f"```\n{usage.strip()}\n```"]
    if notes:
        parts += ["## Licence", notes]
    for heading, table in (("Data", facts.data), ("Training", facts.training)):
        parts += [f"## {heading}", _table(table) if table else "None is recorded."]
    parts += [
        "## Metrics",
        _table(facts.metrics) if facts.metrics else "None is recorded; `vdm evaluate` measures them.",
    ]
    if facts.protocol:
        parts += ["Measured by `vdm evaluate` with", f"```yaml\n{facts.protocol.strip()}\n```"]
    parts += ["## Configuration", f"```yaml\n{facts.config.strip()}\n```"]
    head = "".join(f"{name}: {value}\n" for name, value in (front_matter or {}).items())
    return (f"---\n{head}---\n\n" if head else "") + "\n\n".join(parts) + "\n"


def licence_keys(readme: str) -> dict[str, str]:
    """Return the keys that begin with ``license`` in the front matter of a README on the hub."""
    lines = readme.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        name, colon, value = line.partition(":")
        if colon and name.startswith("license") and value.strip():
            found[name] = value.strip()
    return found


def _table(entries: Mapping[str, object]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in entries.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in shown.items())])
