"""The README that goes with exported weights."""

from collections.abc import Mapping


def model_card(
    title: str,
    usage: str,
    config: str,
    data: Mapping[str, object],
    metrics: Mapping[str, float],
    notes: str = "",
    front_matter: Mapping[str, str] | None = None,
) -> str:
    """Return a model card in Markdown.

    Args:
        title: Its heading.
        usage: Lines of code or of a shell that use the weights.
        config: The whole configuration, as YAML.
        data: What is known of the training data, by name.
        metrics: Figures, by name.
        notes: A paragraph on what else the user must know, such as the licence.
        front_matter: Keys that the hub reads, such as ``license``.
    """
    parts = [f"# {title}", f"```\n{usage.strip()}\n```"]
    if notes:
        parts += ["## Licence", notes]
    parts += ["## Data", _table(data) if data else "None is recorded."]
    parts += ["## Metrics", _table(metrics) if metrics else "None is recorded; `vdm evaluate` measures them."]
    parts += ["## Configuration", f"```yaml\n{config.strip()}\n```"]
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
