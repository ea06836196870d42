"""A convolutional recurrent network: convolutions that pool frequency away, then a GRU over the frames."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape
from audio_cls.core.config import ConfigError

__all__ = ["Crnn"]


class Crnn(Model, kind="crnn"):
    """Convolutions that pool frequency away, then a GRU over the frames: 959,816 parameters for 96 bands and 200 classes, 898,314 for
    64 bands and 10. Layers of Çakır et al., "Convolutional recurrent neural networks for polyphonic sound event detection", 2017;
    size of the CRNN in Fonseca et al., "FSD50K: an open dataset of human-labeled sound events", 2022.

    Three 5x5 convolutions of 128 channels without bias, each with BatchNorm, ReLU, max-pooling over frequency (4, 4, 3) and dropout; a
    bidirectional GRU of 64 units, its directions added; the mean over time, dropout and a linear layer. The FSD50K paper gives the
    size of its CRNN (0.96 M at 96 mel bands and 200 classes): these widths are one arrangement of that size, not a copy of the
    paper's own. A training step costs about 30 times one of `small_cnn`, half of that with `time_pooling` 2, 2, 1.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "sequence")

    widths: tuple[PositiveInt, ...] = Field(default=(128, 128, 128), min_length=1)
    """Channels of each convolution."""
    kernel: int = Field(default=5, ge=1)
    """Height and width of the convolutions; odd."""
    frequency_pooling: tuple[PositiveInt, ...] = (4, 4, 3)
    """Bands that each max-pooling joins."""
    time_pooling: tuple[PositiveInt, ...] = (1, 1, 1)
    """Frames that each max-pooling joins."""
    hidden: int = Field(default=64, ge=1)
    """Units of each direction of the GRU."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After each convolution and before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        for key in ("frequency_pooling", "time_pooling"):
            if len(getattr(self, key)) != len(self.widths):
                raise ConfigError(
                    f"model.{key}={getattr(self, key)}: one factor for each of the {len(self.widths)} convolutions is needed"
                )
        if self.kernel % 2 == 0:
            raise ConfigError(f"model.kernel={self.kernel}: must be odd, so that a map keeps its size")
        height, frames = math.prod(self.frequency_pooling), math.prod(self.time_pooling)
        if len(input_shape) != 3 or input_shape[0] < 1 or input_shape[1] < height or input_shape[2] < frames:
            needs = f"(channels, n_bins, frames), at least {height} bins and {frames} frames for its pooling"
            raise refuse_shape(self, input_shape, needs)
        rows = input_shape[1]
        for factor in self.frequency_pooling:
            rows //= factor
        return _Crnn(self, input_shape[0], rows, n_classes)


class _Crnn(nn.Module):
    def __init__(self, config: Crnn, channels: int, rows: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, bands, frames in zip(config.widths, config.frequency_pooling, config.time_pooling, strict=True):
            layers += [
                nn.Conv2d(channels, width, config.kernel, padding=config.kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d((bands, frames)),
                nn.Dropout(config.dropout),
            ]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.gru = nn.GRU(channels * rows, config.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(x)  # (batch, 128, rows, frames)
        both, _ = self.gru(maps.flatten(1, 2).transpose(1, 2))  # (batch, frames, 2 * hidden)
        forwards, backwards = both.chunk(2, 2)
        return self.output(self.dropout((forwards + backwards).mean(1)))
