"""Whether GPUs are what a run of pytest is about."""


def selects_gpu_tests_alone(marks: str) -> bool:
    """Tell whether an expression for ``pytest -m`` selects no test but those marked gpu."""
    return " or " not in marks and "gpu" in marks.split(" and ")
