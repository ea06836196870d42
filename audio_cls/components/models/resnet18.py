"""ResNet-18 for pictures and spectrograms, with torchvision's names of parameters."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.initial_weights import draw_convolutions_by_fan_out

__all__ = ["BasicBlock", "ResNet18"]


class ResNet18(Model, kind="resnet18"):
    """ResNet-18: 11,188,824 parameters for three input channels and 24 classes, 11,272,840 for one channel and the 200 classes of FSD50K.
    He et al., "Deep residual learning for image recognition", 2016.

    A 7x7 convolution of stride 2, max-pooling, four stages of two basic blocks (64, 128, 256, 512 channels), global average
    pooling, dropout and a linear layer. With one input channel it is the ResNet-18 of the FSD50K paper (Fonseca et al., 2022: 11.3 M).
    Parameters have torchvision's names, so that its ImageNet weights fit. A training step costs about 7 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image")

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the output layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, _, _ = maps_of(self, input_shape, 32)
        return _ResNet18(channels, n_classes, self.dropout)


class _ResNet18(nn.Module):
    def __init__(self, channels: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512, n_classes)
        draw_convolutions_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)  # (batch, 64, height / 4, width / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (batch, 512, height / 32, width / 32)
        return self.fc(self.dropout(x.mean((2, 3))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to their input; where the shape changes, the input goes through a 1x1 convolution.

    Takes (batch, width, height, frames) and gives (batch, out, height / stride, frames / stride).
    """

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        return functional.relu(inner + (x if self.downsample is None else self.downsample(x)))
