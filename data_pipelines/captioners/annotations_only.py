"""No captioner: captions come from annotations alone."""


def annotations_only() -> None:
    """Placeholder component for captions from annotations alone."""
