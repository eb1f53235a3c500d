"""Prompts of a model, and the options of its conditioner, made from the arguments of a call."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.generation.known_frames import takes_pictures
from vdm.generation.requests import resolve_labels
from vdm.prompts import Prompts

_WITHOUT = {"text": "text (text_encoder=none)", "image": "first frames (image=false)"}


def conditions(
    model: VideoDiffusionModel,
    captions: Sequence[str] | None,
    labels: int | str | Sequence[int | str] | None,
    image: UInt8[Tensor, "n c h w"] | None,
    label_names: Sequence[str] = (),
    num_videos: int = 1,
    seed: int = 0,
) -> Prompts:
    """Return the prompts of ``num_videos`` videos for each caption.

    Args:
        model: The model that samples.
        captions: One caption a prompt; None if there are only labels, or no conditions at all.
        labels: Classes by index or name, one for each caption or one for all.
        image: RGB first frames, one for each caption or one for all.
        label_names: Names of the classes.
        num_videos: Videos for each caption.
        seed: Seed of random parts of conditions, such as noise on a first frame.

    Raises:
        ValueError: If their numbers differ, or the model lacks such a condition.
    """
    indices = resolve_labels(labels, label_names, model.conditioner.num_classes)
    if captions is None:
        captions = [""] * (len(indices) if indices else 1)
    if indices is not None and len(indices) == 1:
        indices = indices * len(captions)
    if indices is not None and len(indices) != len(captions):
        raise ValueError(f"labels={labels}: {len(indices)} labels for {len(captions)} prompts")
    if any(captions):
        refuse_unless_taken(model, "text", "prompts")
    if image is not None:
        refuse_unless_taken(model, "image", "image")
        image = per_video(image, "image", "first frames", len(captions), num_videos)
        image = image.expand(len(captions) * num_videos, -1, -1, -1)
    captions = [caption for caption in captions for _ in range(num_videos)]
    indices = None if indices is None else [index for index in indices for _ in range(num_videos)]
    return model.prompts(captions, indices, image, seed)


def per_video(
    pictures: UInt8[Tensor, "n c h w"], name: str, kind: str, num_prompts: int, num_videos: int
) -> UInt8[Tensor, "v c h w"]:
    """Return one picture for each video, or one for all; messages have the argument's ``name``, and say what they are.

    Raises:
        ValueError: If there is neither one for each prompt nor one for all.
    """
    if len(pictures) not in (1, num_prompts):
        raise ValueError(f"{name}: {len(pictures)} {kind} for {num_prompts} prompts")
    return pictures if len(pictures) == 1 else pictures.repeat_interleave(num_videos, dim=0)


def refuse_unless_first_frame(model: VideoDiffusionModel, asked: str) -> None:
    """Refuse a first frame if the model takes none, be it as a condition or as a known frame.

    Raises:
        ValueError: In one line that begins with ``asked``.
    """
    if not takes_pictures(model):
        refuse_unless_taken(model, "image", asked)


def refuse_unless_taken(model: VideoDiffusionModel, condition: str, asked: str) -> None:
    """Refuse the condition ``text`` or ``image`` if the model lacks it; the message begins with ``asked``.

    Raises:
        ValueError: In one line.
    """
    if condition not in model.conditioner.takes:
        raise ValueError(f"{asked}: the model was trained without {_WITHOUT[condition]}")


def model_options(present: Any, told: Mapping[str, Any], clip_fps: float) -> Any:
    """Return the options of a conditioner with the user's choices.

    Args:
        present: Options of the run: a frozen dataclass.
        told: Choices by name; ``None`` keeps the run's value.
        clip_fps: Frames per second of the run's clips, the default for the videos.
    """
    given = {name: value for name, value in told.items() if value is not None}
    if any(field.name == "fps" for field in fields(present)):
        given.setdefault("fps", clip_fps)
    return replace(present, **given)
