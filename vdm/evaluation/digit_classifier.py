"""A classifier of digits that is trained when it is first used."""

from functools import cached_property

from vdm.data.datamodule import ClipDataModule
from vdm.evaluation.moving_digits import LABEL_NAMES, DigitClassifier, train_classifier


class LearnedDigits:
    """Learns digits from the training clips of a set of moving digits.

    Args:
        data: The set.
    """

    def __init__(self, data: ClipDataModule) -> None:
        self._data = data

    @cached_property
    def classifier(self) -> DigitClassifier:
        """The trained classifier.

        Raises:
            ValueError: If the set's classes are not the ten digits.
        """
        if self._data.label_names != LABEL_NAMES:
            raise ValueError(f"{self._data.name}: its classes are not the ten digits, which are learnt from it")
        return train_classifier(self._data.train_dataloader())
