"""The four-block CNN whose head keeps frequency bands apart."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of, refuse_shape

__all__ = ["Cnn4"]


class Cnn4(Model, kind="cnn4"):
    """Four convolutions and a head that keeps frequency bands apart: 1,642,920 parameters for one input channel and 200 classes, 1,448,170 for 10.

    Four blocks of a 3x3 convolution (32, 64, 128, 256 channels, no bias), BatchNorm, ReLU and max-pooling by 2. The head averages
    over time (`mean_max` adds the maximum over time), keeps `bands` frequency bands, and goes through dropout, a hidden linear
    layer with ReLU, dropout and a linear layer. Where the pooled map has more rows than `bands`, neighbouring rows are averaged.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image", "sequence")

    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    """Channels of each block."""
    bands: int = Field(default=4, ge=1)
    """Frequency bands that the head keeps apart."""
    time_pooling: Literal["mean", "mean_max"] = "mean"
    """How time is pooled: the mean, or the mean plus the maximum."""
    hidden: int = Field(default=1024, ge=1)
    """Units of the hidden layer."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Before the hidden layer."""
    hidden_dropout: float = Field(default=0.2, ge=0, lt=1)
    """After the hidden layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        shrink = 2 ** len(self.widths)
        channels, height, _ = maps_of(self, input_shape, shrink)
        if height // shrink < self.bands:
            raise refuse_shape(
                self,
                input_shape,
                f"at least {self.bands * shrink} bins (rows) to keep model.bands={self.bands} after its pooling",
            )
        return _Cnn4(self, channels, height // shrink, n_classes)


class _Cnn4(nn.Module):
    rows_to_bands: Tensor | None

    def __init__(self, config: Cnn4, channels: int, rows: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in config.widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.with_max = config.time_pooling == "mean_max"
        self.register_buffer("rows_to_bands", _averages(rows, config.bands), persistent=False)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(channels * config.bands, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.hidden_dropout),
        )
        self.output = nn.Linear(config.hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(x)  # (batch, 256, n_bins / 16, frames / 16)
        rows = maps.mean(3)
        if self.with_max:
            rows = rows + maps.amax(3)
        bands = rows if self.rows_to_bands is None else rows @ self.rows_to_bands.to(rows.dtype)
        return self.output(self.head(bands.flatten(1)))


def _averages(rows: int, bands: int) -> Tensor | None:
    """(rows, bands), each column the mean of the rows of one band; a product, since adaptive pooling is not deterministic on CUDA."""
    if rows == bands:
        return None
    edges = [round(i * rows / bands) for i in range(bands + 1)]
    matrix = torch.zeros(rows, bands)
    for band, (low, high) in enumerate(itertools.pairwise(edges)):
        matrix[low:high, band] = 1 / (high - low)
    return matrix
