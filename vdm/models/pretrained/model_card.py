"""The README that goes with exported weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of a model.

    Args:
        data: Of the training data, by name.
        training: Of the training, by name.
        metrics: Figures, by name.
        protocol: How these were measured, as YAML; empty where that is not recorded.
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
        title: Its heading.
        usage: Lines of code or of a shell that use the weights.
        facts: What is known of the model.
        notes: A paragraph on what else the user must know, such as the licence.
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
    """Return what the head of a README on the hub says of the licence: ``license`` and what begins so."""
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
