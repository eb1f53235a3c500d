"""The settings of what was made before, put back into the form."""

from collections.abc import Mapping, Sequence
from typing import Any

from vdm.cli.demo.calls import AS_IN_RUN, options_of_call, samplers
from vdm.cli.demo.form_inputs import ANY_CLASS, METHODS, TASKS
from vdm.cli.demo.models import DemoModel


def form_values(options: Mapping[str, Any], names: Sequence[str], models: Sequence[DemoModel]) -> dict[str, Any]:
    """Return the values of the form's inputs by which it asks for the videos of an earlier call.

    Files have to be chosen again: settings may name any file of this machine, which visitors must not get.

    Args:
        options: All options of the call in effect. They come from a file, and may be of any type.
        names: Names of the form's inputs.
        models: The page's models.
    """
    prompts, task = options.get("prompts"), options.get("task")
    found: dict[str, Any] = {name: _text(options.get(name)) for name in names}
    found |= {
        "prompt": str(prompts[0]) if isinstance(prompts, list) and prompts else "",
        "negative": _text(options.get("negative")),
        "label": _class(options.get("labels"), models),
        "image": None,
        "input": None,
        "task": _key(TASKS, task),
        "method": _key(METHODS, options.get("method")),
        "every": options.get("every") if isinstance(options.get("every"), int) else 2,
        "seed": options.get("seed") if isinstance(options.get("seed"), int) else 0,
    }
    sampler = options.get("sampler")
    if isinstance(sampler, Mapping):
        found |= {"sampler": _sampler(sampler, models), "num_steps": _text(sampler.get("num_steps"))}
    else:
        found["sampler"] = AS_IN_RUN
    return {name: found[name] for name in names}


def _text(value: object) -> str:
    """Return what an input for a number or a text has; empty stands for none."""
    return "" if value is None or isinstance(value, bool | list | Mapping) else str(value)


def _key(names: Mapping[str, str | None], value: object) -> str:
    """Return the label by which the form offers a value; the first label if it does not offer it."""
    return next((name for name, one in names.items() if one == value), next(iter(names)))


def _class(labels: object, models: Sequence[DemoModel]) -> str:
    label = labels[0] if isinstance(labels, list) and labels else labels
    names = next((model.classes for model in models if model.classes), ())
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return label if isinstance(label, str) and label in names else ANY_CLASS


def _sampler(node: Mapping[str, Any], models: Sequence[DemoModel]) -> str:
    """Return the name of a sampler; as in the run, if it is that of the page's models or has no name."""
    wanted = _without_steps(node)
    if all(_without_steps(model.trained.parts["sampler"]) == wanted for model in models):
        return AS_IN_RUN
    for name in samplers():
        call = options_of_call([f"checkpoint={models[0].checkpoint}", f"sampler={name}"])
        if _without_steps(call.sampler) == wanted:
            return name
    return AS_IN_RUN


def _without_steps(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "num_steps"}
