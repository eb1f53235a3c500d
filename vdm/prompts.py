"""Prompts: the conditions of clips by name, each with a value for every clip.

A model's conditioner turns them into ``vdm.types.Conditioning``, the input of the network.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vdm.types import ClipBatch, TensorRecord, TextEmbeddings


@dataclass(frozen=True)
class Condition(TensorRecord, ABC):
    """A condition of ``b`` clips: one value a clip, which may be missing for some.

    A new kind of condition needs a new name in ``Prompts`` and, if no class here fits its values, a new subclass.
    """

    is_guided_by: ClassVar[bool] = True
    """Whether classifier-free guidance is a guidance towards this condition: whether the prediction that it guides away
    from is made without it. Otherwise the condition is in both predictions, and in training only its own share of
    condition dropout drops it."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of clips."""

    @abstractmethod
    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Return the condition without the values of the clips where ``where`` is True."""

    def rows(self, rows: slice) -> Self:
        """Return the condition of the clips of a slice."""
        return self.map(lambda tensor: tensor[rows])


@dataclass(frozen=True)
class TextCondition(Condition):
    """Captions, optionally with stored embeddings."""

    captions: tuple[str, ...]
    """An empty caption means no condition."""
    embeddings: TextEmbeddings | None = None
    """One entry a caption."""
    empty: TextEmbeddings | None = None
    """Embeddings of the empty caption, one entry; present if ``embeddings`` is."""

    def __len__(self) -> int:
        return len(self.captions)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Replace captions where ``where`` is True by the empty caption."""
        captions = tuple("" if dropped else text for text, dropped in zip(self.captions, where, strict=True))
        embeddings = self.embeddings
        if embeddings is not None and self.empty is not None:
            embeddings = embeddings.replaced(where, self.empty)
        return dataclasses.replace(self, captions=captions, embeddings=embeddings)

    def rows(self, rows: slice) -> Self:
        """Return the condition of the clips of a slice."""
        embeddings = None if self.embeddings is None else self.embeddings.map(lambda tensor: tensor[rows])
        return dataclasses.replace(self, captions=self.captions[rows], embeddings=embeddings)


@dataclass(frozen=True)
class LabelCondition(Condition):
    """Class labels."""

    labels: Int[Tensor, " b"]
    """Class index; -1 for none."""

    def __len__(self) -> int:
        return len(self.labels)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Replace labels where ``where`` is True by -1."""
        return dataclasses.replace(self, labels=self.labels.masked_fill(where.to(self.labels.device), -1))


@dataclass(frozen=True)
class TensorCondition(Condition):
    """A tensor with a row for each clip: latents, an embedding, numbers."""

    values: Shaped[Tensor, "b *shape"]
    present: Bool[Tensor, " b"] | None = None
    """Whether the value of each clip is present. None if all are, and none can be dropped; Stable Video Diffusion's
    numbers are such a condition."""

    @classmethod
    def given(cls, values: Shaped[Tensor, "b *shape"]) -> Self:
        """Return a condition whose values are all present and can be dropped."""
        return cls(values, torch.ones(len(values), dtype=torch.bool, device=values.device))

    def __len__(self) -> int:
        return len(self.values)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Mark values where ``where`` is True as not present, if values can be dropped; ``values`` is unchanged."""
        if self.present is None:
            return self
        return dataclasses.replace(self, present=self.present & ~where.to(self.present.device))

    @property
    def masked(self) -> Shaped[Tensor, "b *shape"]:
        """The values, with zeros for those that are not present."""
        if self.present is None:
            return self.values
        # torch.where instead of a product: a value that is not present may be NaN, and 0 times NaN is NaN.
        present = self.present.view(-1, *[1] * (self.values.ndim - 1))
        return torch.where(present, self.values, self.values.new_zeros(()))


AnyCondition = TypeVar("AnyCondition", bound=Condition)


@dataclass(frozen=True)
class Prompts(TensorRecord):
    """Conditions of clips by name, each with one entry a clip.

    For the model, a missing condition is the same as one that is dropped for all clips.

    Raises:
        ValueError: If there are no conditions, or they are of different numbers of clips.
    """

    conditions: Mapping[str, Condition]

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ValueError(
                "prompts need at least one condition, such as empty captions, which gives the number of clips"
            )
        lengths = {name: len(condition) for name, condition in self.conditions.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} of {length}" for name, length in lengths.items())
            raise ValueError(f"conditions must be of the same number of clips, but there are {shown}")

    @staticmethod
    def of(captions: Sequence[str], labels: Int[Tensor, " b"] | None = None) -> Prompts:
        """Return prompts with the conditions ``text`` and ``label``; ``with_conditions`` adds further ones.

        Args:
            captions: One a clip; an empty caption means no condition.
            labels: Class index of each clip, -1 for none. By default no clip has one.
        """
        classes = torch.full((len(captions),), -1) if labels is None else labels
        return Prompts({"text": TextCondition(tuple(captions)), "label": LabelCondition(classes)})

    @staticmethod
    def of_clips(batch: ClipBatch, x0: Float[Tensor, "b c t h w"]) -> Prompts:
        """Return the prompts that describe the clips of a batch.

        They are ``text``, ``label``, ``image`` (latents of the first frame) and, if the batch has them, ``crops``,
        which are never dropped.

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
        """The caption of each clip; empty if it has none."""
        text = self.find("text", TextCondition)
        return ("",) * len(self) if text is None else text.captions

    @property
    def device(self) -> torch.device | None:
        """Device of the conditions, which share one; None if none of them holds a tensor."""
        devices: list[torch.device] = []

        def note(tensor: Tensor) -> Tensor:
            devices.append(tensor.device)
            return tensor

        self.map(note)
        return devices[0] if devices else None

    def find(self, name: str, kind: type[AnyCondition]) -> AnyCondition | None:
        """Return the condition of a name, or None if there is none.

        Raises:
            ValueError: If it is not an instance of ``kind``.
        """
        found = self.conditions.get(name)
        if found is not None and not isinstance(found, kind):
            raise ValueError(f"the condition {name!r} must be a {kind.__name__}, but is a {type(found).__name__}")
        return found

    def with_conditions(self, **conditions: Condition) -> Prompts:
        """Return the prompts with further conditions; they replace conditions of the same names.

        Raises:
            ValueError: If they are of another number of clips.
        """
        return Prompts({**self.conditions, **conditions})

    def asking(self, caption: str) -> Prompts:
        """Return the prompts with the same caption for all clips."""
        return self.with_conditions(text=TextCondition((caption,) * len(self)))

    def rows(self, rows: slice) -> Prompts:
        """Return the prompts of the clips of a slice."""
        return Prompts({name: condition.rows(rows) for name, condition in self.conditions.items()})

    def drop(self, where: Mapping[str, Bool[Tensor, " b"]]) -> Prompts:
        """Return the prompts with conditions dropped, for classifier-free guidance (Ho & Salimans 2022).

        Args:
            where: By the name of a condition, which must be there, True for the clips that lose it. Other conditions
                are unchanged.
        """
        dropped = {name: self.conditions[name].drop(marked) for name, marked in where.items()}
        return Prompts({**self.conditions, **dropped})

    def without_conditions(self) -> Prompts:
        """Return the prompts of the prediction that guidance guides away from: all conditions dropped that can be."""
        guiding = [name for name, condition in self.conditions.items() if condition.is_guided_by]
        return self.drop(dict.fromkeys(guiding, torch.ones(len(self), dtype=torch.bool)))
