"""Initial weights that several published networks share."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["draw_convolutions_by_fan_out", "draw_xavier"]


def draw_convolutions_by_fan_out(module: nn.Module) -> None:
    """Draw the weights of all convolutions from a normal distribution of variance 2 / fan out, biases 0.

    The fan out of a grouped convolution is counted within its group. He et al., "Delving deep into rectifiers", 2015.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_xavier(module: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers by Glorot's uniform rule, biases 0.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
