"""No model: captions are what people wrote."""


def annotations_only() -> None:
    """Stand for captions from annotations alone."""
