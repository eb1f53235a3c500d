"""What may be said of Lightning's trainer, and what is said elsewhere."""

import dataclasses
import inspect
from typing import Any

import lightning
import pytest
from lightning.pytorch.plugins.precision.half import HalfPrecision

from vdm.config import ConfigError, check
from vdm.training.strategies.deepspeed import DeepSpeedZeRO
from vdm.training.trainer_options import TrainerOptions, canonical_precision


def _refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check({"_target_": "lightning.Trainer", **options}, "trainer")
    return str(caught.value)


def test_every_option_of_lightning_is_either_allowed_or_refused() -> None:
    options = {field.name for field in dataclasses.fields(TrainerOptions)}

    assert options == set(inspect.signature(lightning.Trainer).parameters)


@pytest.mark.parametrize(
    "options",
    [
        *({"devices": devices} for devices in ("auto", 1, 8, -1, "2", "-1", "0,1", "3,", [0], [2, 3])),
        *({"precision": name} for name in ("32-true", "bf16-mixed", "16-mixed", "32", "16", "bf16", 32, 16, None)),
        *({"max_time": time} for time in (None, "00:12:00:00", "99:00:00:01", {"hours": 3, "minutes": 30})),
        *({"max_steps": steps} for steps in (1, 10**9, 1e5, -1)),
        *({"gradient_clip_val": limit} for limit in (None, 0, 0.0, 1, 1e-3)),
        *({"deterministic": choice} for choice in (True, False, "warn", None)),
        {"gradient_clip_algorithm": "norm", "benchmark": True, "detect_anomaly": True, "inference_mode": False},
    ],
    ids=str,
)
def test_what_runs_have_recorded_is_allowed(options: dict[str, Any]) -> None:
    check({"_target_": "lightning.Trainer", **options}, "trainer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "trainer.devices: 0 is not allowed: must be at least 1"),
        ({"devices": -2}, "trainer.devices: -2 is not allowed: must be at least 1"),
        ({"devices": "0"}, "trainer.devices: '0' is not allowed: must be"),
        ({"devices": []}, "trainer.devices: [] is not allowed: must not be empty"),
        ({"devices": True}, "trainer.devices: True is not allowed"),
        ({"accelerator": "tpu"}, "trainer.accelerator: 'tpu' is not allowed: must be 'auto', 'cpu', 'gpu', 'cuda' or"),
        ({"precision": "bf16-true"}, "trainer.precision: 'bf16-true' is not allowed: must be '32-true', 'bf16-mixed',"),
        ({"precision": 64}, "trainer.precision: 64 is not allowed: must be '32-true'"),
        ({"max_steps": 0}, "trainer.max_steps: 0 is not allowed: must be at least 1"),
        (
            {"max_time": "12:00:00"},
            "trainer.max_time: '12:00:00' is not allowed: must be \"days:hours:minutes:",
        ),
        ({"max_time": "00:00:00:00"}, "trainer.max_time: '00:00:00:00' is not allowed"),
        ({"max_time": {"hour": 1}}, "trainer.max_time: {'hour': 1} is not allowed: must be"),
        ({"gradient_clip_val": -1}, "trainer.gradient_clip_val: -1 is not allowed: must be at least 0"),
        (
            {"gradient_clip_algorithm": "value"},
            "trainer.gradient_clip_algorithm: 'value' is not allowed: must be",
        ),
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps: 0 is not allowed: must be at least 1"),
        ({"num_nodes": 0}, "trainer.num_nodes: 0 is not allowed: must be at least 1"),
        ({"deterministic": "yes"}, "trainer.deterministic: 'yes' is not allowed"),
        (
            {"accumulate_grad_batches": 4},
            "trainer.accumulate_grad_batches: 4 is not allowed: must be left out; set data.micro_batch_size",
        ),
        ({"max_epochs": None}, "trainer.max_epochs: None is not allowed: must be left out; set trainer.max_steps"),
        ({"strategy": "ddp"}, "trainer.strategy: 'ddp' is not allowed: must be left out; choose by the group strategy"),
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    assert _refusal(**options).startswith(message)


def test_unknown_option_names_those_to_choose_from() -> None:
    message = _refusal(max_stepz=3)

    assert message.startswith("trainer.max_stepz: unknown key: did you mean 'trainer.max_steps'? (allowed: accel")
    assert "max_epochs" not in message


@pytest.mark.filterwarnings("ignore:.precision=", "ignore:You passed .Trainer")
def test_short_names_of_precisions_are_those_of_lightning() -> None:
    for name in ("32", "16", "bf16", 32, 16, "bf16-mixed", None):
        trainer = lightning.Trainer(precision=name, logger=False, accelerator="cpu")  # pyright: ignore

        # Lightning itself takes bf16 for fp16 on CPUs.
        expected = {"16-mixed": "bf16-mixed"}.get(canonical_precision(name), canonical_precision(name))
        assert trainer.precision == expected


def test_deepspeed_takes_no_other_precision() -> None:
    strategy = DeepSpeedZeRO(2)

    with pytest.raises(ValueError, match=r"^precision=bf16-true: under DeepSpeed it is one of 32-true, bf16-mixed$"):
        strategy.precision_plugin = HalfPrecision("bf16-true")
