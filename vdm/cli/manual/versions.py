"""What ``--version`` prints: this project, the checkout that it runs from, and what it runs on."""

import platform
from collections.abc import Iterator
from importlib import metadata

DISTRIBUTION = "video-diffusion-training"


def versions(program: str) -> Iterator[str]:
    """Yield the lines; nothing heavy is imported for them."""
    from vdm.checkpoints.checkout import git_version

    git = git_version()
    checkout = "" if git is None else f" (commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''})"
    yield f"{program} {metadata.version(DISTRIBUTION)}{checkout}"
    try:
        yield f"torch {metadata.version('torch')}"
    except metadata.PackageNotFoundError:
        yield "torch is not installed"
    yield f"python {platform.python_version()}"
