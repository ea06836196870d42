"""The small CNN: three convolutions, averaged over the whole map."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of

__all__ = ["SmallCnn"]


class SmallCnn(Model, kind="small_cnn"):
    """Three convolutions, averaged over the whole map: 24,170 parameters for one input channel and 10 classes.

    Three blocks of a 3x3 convolution (16, 32, 64 channels, with bias), BatchNorm and ReLU, max-pooling by 2 after all but the
    last; global average pooling; dropout; a linear layer. Averaging frequency away keeps it small and costs accuracy: `cnn4`
    does not.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image", "sequence")

    widths: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=1)
    """Channels of each block."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, 2 ** (len(self.widths) - 1))
        return _SmallCnn(channels, self.widths, self.dropout, n_classes)


class _SmallCnn(nn.Module):
    def __init__(self, channels: int, widths: tuple[PositiveInt, ...], dropout: float, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if i < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(x)  # (batch, widths[-1], n_bins / 4, frames / 4)
        return self.output(self.dropout(maps.mean((2, 3))))
