"""Settings of ``vdm-data index``, ``show`` and ``verify``, which read an existing set."""

from dataclasses import dataclass
from pathlib import Path

from data_pipelines.settings import HDR, LocalPath
from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_file, check_folder, check_shards, check_writable
from vdm.config import ConfigError
from vdm.config.options import Name
from vdm.data.shard_lists import expand
from vdm.ranges import Count, CountOrZero, NumProcesses, Seed, ShareBelowOne


@dataclass(frozen=True)
class IndexSettings(CommandOptions):
    """Everything that ``conf/index.yaml`` sets."""

    input: LocalPath
    """Folder of tars, or a list of tars and folders; see ``vdm.data.shard_lists``."""
    output: LocalPath | None = None
    """New folder for the index, with links to the tars; None writes it beside them."""
    hdr: HDR = "map"
    validation_fraction: ShareBelowOne = 0.02
    """Share of the tars that are held out; at least one if there are two or more."""
    seed: Seed = 0
    """Seed of the choice of the held-out tars."""
    num_workers: NumProcesses | None = None
    """Number of processes; None is one per core, 0 works in this process."""

    def check_paths(self) -> None:
        """Refuse a missing folder or tar, and a folder that the index can't be written to.

        Raises:
            ConfigError: In one line that names the key.
        """
        try:
            locations = [Path(one) for one in expand(str(self.input))]
        except ValueError as error:
            raise ConfigError(f"input={error}") from None
        for location in locations:
            if location.suffix != ".tar" or location.is_dir():
                check_folder(location, "input", "of tars")
            else:
                check_file(location, "input")
        if self.output is not None:
            check_writable(self.output, "output")
            return
        try:
            for folder in {one if one.is_dir() else one.parent for one in locations}:
                check_writable(folder, "input")
        except ConfigError as error:
            raise ConfigError(f"{error}; output=FOLDER writes the index there, with links to the tars") from None


@dataclass(frozen=True)
class ShowSettings(CommandOptions):
    """Everything that ``conf/show.yaml`` sets."""

    input: LocalPath
    """Folder of shards."""
    output: LocalPath | None = None
    """The page; None puts it into the folder of shards."""
    split: Name | None = None
    """None shows all."""
    max_clips: CountOrZero = 60
    max_read: Count = 5000
    """Number of clips whose metadata enter the statistics."""
    seed: Seed = 0

    def check_paths(self) -> None:
        """Refuse a missing set, and a page that is a folder.

        Raises:
            ConfigError: In one line that names the key.
        """
        check_shards(self.input)
        if self.output is not None and self.output.is_dir():
            raise ConfigError(f"output={self.output}: is a folder; give a file")


@dataclass(frozen=True)
class VerifySettings(CommandOptions):
    """Everything that ``conf/verify.yaml`` sets."""

    input: LocalPath
    """Folder of shards."""
    decode: bool = True
    """Whether to decode every clip too."""
    num_workers: NumProcesses | None = None
    """Number of processes; None is one per core, 0 works in this process."""

    def check_paths(self) -> None:
        """Refuse a missing set."""
        check_shards(self.input)
