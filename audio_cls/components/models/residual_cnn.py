"""A small residual CNN."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.initial_weights import draw_convolutions_by_fan_out
from audio_cls.components.models.resnet18 import BasicBlock

__all__ = ["ResidualCnn"]


class ResidualCnn(Model, kind="residual_cnn"):
    """Small residual CNN: 174,970 parameters for one input channel and 10 classes, 696,042 with widths 32, 64, 128. He et al., "Deep
    residual learning for image recognition", 2016, section 4.2 (the arrangement for small pictures).

    A 3x3 convolution, stages of basic blocks that halve the map from the second stage on, global average pooling, dropout and a linear
    layer. A training step costs about 8 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image", "sequence")

    widths: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=1)
    """Channels of each stage."""
    blocks: int = Field(default=2, ge=1)
    """Basic blocks in a stage."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, 2 ** (len(self.widths) - 1))
        return _ResidualCnn(self, channels, n_classes)


class _ResidualCnn(nn.Module):
    def __init__(self, config: ResidualCnn, channels: int, n_classes: int) -> None:
        super().__init__()
        width = config.widths[0]
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        for stage, out in enumerate(config.widths):
            for block in range(config.blocks):
                layers.append(BasicBlock(width, out, stride=2 if stage and block == 0 else 1))
                width = out
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, n_classes)
        draw_convolutions_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(functional.relu(self.bn(self.conv(x))))  # (batch, widths[-1], n_bins / 4, frames / 4)
        return self.output(self.dropout(maps.mean((2, 3))))
