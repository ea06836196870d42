"""Small convolutions over the map of a sequence, then a wide linear layer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of
from audio_cls.core.config import ConfigError

__all__ = ["Conv2d"]

MOST_WEIGHTS = 100_000_000
"""Of the wide layer when its units follow from the input: training four times as many numbers fills the memory of a usual machine."""


class Conv2d(Model, kind="conv2d"):
    """Three small convolutions over a sequence as a map, then a wide linear layer: 1,113,182 parameters for 10 rows of 128 values and 2
    classes (a student project on AudioSet's embeddings).

    A convolution with ReLU, a second one, max-pooling by 2, a third one, all without padding; BatchNorm over what is left (744 values),
    a linear layer of twice as many units without an activation, dropout and a linear layer.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("sequence", "spectrogram", "image")

    channels: int = Field(default=4, ge=1)
    """Of each convolution."""
    kernel_size: int = Field(default=2, ge=1)
    """Height and width that a convolution sees."""
    hidden: int | None = Field(default=None, ge=1)
    """Units of the wide layer; none is twice the values of the last map."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        less = self.kernel_size - 1
        channels, height, width = maps_of(self, input_shape, 2 * (less + 1) + 2 * less)
        left = [(side - 2 * less) // 2 - less for side in (height, width)]
        values = self.channels * left[0] * left[1]
        if self.hidden is None and 2 * values**2 > MOST_WEIGHTS:
            raise ConfigError(
                f"model.hidden=none: {2 * values} units, twice the {values} values of the last map, have {2 * values**2 / 1e6:,.0f} "
                f"million weights, expected at most {MOST_WEIGHTS / 1e6:,.0f} million: set model.hidden, such as 128"
            )
        return _Conv2d(self, channels, values, n_classes)


class _Conv2d(nn.Module):
    def __init__(self, config: Conv2d, channels: int, features: int, n_classes: int) -> None:
        super().__init__()
        width, kernel = config.channels, config.kernel_size
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, kernel),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, kernel),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, kernel),
        )
        hidden = config.hidden or 2 * features
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, hidden), nn.Dropout(config.dropout))
        self.output = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.head(self.convolutions(x).flatten(1)))
