"""One process on one device."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from vdm.models.experts import Expert, OneOnDevice, TwoExperts, move_but_experts
from vdm.training.devices import Devices
from vdm.training.ema import EMA
from vdm.training.step_experts import owners
from vdm.training.strategies.slicewise import SlicewiseStrategy


class SingleDevice(SlicewiseStrategy, SingleDeviceStrategy):
    """One process with the whole model on one device.

    Args:
        devices: The devices of the run, of which there is one.
        offload_idle_expert: Of a network that consists of two experts, keep the one that a step does not use in the
            CPU's memory, with its state of the optimizer and its EMA weights.
    """

    def __init__(self, devices: Devices, offload_idle_expert: bool = False) -> None:
        if devices.number != 1:
            raise ValueError(
                f"needs trainer.devices=1, but there are {devices.number} devices: choose another strategy"
            )
        super().__init__(device=devices.first)
        self.offload_idle_expert = offload_idle_expert

    def model_to_device(self) -> None:
        """Move the model to the device; of two experts neither, if an idle one is offloaded."""
        if not self.offload_idle_expert:
            super().model_to_device()
            return
        assert self.lightning_module is not None
        move_but_experts(self.lightning_module, self.root_device)

    def place_experts(self, network: TwoExperts, ema: EMA) -> None:
        """Have an expert moved to the device when it is used, and the other one to the CPU."""
        if not self.offload_idle_expert:
            return
        assert self.lightning_module is not None
        owner = owners(self.lightning_module)

        def moved(expert: Expert, place: torch.device) -> None:
            weights = {name: found for name, found in self.slices.trained.items() if owner[name] == expert}
            fused = {id(w) for g in self.base_optimizer.param_groups if g.get("fused") for w in g["params"]}
            for weight in weights.values():
                state = self.base_optimizer.state.get(weight.held_in, {})
                for kind, value in state.items():
                    # Fused kernels need the count of steps on the device of the weights, others on the CPU.
                    if isinstance(value, torch.Tensor) and (value.ndim > 0 or id(weight.held_in) in fused):
                        state[kind] = value.to(place)
            ema.move({name: weight.values for name, weight in weights.items()})

        OneOnDevice(network, moved)

    def teardown(self) -> None:
        """End, with the whole model on the CPU."""
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            if isinstance(module, TwoExperts):
                module.before_use = None
        super().teardown()
