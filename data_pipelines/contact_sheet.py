"""The page of ``vdm-data show``: a self-contained HTML file with statistics and playing clips."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from statistics import median
from string import Template
from typing import Any

from vdm.data.index import ShardIndex
from vdm.data.shards import Kind, Shape
from vdm.html_pages import security_policy
from vdm.text import html_text

_OF_SHAPE = ("num_frames", "height", "width", "fps", "source_height", "source_width", "label", "shot")
"""Entries of the metadata without a histogram."""
_NUM_BINS = 24
_MAX_HISTOGRAMS = 100


@dataclass(frozen=True)
class ShownClip:
    """A clip on the page."""

    metadata: Mapping[str, Any]
    """Its ``KEY.json``, with ``key``, ``split`` and ``shape``."""
    kind: str
    """Extension of ``data``: ``mp4`` or that of a picture."""
    data: bytes
    """Content of the video or picture; empty if the clip is in the statistics only."""


def contact_sheet(
    name: str, index: ShardIndex, metadata: Sequence[Mapping[str, Any]], clips: Sequence[ShownClip]
) -> str:
    """Return the page.

    Args:
        name: Name of the set.
        index: Index of the set.
        metadata: Metadata of the clips in the statistics.
        clips: Clips that are shown.
    """
    page = files("data_pipelines").joinpath("contact_sheet.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        policy=_policy(page),
        name=html_text(name),
        tiles="".join(_tile(label, value) for label, value in _facts(index, metadata)),
        histograms="".join(_histograms(metadata)),
        words=_words(metadata),
        labels=_labels(index, metadata),
        num_shown=len(clips),
        cards="".join(_card(clip, index.labels) for clip in clips),
    )


def _policy(page: str) -> str:
    """Return the content security policy of the page, whose template has one script and one style."""
    script, style = (re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL) for name in ("script", "style"))
    return security_policy(script, style)


def _facts(index: ShardIndex, metadata: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    for split in index.splits:
        yield f"{split} clips", f"{index.num_samples(split):,}"
    yield "shards", f"{len(index.shards()):,}"
    yield "size", _bytes(sum(shard.num_bytes for shard in index.shards()))
    kinds: Counter[Kind] = Counter()
    for shards in index.splits.values():
        kinds.update(shards.kinds)
    shapes: Counter[Shape] = Counter()
    for kind, count in kinds.items():
        shapes[kind.shape] += count
    yield "frames x height x width", ", ".join(f"{t}x{h}x{w}" for (t, h, w), _ in shapes.most_common(3))
    if index.fps:
        seconds = sum(t * count for (t, _, _), count in shapes.items()) / index.fps
        yield "frames per second", f"{index.fps:g}"
        yield "in all", f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds:.0f} s"
    if metadata:
        captioned = [str(m["caption"]) for m in metadata if m.get("caption")]
        yield "with a caption", f"{len(captioned) / len(metadata):.0%}"
        if captioned:
            yield "words in a caption, median", f"{median(len(text.split()) for text in captioned):g}"
        yield "files of origin", f"{len({m.get('source') for m in metadata}):,}"
    for what, stored in (("latents by", index.latents), ("text embeddings by", index.text)):
        if stored is not None:
            yield what, str(stored.encoder.get("name") or stored.encoder.get("class"))
    if damaged := sum("damage" in m for m in metadata):
        yield "damaged clips", f"{damaged:,}"


def _tile(label: str, value: str) -> str:
    return f'<div class="tile"><b>{html_text(value)}</b><span>{html_text(label)}</span></div>'


def _histograms(metadata: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    numbers: dict[str, list[float]] = {}
    for one in metadata:
        for name, value in one.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name not in _OF_SHAPE:
                numbers.setdefault(name, []).append(float(value))
    for name, values in islice(numbers.items(), _MAX_HISTOGRAMS):
        if len(set(values)) > 1:
            yield _histogram(name, values)


def _histogram(name: str, values: Sequence[float]) -> str:
    """Return an SVG of the distribution of values; the largest 1% of a long tail share the last bin.

    Not by matplotlib: the policy of the page forbids the inline styles of its SVGs.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[int(0.99 * (len(ordered) - 1))]
    if high <= low:
        high = ordered[-1]
    counts = [0] * _NUM_BINS
    for value in ordered:
        counts[min(_NUM_BINS - 1, int((value - low) / (high - low) * _NUM_BINS))] += 1
    bars = "".join(
        f'<rect x="{10 * place + 1}" y="{60 - 58 * count / max(counts):.1f}" width="8" '
        f'height="{58 * count / max(counts):.1f}"><title>{count}</title></rect>'
        for place, count in enumerate(counts)
    )
    return (
        f"<figure><figcaption>{html_text(name)}<small>median {median(ordered):.3g}</small></figcaption>"
        f'<svg viewBox="0 0 {10 * _NUM_BINS} 62" preserveAspectRatio="none">{bars}</svg>'
        f'<div class="ends"><span>{low:.3g}</span><span>{high:.3g}</span></div></figure>'
    )


def _words(metadata: Sequence[Mapping[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    for one in metadata:
        counts.update({word.strip(".,;:!?\"'()") for word in str(one.get("caption") or "").lower().split()} - {""})
    return _counted("words, in captions", counts)


def _labels(index: ShardIndex, metadata: Sequence[Mapping[str, Any]]) -> str:
    named = (name for m in metadata if (name := _class_name(m, index.labels)) is not None)
    return _counted("classes", Counter(named))


def _class_name(metadata: Mapping[str, Any], labels: Sequence[str]) -> str | None:
    label = metadata.get("label")
    return labels[label] if isinstance(label, int) and 0 <= label < len(labels) else None


def _counted(title: str, counts: Counter[str]) -> str:
    if not counts:
        return ""
    items = "".join(f"<li>{html_text(word, 80)}<i>{count}</i></li>" for word, count in counts.most_common(24))
    return f"<section><h2>{html_text(title)}</h2><ul class=words>{items}</ul></section>"


def _card(clip: ShownClip, labels: Sequence[str]) -> str:
    m = clip.metadata
    t, height, width = m["shape"]
    data = base64.b64encode(clip.data).decode()
    if clip.kind == "mp4":
        media = f'<video loop muted playsinline preload="auto" src="data:video/mp4;base64,{data}"></video>'
    else:
        media = f'<img alt="" src="data:image/{clip.kind.replace("jpg", "jpeg")};base64,{data}">'
    facts = [str(m["split"]), f"{t}x{height}x{width}"]
    facts += filter(None, [_class_name(m, labels)])
    motion = m.get("motion_pixels_per_frame")
    facts += [f"motion {float(motion):.2f}"] if isinstance(motion, int | float) else []
    origin = str(m.get("source") or m["key"])
    if isinstance(m.get("source_start_seconds"), int | float):
        origin += f", from {float(m['source_start_seconds']):.2f} s"
    chips = "".join(f"<span>{html_text(fact)}</span>" for fact in facts)
    caption = html_text(m.get("caption") or "") or "<em>no caption</em>"
    return (
        f'<article title="{html_text(m["key"])}">{media}<p>{caption}</p>'
        f'<div class="chips">{chips}</div><small>{html_text(origin)}</small></article>'
    )


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
