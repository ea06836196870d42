"""Two branches on one spectrogram: an MLP on frames and a small CNN on the map."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.cnn import CnnBlocks, GridAverage
from audio_cls.components.models.frame_mlp import FrameLayers, frames_of

__all__ = ["DualStream"]


class DualStream(Model, kind="dual_stream"):
    """Two branches on one spectrogram, an MLP on frames and a small CNN, whose features one linear layer takes: 50,159 parameters for 64
    mel bands and 15 classes, 24,704 of them the MLP's (a student project on TUT Acoustic Scenes 2017).

    The MLP is `frame_mlp` without its output layer, its features averaged over frames. The CNN has 3x3 convolutions with BatchNorm, ReLU
    and max-pooling by 2 after each, and its map is averaged to `pooled` cells. Averaging the MLP's features before the linear layer is
    the same as letting the layer see each frame beside the CNN's features and averaging its logits.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "sequence")

    context: int = Field(default=5, ge=1)
    """Frames that the MLP sees at once."""
    hidden: tuple[PositiveInt, ...] = Field(default=(64, 64), min_length=1)
    """Units of each layer of the MLP."""
    widths: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=1)
    """Channels of each block of the CNN."""
    pooled: tuple[PositiveInt, PositiveInt] = (1, 1)
    """Rows and columns that the CNN's last map is averaged to."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each layer of the MLP, and before the output layer on the CNN's features."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        n_values = frames_of(self, input_shape)
        channels, height, width = maps_of(self, input_shape, 2 ** len(self.widths))
        return _DualStream(self, n_values, channels, (height, width), n_classes)


class _DualStream(nn.Module):
    def __init__(self, config: DualStream, n_values: int, channels: int, size: tuple[int, int], n_classes: int) -> None:
        super().__init__()
        self.mlp = FrameLayers(n_values, config.context, config.hidden, config.dropout)
        blocks = CnnBlocks(channels, config.widths, (2,) * len(config.widths))
        average = GridAverage(blocks.output_size(size), config.pooled)
        self.cnn = nn.Sequential(blocks, average, nn.Flatten(), nn.Dropout(config.dropout))
        features = config.widths[-1] * config.pooled[0] * config.pooled[1]
        self.output = nn.Linear(config.hidden[-1] + features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.cat([self.mlp(x).mean(1), self.cnn(x)], 1))
