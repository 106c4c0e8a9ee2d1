"""A network, its optimiser, and the moving average of its weights. Letters: B spots in a batch, M genes."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genedml.config import TrainingConfig
from genedml.networks.inputs import Batch
from genedml.networks.network import Network
from genedml_cli.machine.devices import mixed_precision, random_states, set_random_states
from genedml_cli.training.state import Moment

FUSED = ("cpu", "cuda")
"""Devices on which torch has Adam as one kernel."""
LACKED = "batches_without_"
"""How the columns of a training log begin that count the batches without a part of the loss."""


class Learner:
    """A network, the moving average of its weights that is kept, and what moves them. No step waits for the device."""

    def __init__(self, network: Network, settings: TrainingConfig, device: torch.device | str) -> None:
        self._network = network.to(device)
        self._device = torch.device(device)
        self._decay, self._steps = settings.weight_average, 0
        self.averaged = copy.deepcopy(self._network) if self._decay else self._network
        self._optimiser = _optimiser(network, settings, self._device)
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimiser, settings.lr_step_epochs, settings.lr_factor)

    def train_epoch(self, batches: Iterator[Batch], generator: torch.Generator) -> dict[str, float]:
        """One epoch; returns the mean of every loss part."""
        self._network.train()
        learning_rate = float(self._schedule.get_last_lr()[0])
        steps = [self.step(batch, generator) for batch in batches]
        self._copy_buffers()
        self._schedule.step()
        lacking = {
            f"{LACKED}{name}": sum(name not in step for step in steps) for name in self._network.optional_parts()
        }
        return {"learning_rate": learning_rate, **_mean_parts(steps), **lacking}

    def step(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the optimiser; returns every loss part."""
        with mixed_precision(self._device):
            losses = self._network.losses(batch, generator)
        self._optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        self._optimiser.step()
        self._update_average()
        return {name: value.detach() for name, value in losses.items()}

    def snapshot(self, generator: torch.Generator) -> Moment:
        """All that the next epoch depends on: weights, optimiser, schedule, average, random states.

        There is no gradient scaler: bfloat16 needs none.
        """
        optimiser = self._optimiser.state_dict()
        moment = Moment(
            {
                "steps": self._steps,
                "groups": optimiser["param_groups"],
                "schedule": self._schedule.state_dict(),
            },
            {f"network.{name}": value for name, value in self._network.state_dict().items()},
        )
        for number, values in optimiser["state"].items():
            moment.tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        if self._decay:
            moment.tensors |= {f"kept.{name}": value for name, value in self.averaged.state_dict().items()}
        moment.tensors["random.generator"] = generator.get_state()
        moment.tensors |= {f"random.{name}": state for name, state in random_states(self._device).items()}
        return moment

    def restore(self, moment: Moment, generator: torch.Generator) -> None:
        """Be as :meth:`snapshot` found this."""
        values, tensors = moment.values, moment.tensors
        self._network.load_state_dict(below("network.", tensors))
        if self._decay:
            self.averaged.load_state_dict(below("kept.", tensors))
        optimiser: dict[int, dict[str, Any]] = {}
        for name, value in below("optimiser.", tensors).items():
            number, _, key = name.partition(".")
            optimiser.setdefault(int(number), {})[key] = value
        self._optimiser.load_state_dict({"state": optimiser, "param_groups": values["groups"]})
        self._schedule.load_state_dict(values["schedule"])
        self._steps = values["steps"]
        generator.set_state(tensors["random.generator"])
        set_random_states(below("random.", tensors), self._device)

    @torch.no_grad()
    def _copy_buffers(self) -> None:
        """Statistics of batches are not averaged: those of the network are the average's."""
        for average, buffer in zip(self.averaged.buffers(), self._network.buffers(), strict=True):
            average.copy_(buffer)

    @torch.no_grad()
    def _update_average(self) -> None:
        self._steps += 1
        if not self._decay:
            return
        decay = self._decay if self._steps > 1 else 0.0  # the average of one step is that step
        average, now = list(self.averaged.parameters()), list(self._network.parameters())
        get_ema_multi_avg_fn(decay)(average, now, self._steps)


@torch.no_grad()
def remember(network: Network, batches: Iterable[Batch]) -> list[int]:
    """Let a network that needs a bank fill it from all spots that it is trained on.

    Returns:
        Which of them each row of the bank holds, counted over ``batches``; nothing where there is no bank.
    """
    if not network.takes.bank:
        return []
    network.eval()
    order = network.remember(batches)
    return [] if order is None else order.tolist()


def _optimiser(network: Network, settings: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    shared["fused"] = device.type in FUSED
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=settings.momentum, **shared)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[settings.optimiser](network.parameters(), **shared)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _mean_parts(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Mean of every loss part over the batches that had it."""
    names = dict.fromkeys(name for step in steps for name in step)
    means = [torch.stack([step[name] for step in steps if name in step]).mean() for name in names]
    return dict(zip(names, torch.stack(means).tolist(), strict=True))
