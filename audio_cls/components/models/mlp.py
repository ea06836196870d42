"""The multilayer perceptron, on embeddings or on spectrograms made into one vector."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape

__all__ = ["Mlp"]


class Mlp(Model, kind="mlp"):
    """Linear layers with ReLU and dropout between them: 25,642 parameters for 128 spectrogram bands and 10 classes; 41,058 for 10 rows of
    128 values, 2 classes, hidden=32 and pooling=flatten.

    (d + 1) h + (h + 1) h' + ... + (h'' + 1) n_classes parameters for an input of d values and hidden layers h, h', ...
    A spectrogram becomes the mean and standard deviation of each row over time (`statistics`, any number of frames), or all its
    values (`flatten`, the number of frames it was built for).
    """

    added_fields = frozenset({"activation"})
    input_domains: ClassVar[tuple[str, ...]] = ("embedding", "spectrogram", "image", "sequence")

    hidden: tuple[PositiveInt, ...] = (96,)
    """Units of each hidden layer."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each hidden layer."""
    pooling: Literal["statistics", "flatten"] = "statistics"
    """How a spectrogram becomes a vector: mean and standard deviation of each row over time, or all values."""
    activation: Literal["relu", "none"] = "relu"
    """After each hidden layer; none makes the whole network linear."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if len(input_shape) not in (1, 3) or min(input_shape) < 1:
            raise refuse_shape(self, input_shape, "(n_features,) or (channels, n_bins, frames)")
        return _Mlp(self, input_shape, n_classes)


class _Mlp(nn.Module):
    def __init__(self, config: Mlp, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.statistics = len(input_shape) == 3 and config.pooling == "statistics"
        size = 2 * input_shape[0] * input_shape[1] if self.statistics else int(torch.Size(input_shape).numel())
        layers: list[nn.Module] = []
        for width in config.hidden:
            activation = [nn.ReLU(inplace=True)] if config.activation == "relu" else []
            layers += [nn.Linear(size, width), *activation, nn.Dropout(config.dropout)]
            size = width
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(size, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics:
            mean = x.mean(3)
            # the small term keeps the gradient finite where a row does not change
            spread = (x - mean.unsqueeze(3)).square().mean(3).add(1e-8).sqrt()
            x = torch.cat([mean.flatten(1), spread.flatten(1)], 1)
        return self.output(self.layers(x.flatten(1)))
