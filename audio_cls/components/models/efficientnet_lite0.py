"""EfficientNet-Lite0, a fast image network whose ImageNet weights are freely available."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.initial_weights import draw_convolutions_by_fan_out

__all__ = ["EfficientNetLite0"]

_STEM, _HEAD = 32, 1280
# (blocks, kernel, stride of the first block, expansion, channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STRIDE = 32
_EPSILON = 1e-3


class EfficientNetLite0(Model, kind="efficientnet_lite0"):
    """EfficientNet-Lite0: 4,652,008 parameters for three input channels and 1000 classes, 3,383,242 for one channel and 10. Tan and Le,
    "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; layers of the Lite variants: tensorflow/tpu,
    models/official/efficientnet/lite, 2020.

    EfficientNet-B0 without squeeze-and-excitation and with ReLU6: a stem of 32 channels, 16 inverted residual blocks, a head of
    1280 channels, global average pooling, dropout and a linear layer. Strided convolutions pad as TensorFlow's "SAME" does.
    Names of parameters are those of the package `efficientnet_lite_pytorch` without leading underscores
    (`blocks.3.expand_conv.weight`), so that its ImageNet weights fit. A training step costs 5 to 8 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image")

    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Before the output layer."""
    stochastic_depth: float = Field(default=0.2, ge=0, lt=1)
    """Chance that training skips the last residual block for a clip; it grows linearly from 0 at the first block."""
    batch_norm_momentum: float = Field(default=0.1, gt=0, le=1)
    """Weight of a batch in the running statistics. Published: 0.01, which takes thousands of steps to settle."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, _STRIDE)
        return _EfficientNetLite(self, channels, n_classes)


class _EfficientNetLite(nn.Module):
    def __init__(self, config: EfficientNetLite0, channels: int, n_classes: int) -> None:
        super().__init__()
        momentum = config.batch_norm_momentum
        self.conv_stem = _SameConv2d(channels, _STEM, 3, stride=2, bias=False)
        self.bn0 = nn.BatchNorm2d(_STEM, _EPSILON, momentum)
        layers = [
            (kernel, stride if i == 0 else 1, expansion, out)
            for n, kernel, stride, expansion, out in _STAGES
            for i in range(n)
        ]
        blocks, width = [], _STEM
        for i, (kernel, stride, expansion, out) in enumerate(layers):
            skip = config.stochastic_depth * i / len(layers)
            blocks.append(_InvertedResidual(width, out, kernel, stride, expansion, skip, momentum))
            width = out
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv2d(width, _HEAD, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_HEAD, _EPSILON, momentum)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(_HEAD, n_classes)
        draw_convolutions_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn0(self.conv_stem(x)))  # (batch, 32, height / 2, width / 2)
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.bn1(self.conv_head(x)))  # (batch, 1280, height / 32, width / 32)
        return self.fc(self.dropout(x.mean((2, 3))))


class _InvertedResidual(nn.Module):
    """Expand channels by a 1x1 convolution, filter each of them, project to fewer; added to the input where shapes agree."""

    def __init__(
        self, width: int, out: int, kernel: int, stride: int, expansion: int, skip_chance: float, momentum: float
    ) -> None:
        super().__init__()
        wide = width * expansion
        self.expand_conv, self.bn0 = None, None
        if expansion != 1:
            self.expand_conv = nn.Conv2d(width, wide, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(wide, _EPSILON, momentum)
        self.depthwise_conv = _SameConv2d(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self.bn1 = nn.BatchNorm2d(wide, _EPSILON, momentum)
        self.project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, _EPSILON, momentum)
        self.residual = stride == 1 and width == out
        self.skip_chance = skip_chance

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        if self.expand_conv is not None and self.bn0 is not None:
            inner = functional.relu6(self.bn0(self.expand_conv(x)))
        inner = functional.relu6(self.bn1(self.depthwise_conv(inner)))
        inner = self.bn2(self.project_conv(inner))
        if not self.residual:
            return inner
        if self.training and self.skip_chance:
            keep = 1 - self.skip_chance
            inner = inner * (torch.rand(len(x), 1, 1, 1, device=x.device) < keep).to(inner.dtype) / keep
        return x + inner


class _SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) rows and columns; where padding is uneven, the end gets more."""

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = _same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):
            return functional.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, groups=self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
