"""Convolutions along the rows of a sequence written one after the other."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape

__all__ = ["Conv1d"]


class Conv1d(Model, kind="conv1d"):
    """Three convolutions along all values of a sequence as one row: 131,394 parameters for 10 rows of 128 values and 2 classes (a student
    project on AudioSet's embeddings).

    The rows of a clip, one after the other (10 x 128 = 1280 values), go through this list, of which `active_layers` uses the beginning:
    1 convolution, 2 ReLU, 3 convolution, 4 dropout, 5 max-pooling, 6 convolution, 7 dropout. A linear layer takes all that is left. Neighbouring
    values of an embedding are no neighbours in any sense: this is the published network, not a good one.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("sequence",)

    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128)
    """Channels of each convolution."""
    kernel_sizes: tuple[PositiveInt, PositiveInt, PositiveInt] = (3, 5, 7)
    """Values that each convolution sees; no padding."""
    pool: int = Field(default=5, ge=1)
    """Max-pooling after the second convolution."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Before the pooling, and before the output layer."""
    active_layers: int = Field(default=7, ge=1, le=7)
    """Layers in use, from the first of the list."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise refuse_shape(self, input_shape, "(1, n_values, frames), for example features.kind=frames")
        length = values = input_shape[0] * input_shape[1] * input_shape[2]
        first, second, third = self.kernel_sizes
        steps = [-(first - 1), 0, -(second - 1), 0, self.pool, -(third - 1), 0][: self.active_layers]
        for step in steps:
            length = length // step if step > 0 else length + step
        if length < 1:
            smallest = third * self.pool if self.active_layers > 5 else self.pool if self.active_layers == 5 else 1
            needed = smallest + first - 1 + (second - 1 if self.active_layers > 2 else 0)
            raise refuse_shape(self, input_shape, f"at least {needed} values for its convolutions, found {values}")
        channels = self.widths[0 if self.active_layers < 3 else 1 if self.active_layers < 6 else 2]
        return _Conv1d(self, length * channels, n_classes)


class _Conv1d(nn.Module):
    def __init__(self, config: Conv1d, features: int, n_classes: int) -> None:
        super().__init__()
        (a, b, c), kernels = config.widths, config.kernel_sizes
        layers: list[nn.Module] = [
            nn.Conv1d(1, a, kernels[0]),
            nn.ReLU(inplace=True),
            nn.Conv1d(a, b, kernels[1]),
            nn.Dropout(config.dropout),
            nn.MaxPool1d(config.pool),
            nn.Conv1d(b, c, kernels[2]),
            nn.Dropout(config.dropout),
        ]
        self.layers = nn.Sequential(*layers[: config.active_layers])
        self.output = nn.Linear(features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        row = x.transpose(2, 3).flatten(1).unsqueeze(1)  # (batch, 1, frames * n_values)
        return self.output(self.layers(row).flatten(1))
