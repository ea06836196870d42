"""MobileNetV2, a network for speed, with torchvision's names of parameters."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.initial_weights import draw_convolutions_by_fan_out

__all__ = ["MobileNetV2"]

_STEM, _HEAD = 32, 1280
# (blocks, stride of the first block, expansion, channels)
_STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320))


class MobileNetV2(Model, kind="mobilenet_v2"):
    """MobileNetV2, for speed: 3,504,872 parameters for three input channels and 1000 classes, 2,898,383 for one channel and 527,
    2,236,106 for one and 10. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.

    A stem of 32 channels, 17 inverted residual blocks, a head of 1280 channels, global average pooling, dropout and a linear layer.
    Parameters have torchvision's names, so that its ImageNet weights fit. A training step costs about 6 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image")

    width_multiplier: float = Field(default=1.0, gt=0, le=4)
    """Factor of all widths, rounded to multiples of 8; the head grows above 1 only. Published weights fit 1."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, 32)
        return _MobileNetV2(self, channels, n_classes)


class _MobileNetV2(nn.Module):
    def __init__(self, config: MobileNetV2, channels: int, n_classes: int) -> None:
        super().__init__()
        factor = config.width_multiplier
        width, head = _rounded(_STEM * factor), _rounded(_HEAD * max(1.0, factor))
        layers: list[nn.Module] = [_convolution(channels, width, 3, stride=2)]
        for n, stride, expansion, out in _STAGES:
            for i in range(n):
                layers.append(_InvertedResidual(width, _rounded(out * factor), stride if i == 0 else 1, expansion))
                width = _rounded(out * factor)
        layers.append(_convolution(width, head, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(head, n_classes))
        draw_convolutions_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))  # features: (batch, 1280, height / 32, width / 32)


class _InvertedResidual(nn.Module):
    """Expand channels by a 1x1 convolution, filter each of them, project to fewer; added to the input where shapes agree."""

    def __init__(self, width: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width * expansion
        layers: list[nn.Module] = [_convolution(width, wide, 1)] if expansion != 1 else []
        layers += [
            _convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _convolution(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution with BatchNorm and ReLU6."""
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6(inplace=True))


def _rounded(width: float) -> int:
    """Return the multiple of 8 next to `width`, but not less than nine tenths of it."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= 0.9 * width else near + 8
