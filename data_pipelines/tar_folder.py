"""The tars of a folder that are to be indexed, and where their index is written."""

import os
from dataclasses import dataclass
from pathlib import Path

from vdm.data.index import INDEX_NAME
from vdm.data.shard_lists import expand

_COMPRESSED = (".tgz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tar.Z")
_NAMED = 3


@dataclass(frozen=True)
class ListedTars:
    """What is to be indexed."""

    tars: tuple[Path, ...]
    """Where the sidecars are written too."""
    faults: tuple[str, ...] = ()
    """What is left out and why, in one line each."""
    are_links: bool = False
    """Whether the tars are links to those of another folder."""

    @property
    def folder(self) -> Path:
        """The folder of the tars, and of their index."""
        return self.tars[0].parent

    def unlink(self) -> None:
        """Remove the links again, if they are links."""
        for tar in self.tars if self.are_links else ():
            tar.unlink()


def list_tars(location: Path, output: Path | None) -> ListedTars:
    """Find the tars of a folder, or of a list of folders and tars.

    Args:
        location: Where they lie; a list is in the syntax of ``vdm.data.shard_lists``.
        output: A new folder for the index, in which a link is made for each tar, of sub-folders too; None writes the
            index beside the tars, for which sub-folders are left out.

    Raises:
        ValueError: In one line, if there are none, or an index already.
    """
    if not location.is_dir():
        return _list_named(location, output)
    folder = location
    tars, deeper, compressed = _search(folder, output)
    faults = [_compressed_fault(folder, compressed)] if compressed else []
    if output is not None:
        found, more = _linked(folder, [*tars, *deeper], output)
        return ListedTars(found, (*faults, *more), are_links=True)
    if (folder / INDEX_NAME).exists():
        raise ValueError(f"input={folder}: has an {INDEX_NAME} already; delete it to index the tars anew")
    if deeper:
        faults.append(f"{_some(folder, deeper)}: tars in sub-folders are indexed together with output=FOLDER")
    if not tars:
        raise ValueError("; ".join([f"input={folder}: has no file *.tar", *faults]))
    return ListedTars(tuple(tars), tuple(faults))


def _list_named(location: Path, output: Path | None) -> ListedTars:
    """Find the tars of a list."""
    tars: list[Path] = []
    compressed: list[Path] = []
    for one in map(Path, expand(str(location))):
        if one.is_dir() and output is not None:
            beside, deeper, unread = _search(one, output)
            tars += [*beside, *deeper]
            compressed += unread
        elif one.is_dir():
            raise ValueError(f"input={location}: output=NEW_FOLDER is needed for the index of several folders")
        elif not one.exists():
            raise ValueError(f"input={one}: no such folder; give a folder of tars, or a list of tars")
        elif not one.name.endswith(".tar"):
            raise ValueError(f"input={one}: is a file, not a folder of tars or a .tar")
        else:
            tars.append(one)
    if len({tar.absolute() for tar in tars}) < len(tars):
        raise ValueError(f"input={location}: lists a tar twice")
    common = Path(os.path.commonpath([tar.parent.absolute() for tar in tars])) if tars else location
    absolute = [tar.absolute() for tar in tars]
    faults = [_compressed_fault(common, [tar.absolute() for tar in compressed])] if compressed else []
    if output is not None:
        links, more = _linked(common, absolute, output)
        return ListedTars(links, (*faults, *more), are_links=True)
    if len({tar.parent for tar in absolute}) > 1:
        raise ValueError(f"input={location}: output=NEW_FOLDER is needed for the index of tars of several folders")
    if (common / INDEX_NAME).exists():
        raise ValueError(f"input={location}: {common} has an {INDEX_NAME} already; delete it to index the tars anew")
    return ListedTars(tuple(tars), tuple(faults))


def _search(folder: Path, output: Path | None) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the tars in a folder, those in its sub-folders, and compressed ones in either; hidden ones apart."""
    excluded = None if output is None else output.resolve()
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(root).resolve() == excluded:
            folders.clear()
            continue
        found += [Path(root) / name for name in sorted(files) if not name.startswith(".")]
        found += [Path(root) / name for name in folders if name.endswith(".tar")]  # named as no file
    tars = [path for path in found if path.name.endswith(".tar")]
    return (
        sorted(path for path in tars if path.parent == folder),
        sorted(path for path in tars if path.parent != folder),
        [path for path in found if path.name.endswith(_COMPRESSED)],
    )


def _compressed_fault(folder: Path, tars: list[Path]) -> str:
    return f"{_some(folder, tars)}: compressed tars can't be read in parts; unpack them first, such as with gunzip"


def _some(folder: Path, tars: list[Path]) -> str:
    names = [path.relative_to(folder).as_posix() for path in tars]
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _linked(folder: Path, tars: list[Path], output: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Make a link for each tar in a new folder, named by its path; return the links, and what could not be linked."""
    if not tars:
        raise ValueError(f"input={folder}: has no file *.tar, nor have its sub-folders")
    links: list[Path] = []
    faults: list[str] = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise ValueError(f"output={output}: is not empty; give a new folder, or delete this one to index anew")
        for tar in tars:
            link = output / "-".join(tar.relative_to(folder).parts)
            if os.path.lexists(link):
                faults.append(f"{tar.relative_to(folder)}: another tar would have the name {link.name}; rename it")
                continue
            link.symlink_to(tar.resolve())
            links.append(link)
    except OSError as error:
        raise ValueError(f"output={output}: links to the tars can't be made in it: {error.strerror}") from None
    return tuple(links), tuple(faults)
