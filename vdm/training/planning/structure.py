"""Models of full size without their memory: built, but with no weights allocated, loaded or downloaded."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from vdm.training.planning.published_sizes import PUBLISHED_SIZES


@contextmanager
def no_memory(mode: FakeTensorMode) -> Iterator[None]:
    """Give the tensors made in this context a shape, a type and a device, but no data.

    They are PyTorch's meta tensors that pretend to be on the CPU. So each operation chooses the kernel that it would
    choose for real tensors, and makes the same intermediate results.

    Args:
        mode: Made with ``allow_non_fake_inputs=True``; the same one for all tensors that are used together.
    """
    with warnings.catch_warnings(), mode:
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)  # copying a module
        yield


@contextmanager
def pretrained_by_configuration() -> Iterator[None]:
    """Make ``from_pretrained`` of diffusers and transformers read configurations, but no weights.

    Components, a user's own among them, call these class methods themselves; so the methods are replaced in the
    libraries' base classes while the context lasts.
    """

    def diffusers_model(cls: Any, name: str, subfolder: str | None = None, **options: Any) -> Any:
        published = _published(name, subfolder)
        return cls.from_config(cls.load_config(name, subfolder=subfolder) if published is None else published)

    def transformers_model(cls: Any, name: str, subfolder: str = "", **options: Any) -> Any:
        published = _published(name, subfolder)
        config = cls.config_class
        return cls(config.from_pretrained(name, subfolder=subfolder) if published is None else config(**published))

    def transformers_config(cls: Any, name: str, subfolder: str = "", **options: Any) -> Any:
        published = _published(name, subfolder)
        if published is None:
            return originals["AutoConfig"](name, subfolder=subfolder, **options)
        return cls.for_model(**published)

    def transformers_tokenizer(cls: Any, name: str, subfolder: str = "", **options: Any) -> Any:
        if _published(name, "text_encoder") is None:
            return originals["AutoTokenizer"](name, subfolder=subfolder, **options)
        return _tokenizer_without_words()

    originals: dict[str, Callable[..., Any]] = {}
    with ExitStack() as replacements:
        auto = "transformers.models.auto"
        for module, owner, method, replacement in (
            ("diffusers.models.modeling_utils", "ModelMixin", "from_pretrained", diffusers_model),
            ("transformers.modeling_utils", "PreTrainedModel", "from_pretrained", transformers_model),
            (f"{auto}.configuration_auto", "AutoConfig", "from_pretrained", transformers_config),
            (f"{auto}.tokenization_auto", "AutoTokenizer", "from_pretrained", transformers_tokenizer),
            ("transformers.image_processing_base", "ImageProcessingMixin", "get_image_processor_dict", _statistics),
        ):
            if find_spec(module.partition(".")[0]) is not None:  # a component that needs a missing library says so
                base = getattr(import_module(module), owner)
                originals[owner] = getattr(base, method)
                replacements.enter_context(_class_method_replaced(base, method, replacement))
        yield


@contextmanager
def _class_method_replaced(base: type, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    original = vars(base)[name]
    setattr(base, name, classmethod(replacement))
    try:
        yield
    finally:
        setattr(base, name, original)


def _tokenizer_without_words() -> Any:
    """Return a tokenizer; no memory depends on its vocabulary, since frozen encoders keep no activations."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=[(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")], extra_ids=0)


def _statistics(cls: Any, name: str, subfolder: str = "", **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    published = _published(name, subfolder)
    if published is None:
        raise OSError(f"{name} is not on this machine, and its sizes are not known here")
    return published, {}


def _published(name: str, subfolder: str | None) -> dict[str, Any] | None:
    return None if Path(name).is_dir() else PUBLISHED_SIZES.get(name, {}).get(subfolder or "")
