"""TensorBoard."""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vdm.outside import dump_yaml
from vdm.ranges import Folder
from vdm.training.loggers.base import LoggedVideo, RunLogger


class TensorBoardLogger(RunLogger):
    """Logs for ``tensorboard --logdir RUN``; videos play in its tab of images.

    Args:
        run: Folder of the run.
    """

    def __init__(self, run: Folder) -> None:
        super().__init__()
        self.folder = Path(run) / "tensorboard"
        self._writer: Any = None
        self._purge_step: int | None = None

    @property
    def name(self) -> str:
        """Name of the program."""
        return "TensorBoard"

    @property
    def version(self) -> str:
        """Nothing: a run has one folder of events."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder.parent)

    @property
    def experiment(self) -> Any:
        """The ``SummaryWriter``, opened on first use."""
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge_step)
        return self._writer

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Have TensorBoard hide what an earlier start logged after the step at which training begins."""
        self._purge_step = step + 1 if step > 0 else None
        self.log_hyperparams(config)

    def go_back(self, step: int) -> None:
        """Have TensorBoard hide later steps."""
        self.close()
        self._purge_step = step + 1

    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Show settings as a text."""
        self.experiment.add_text("config", _preformatted(dump_yaml(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures."""
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)

    def log_videos(self, name: str, videos: Sequence[LoggedVideo], step: int) -> None:
        """Log each video as a moving picture, and the prompts as a table."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        for number, video in enumerate(videos):
            picture = Summary.Image(encoded_image_string=_gif(video.file), colorspace=3)
            tag = f"{name}/{number:04d}"
            self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)
        rows = [[f"{number:04d}", video.caption] for number, video in enumerate(videos)]
        self.log_table(f"{name}_table", ["video", "prompt"], rows, step)

    def log_picture(self, name: str, file: Path, caption: str, step: int) -> None:
        """Log a png file."""
        with Image.open(file) as picture:
            self.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table as Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        self.experiment.add_text(name, "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines), step)

    def log_histogram(self, name: str, edges: Sequence[float], heights: Sequence[float], step: int) -> None:
        """Log bars, which TensorBoard shows over time."""
        centers = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        total = sum(heights)
        self.experiment.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=total,
            sum=sum(center * height for center, height in zip(centers, heights, strict=True)),
            sum_squares=sum(center**2 * height for center, height in zip(centers, heights, strict=True)),
            bucket_limits=list(edges[1:]),
            bucket_counts=list(heights),
            global_step=step,
        )

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _gif(file: Path) -> bytes:
    """Return a video as a gif, which TensorBoard's page can play."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        milliseconds = 1000 / float(stream.average_rate or 8)
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _preformatted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
