"""The VGG-like baseline of the FSD50K paper."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of

__all__ = ["VggFsd50k"]

_BLOCKS = ((32, 32, 32), (64, 64), (128,))


class VggFsd50k(Model, kind="vgg_fsd50k"):
    """VGG-like baseline of FSD50K: 265,992 parameters for one input channel and 200 classes, 217,162 for 10. Fonseca et al., "FSD50K: an
    open dataset of human-labeled sound events", 2022 (0.27 M; 96 mel bands, windows of 1 s).

    Three 3x3 convolutions of 32 channels, two of 64 and one of 128, each with bias, BatchNorm and ReLU, max-pooling by 2 between the
    three groups; the maximum and the mean over the map side by side, a hidden linear layer of 256 with ReLU, dropout and a linear
    layer. A training step costs about 10 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image", "sequence")

    hidden: int = Field(default=256, ge=1)
    """Units of the hidden layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After the hidden layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, 2 ** (len(_BLOCKS) - 1))
        return _VggFsd50k(self, channels, n_classes)


class _VggFsd50k(nn.Module):
    def __init__(self, config: VggFsd50k, channels: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in _BLOCKS:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(2 * channels, config.hidden), nn.ReLU(inplace=True), nn.Dropout(config.dropout)
        )
        self.output = nn.Linear(config.hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(x)  # (batch, 128, n_bins / 4, frames / 4)
        return self.output(self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1)))
