"""The type checker that tests put behind every annotation of vdm and data_pipelines."""

from typing import TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

T = TypeVar("T")

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # the tower: an int will do where a float is asked for


def check(decorated: T) -> T:
    """Check arguments and results at each call; what beartype has no words for, as ``Self``, stays unchecked."""
    try:
        return _check(decorated)
    except BeartypeDecorHintException:
        return decorated
