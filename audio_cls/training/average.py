"""Averaged weights: a moving average over the steps of training, and a module that holds other weights for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["WeightAverage", "copy_state", "other_weights"]


def copy_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of a state dictionary that shares no memory with it."""
    return {k: v.detach().clone() for k, v in state.items()}


class WeightAverage:
    """An exponential moving average of all weights and buffers (integers are copied).

    At its n-th update (from 0) the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage`: the
    initial weights are forgotten within some steps, however short the run. `warm_up=False` uses `decay` from the start.

    Attributes:
        updates: how many there were.
    """

    def __init__(self, module: nn.Module, decay: float, warm_up: bool = True) -> None:
        self.decay, self.warm_up = decay, warm_up
        self.updates = 0
        self.values = copy_state(module.state_dict())

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's weights after a step."""
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warm_up else self.decay
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)
        self.updates += 1

    def load(self, values: dict[str, torch.Tensor], updates: int) -> None:
        """Continue from the values of an earlier process after so many updates."""
        for name, value in values.items():
            self.values[name].copy_(value)
        self.updates = updates


@contextmanager
def other_weights(module: nn.Module, values: dict[str, torch.Tensor] | None) -> Iterator[None]:
    """Within the context the module holds these weights; its own without any."""
    if values is None:
        yield
        return
    own = copy_state(module.state_dict())
    module.load_state_dict(values)
    try:
        yield
    finally:
        module.load_state_dict(own)
