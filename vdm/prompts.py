"""What clips are asked for: conditions by name, each with a value for every clip.

What the network gets of them is ``vdm.types.Conditioning``; between the two is a model's conditioner.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vdm.types import ClipBatch, TensorRecord, TextEmbeddings


@dataclass(frozen=True)
class Condition(TensorRecord, ABC):
    """One kind of condition of ``b`` clips: a value for each, which a clip may lack.

    A new kind is a new name in ``Prompts`` or, where none of the classes here fits, a subclass.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of clips."""

    @abstractmethod
    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Return the condition without the values of the clips that are marked True."""

    def rows(self, rows: slice) -> Self:
        """Return the condition of some of the clips."""
        return self.map(lambda tensor: tensor[rows])


@dataclass(frozen=True)
class TextCondition(Condition):
    """Captions, and what the text encoder makes of them where it was made beforehand."""

    captions: tuple[str, ...]
    """The empty caption is no condition."""
    embeddings: TextEmbeddings | None = None
    """One entry a caption."""
    empty: TextEmbeddings | None = None
    """One entry: the empty caption's; there wherever ``embeddings`` is."""

    def __len__(self) -> int:
        return len(self.captions)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Put the empty caption in the place of those that are marked True."""
        captions = tuple("" if dropped else text for text, dropped in zip(self.captions, where, strict=True))
        embeddings = self.embeddings
        if embeddings is not None and self.empty is not None:
            embeddings = embeddings.replaced(where, self.empty)
        return dataclasses.replace(self, captions=captions, embeddings=embeddings)

    def rows(self, rows: slice) -> Self:
        """Return the condition of some of the clips."""
        embeddings = None if self.embeddings is None else self.embeddings.map(lambda tensor: tensor[rows])
        return dataclasses.replace(self, captions=self.captions[rows], embeddings=embeddings)


@dataclass(frozen=True)
class LabelCondition(Condition):
    """Classes."""

    labels: Int[Tensor, " b"]
    """Class index, -1 for none."""

    def __len__(self) -> int:
        return len(self.labels)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Put -1 in the place of the classes that are marked True."""
        return dataclasses.replace(self, labels=self.labels.masked_fill(where.to(self.labels.device), -1))


@dataclass(frozen=True)
class TensorCondition(Condition):
    """Any tensor with a row for each clip: latents, an embedding, numbers."""

    values: Shaped[Tensor, "b *shape"]
    present: Bool[Tensor, " b"] | None = None
    """Whether each clip's value counts. None: it always does, and dropping leaves it as it is; Stable Video Diffusion's
    numbers are such a condition."""

    @classmethod
    def given(cls, values: Shaped[Tensor, "b *shape"]) -> Self:
        """Return the condition in which every clip's value counts until it is dropped."""
        return cls(values, torch.ones(len(values), dtype=torch.bool, device=values.device))

    def __len__(self) -> int:
        return len(self.values)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Let the values of the clips that are marked True not count; they stay in ``values``."""
        if self.present is None:
            return self
        return dataclasses.replace(self, present=self.present & ~where.to(self.present.device))

    @property
    def masked(self) -> Shaped[Tensor, "b *shape"]:
        """The values, with zeros where they don't count."""
        if self.present is None:
            return self.values
        # Not by a product: 0 times NaN is NaN, and NaN may well stand where a clip has no value.
        present = self.present.view(-1, *[1] * (self.values.ndim - 1))
        return torch.where(present, self.values, self.values.new_zeros(()))


AnyCondition = TypeVar("AnyCondition", bound=Condition)


@dataclass(frozen=True)
class Prompts(TensorRecord):
    """What clips are asked for: conditions by name, each with one entry a clip.

    A condition that is not there and one that is dropped for all clips mean the same to the model.
    """

    conditions: Mapping[str, Condition]

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ValueError(
                "prompts need a condition at least, such as empty captions, to say how many clips there are"
            )
        lengths = {name: len(condition) for name, condition in self.conditions.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} of {length}" for name, length in lengths.items())
            raise ValueError(f"conditions must be of equally many clips, but there are {shown}")

    @staticmethod
    def of(captions: Sequence[str], labels: Int[Tensor, " b"] | None = None) -> Prompts:
        """Return prompts with the conditions ``text`` and ``label``; see ``with_conditions`` for further ones.

        Args:
            captions: One a clip; the empty caption is no condition.
            labels: Class index of each clip, -1 for none; by default none has any.
        """
        classes = torch.full((len(captions),), -1) if labels is None else labels
        return Prompts({"text": TextCondition(tuple(captions)), "label": LabelCondition(classes)})

    @staticmethod
    def of_clips(batch: ClipBatch, x0: Float[Tensor, "b c t h w"]) -> Prompts:
        """Return what clips are known by.

        That is ``text``, ``label``, ``image`` (latents of the first frame) and, where the batch has them, ``crops``.

        Args:
            batch: The clips.
            x0: Their clean latents.
        """
        prompts = Prompts(
            {
                "text": TextCondition(batch.captions, batch.text, batch.empty_text),
                "label": LabelCondition(batch.labels),
                "image": TensorCondition.given(x0[:, :, 0]),
            }
        )
        return prompts if batch.crops is None else prompts.with_conditions(crops=TensorCondition(batch.crops))

    def __len__(self) -> int:
        return len(next(iter(self.conditions.values())))

    @property
    def captions(self) -> tuple[str, ...]:
        """The caption of each clip, empty where it has none."""
        text = self.find("text", TextCondition)
        return ("",) * len(self) if text is None else text.captions

    @property
    def device(self) -> torch.device | None:
        """Where the conditions are; None where no tensor is among them."""
        devices: list[torch.device] = []

        def note(tensor: Tensor) -> Tensor:
            devices.append(tensor.device)
            return tensor

        self.map(note)
        return devices[0] if devices else None

    def find(self, name: str, kind: type[AnyCondition]) -> AnyCondition | None:
        """Return a condition, or None where there is none of that name.

        Raises:
            ValueError: If it is none of the class ``kind``.
        """
        found = self.conditions.get(name)
        if found is not None and not isinstance(found, kind):
            raise ValueError(f"the condition {name!r} must be a {kind.__name__}, but is a {type(found).__name__}")
        return found

    def with_conditions(self, **conditions: Condition) -> Prompts:
        """Return the prompts with further conditions, in the place of those that have their names."""
        return Prompts({**self.conditions, **conditions})

    def asking(self, caption: str) -> Prompts:
        """Return the prompts with one caption for all clips."""
        return self.with_conditions(text=TextCondition((caption,) * len(self)))

    def rows(self, rows: slice) -> Prompts:
        """Return the prompts of some of the clips."""
        return Prompts({name: condition.rows(rows) for name, condition in self.conditions.items()})

    def drop(self, where: Mapping[str, Bool[Tensor, " b"]]) -> Prompts:
        """Return the prompts without what is marked True, for classifier-free guidance (Ho & Salimans 2022).

        Args:
            where: For each condition, by name, the clips that lose it; the other conditions stay.
        """
        dropped = {name: self.conditions[name].drop(marked) for name, marked in where.items()}
        return Prompts({**self.conditions, **dropped})

    def without_conditions(self) -> Prompts:
        """Return the prompts without any condition."""
        return self.drop(dict.fromkeys(self.conditions, torch.ones(len(self), dtype=torch.bool)))
