"""Pipeline folders of diffusers: one subfolder a component, with ``config.json`` and weights, sharded or not."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.found_instead import found_instead
from vdm.models.pretrained.inside import check_inside, copy_inside
from vdm.models.pretrained.stored import StoredTensors, save_tensors
from vdm.outside import MAX_BYTES, read_json, read_text

STEM = "diffusion_pytorch_model"
"""Stem of the names of files with weights, for all models of diffusers."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAX_VOCABULARY_BYTES = 64 << 20
"""Limit for files of settings and vocabulary; the largest multilingual tokenizers have a third of it."""


@dataclass(frozen=True)
class PipelineFolder:
    """A class of pipelines, and the contents of its folders.

    Args:
        pipeline: Class of the pipeline in diffusers.
        components: Library and class of each component, by the name of its subfolder. ``scheduler`` is the sampler.
        stems: Stem of the names of files with weights, for each other component that has weights.
        network: Subfolder of the network.
    """

    pipeline: str
    components: Mapping[str, tuple[str, str]]
    stems: Mapping[str, str]
    network: str = "unet"

    @property
    def network_class(self) -> str:
        """The network's class in diffusers."""
        return self.components[self.network][1]

    def check(self, folder: Path, variant: str | None) -> str | None:
        """Check a folder, and return the variant of the weights to read.

        Args:
            folder: The folder.
            variant: Variant in the file names, e.g. ``fp16``. None for files without one, or else the only variant.

        Raises:
            ValueError: If the folder holds another pipeline, a component is missing, or its weights are incomplete.
        """
        self._check_present(folder, {"scheduler"})
        return self._check_weights(folder, choose_variant(folder / self.network, variant))

    def check_around(self, folder: Path) -> str | None:
        """Check a folder from which all but the network is read; return the variant of the weights to read.

        Raises:
            ValueError: If the folder holds another pipeline, a component is missing, or its weights are incomplete.
        """
        self._check_present(folder, {"scheduler", self.network})
        component, stem = next(iter(self.stems.items()))
        return self._check_weights(folder, choose_variant(folder / component, None, stem))

    def _check_present(self, folder: Path, may_be_missing: Collection[str]) -> None:
        found = pipeline_of(folder)
        if found != self.pipeline:
            raise ValueError(f"{folder}: holds a {found}, not a {self.pipeline}")
        for component in self.components:
            if component not in may_be_missing and not (folder / component).is_dir():
                raise ValueError(f"{folder}: the component {component} is missing")

    def _check_weights(self, folder: Path, variant: str | None) -> str | None:
        for component, stem in self.stems.items():
            StoredTensors.open(weight_files(folder / component, variant, stem))
        return variant

    def check_network(self, config: Mapping[str, Any], source: object) -> None:
        """Refuse the ``config.json`` of another network.

        Raises:
            ValueError: If it describes a network of another class, which the message names.
        """
        if config.get("_class_name") != self.network_class:
            found = config.get("_class_name", "model of unknown kind")
            raise ValueError(f"{source}: holds a {found}, not a {self.network_class}")

    def write(
        self,
        folder: Path,
        network: Mapping[str, Any],
        weights: Mapping[str, Mapping[str, Tensor]],
        scheduler: Mapping[str, Any],
        components: Path,
        variant: str | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a folder that the pipeline's ``from_pretrained`` opens.

        Args:
            folder: An empty folder.
            network: The network's ``config.json``.
            weights: Weights by their names in diffusers, of the network or of several of its kind, by subfolder.
            scheduler: The scheduler's configuration.
            components: Folder of a pipeline from which the other components are copied.
            variant: Variant of the files to copy; the copies get names without a variant.
            settings: Settings of the pipeline itself.

        Raises:
            ValueError: If a component is missing in ``components``.
        """
        for name in self.components:
            if name in (self.network, "scheduler"):
                continue
            if not (components / name).is_dir():
                raise ValueError(f"{components}: the component {name} is missing")
            _copy_component(components, name, folder / name, self.stems.get(name), variant)
        _write_json(folder / "scheduler" / SCHEDULER_CONFIG, scheduler)
        published = components / self.network / "config.json"
        size = read_json(published).get("sample_size") if published.is_file() else None
        config = network if size is None else {**network, "sample_size": size}
        index = {name: list(place) for name, place in self.components.items()}
        for subfolder, of_network in weights.items():
            _write_json(folder / subfolder / "config.json", config)
            tensors = {name: tensor.contiguous() for name, tensor in of_network.items()}
            save_tensors(tensors, folder / subfolder / f"{STEM}.safetensors", {"format": "pt"})
            index[subfolder] = list(self.components[self.network])
        index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        _write_json(folder / "model_index.json", {"_class_name": self.pipeline, **(settings or {}), **index})
        for path in sorted(components.iterdir()):
            if path.name.upper().startswith(("LICENSE", "LICENCE")) and not path.is_dir():
                copy_inside(path, folder / path.name, components, MAX_BYTES)


SCHEDULER_CONFIG = "scheduler_config.json"


def pipeline_of(folder: Path) -> str:
    """Return the class in diffusers of the pipeline in a folder, or of what its authors' folder would be there.

    Raises:
        ValueError: If the folder holds no pipeline.
    """
    if is_of_authors(folder):
        return "WanPipeline"
    if not (folder / "model_index.json").exists():
        raise ValueError(f"{folder}: not a pipeline of diffusers: there is no model_index.json{found_instead(folder)}")
    return str(read_json(folder / "model_index.json").get("_class_name", "pipeline of unknown kind"))


AUTHORS_TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"
"""File of the text encoder in the folders of Wan's authors."""


def is_of_authors(folder: Path) -> bool:
    """Tell whether a folder is as Wan's authors publish it, not a pipeline of diffusers."""
    return (folder / AUTHORS_TEXT_ENCODER).exists() and not (folder / "model_index.json").exists()


def weight_files(folder: Path, variant: str | None = None, stem: str = STEM) -> list[Path]:
    """Return the safetensors files of one component.

    Args:
        folder: The component's folder.
        variant: Variant in the file names, e.g. ``fp16``. None for files without one, or else the only variant.
        stem: Stem of the file names.

    Raises:
        ValueError: If there are no such files, if they are pickles, or if one of several variants must be chosen.
    """
    file = _variants(folder, stem)[choose_variant(folder, variant, stem)]
    return [file] if file.suffix == ".safetensors" else _shards(file)


def choose_variant(folder: Path, variant: str | None = None, stem: str = STEM) -> str | None:
    """Return the variant that ``weight_files`` reads; arguments and errors are the same."""
    found = _variants(folder, stem)
    if not found:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise ValueError(
                f"{folder / pickles[0]}: a pickle can run code when it is read, so only safetensors are; convert it"
                " with diffusers (save_pretrained writes safetensors)"
            )
        raise ValueError(f"{folder}: there is no {stem}.safetensors")
    if variant is None and None not in found and len(found) > 1:
        raise ValueError(f"{folder}: choose variant={' or variant='.join(map(str, found))}")
    chosen = next(iter(found)) if variant is None and None not in found else variant
    if chosen not in found:
        raise ValueError(f"variant={variant}: {folder} holds {', '.join(str(name or 'null') for name in found)}")
    return chosen


def _variants(folder: Path, stem: str) -> dict[str | None, Path]:
    """Return the file of each variant: the weights, or the index of their shards."""
    patterns = (
        rf"{re.escape(stem)}(?:\.(?P<variant>[^.-]+))?\.safetensors",
        rf"{re.escape(stem)}\.safetensors\.index(?:\.(?P<variant>[^.]+))?\.json",
    )
    found: dict[str | None, Path] = {}
    for pattern in patterns:
        for path in sorted(folder.glob(f"{stem}*")):
            match = re.fullmatch(pattern, path.name)
            if match:
                found.setdefault(match.group("variant"), path)
    return found


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: there is no weight_map in it")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: {name} is not the name of a safetensors file beside it")
    return [index.parent / name for name in names]


def same_at_every_level(value: int | Sequence[int], name: str, source: object) -> int:
    """Return a number that is given once, or once for each level.

    Raises:
        ValueError: If it differs between levels.
    """
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f"{source}: {name}={list(values)}: must be the same at every level")
    return values.pop()


def local_folder(name_or_path: str, variant: str | None = None) -> Path:
    """Return the folder of this path, or download the repository of this name from the hub and return its folder.

    Raises:
        ValueError: If there is no such folder, and the download fails.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    hub = _hub(name_or_path)
    weights = [f"*.{variant}.safetensors", f"*.{variant}-*.safetensors"] if variant else ["*.safetensors"]
    patterns = [f"*/{pattern}" for pattern in weights]  # those at the top are Stability's single files
    try:
        return Path(hub.snapshot_download(name_or_path, allow_patterns=["*.json", "LICENSE*", "README.md", *patterns]))
    except Exception as error:  # many classes: no connection, no such name, no access
        raise ValueError(
            f"{name_or_path}: can't be downloaded from the hub: {' '.join(str(error).split())[:300]}"
        ) from None


def cached_folder(name_or_path: str) -> Path:
    """Return the folder of this path, or of the hub's local cache; nothing is downloaded.

    Raises:
        ValueError: If it is not on this machine.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    hub = _hub(name_or_path)
    try:
        return Path(hub.snapshot_download(name_or_path, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError:
        raise ValueError(
            f"{name_or_path}: not on this machine, and nothing is downloaded because a run's configuration names it;"
            f" download it by: hf download {name_or_path}"
        ) from None


def _hub(name: str) -> Any:
    """Return the module of the hub's client, after checking that ``name`` can be a name on the hub.

    Raises:
        ValueError: If it can't be one, or the client is not installed.
    """
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"{name}: no such folder or file, nor a name on the hub, which is OWNER/MODEL")
    try:
        import huggingface_hub.errors
    except ImportError:
        raise ValueError(f"{name}: needs huggingface_hub; install the extra 'pretrained'") from None
    return huggingface_hub


def readme_of(folder: Path) -> str:
    """Return the text of a downloaded folder's model card; empty if there is none.

    Raises:
        ValueError: One line, if the file is outside of the folder or not a text.
    """
    path = folder / "README.md"
    return read_text(check_inside(path, folder)) if path.exists() else ""


def _copy_component(folder: Path, component: str, target: Path, stem: str | None, variant: str | None) -> None:
    """Copy a component: its settings and vocabulary, and its weights under their names without a variant.

    Raises:
        ValueError: If a file is outside of the pipeline's folder, not a regular file, or too large.
    """
    source = folder / component
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and ".index." not in path.name and not path.is_dir():
            copy_inside(path, target / path.name, folder, MAX_VOCABULARY_BYTES)
    if stem is None:
        return
    files = weight_files(source, variant, stem)
    if len(files) == 1:
        copy_inside(files[0], target / f"{stem}.safetensors", folder)
        return
    for path in files:
        copy_inside(path, target / path.name, folder)
    tensors = StoredTensors.open(files)
    weight_map = {name: tensors.file(name).name for name in tensors}
    _write_json(target / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
