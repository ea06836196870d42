"""The CNNs of "PANNs", pretrained audio neural networks: CNN6, CNN10 and CNN14, from the log-mel spectrogram on."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models.base import Model, maps_of
from audio_cls.components.models.initial_weights import draw_xavier

__all__ = ["Panns"]

# kernel, convolutions in a block, blocks
_LAYOUTS = {"cnn6": (5, 1, 4), "cnn10": (3, 2, 4), "cnn14": (3, 2, 6)}


class Panns(Model, kind="panns"):
    """PANNs: CNN6 has 4,837,455, CNN10 5,219,279 and CNN14 80,753,615 parameters for 64 mel bands and 527 classes, as published. Kong et
    al., "PANNs: large-scale pretrained audio neural networks for audio pattern recognition", 2020, tables I and XII.

    A batch norm over the mel bands, blocks of convolutions (64 channels, doubled from block to block) with BatchNorm and ReLU,
    average pooling by 2 after all blocks but the sixth, dropout after each block. The head averages over frequency, adds the maximum
    and the mean over time, and goes through dropout, a hidden linear layer as wide as the last block, ReLU and a linear layer.

    Parameters have the names of the published weights (`conv_block1.conv1.weight`, `fc_audioset.weight`), which
    expect the features `panns_log_mel` at 32 kHz. A training step of `cnn10` costs about 30 times one of `small_cnn`.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image")

    layout: Literal["cnn6", "cnn10", "cnn14"] = "cnn10"
    """Four blocks of one 5x5 convolution (cnn6), four (cnn10) or six (cnn14) of two 3x3 convolutions."""
    width: int = Field(default=64, ge=1)
    """Channels of the first block. Published weights fit 64."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each block."""
    head_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Before the hidden layer."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        _, _, blocks = _LAYOUTS[self.layout]
        channels, height, _ = maps_of(self, input_shape, 2 ** min(blocks, 5))
        return _Panns(self, channels, height, n_classes)


class _Panns(nn.Module):
    def __init__(self, config: Panns, channels: int, n_mels: int, n_classes: int) -> None:
        super().__init__()
        kernel, convolutions, n_blocks = _LAYOUTS[config.layout]
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.block_names = [f"conv_block{i + 1}" for i in range(n_blocks)]
        for i, name in enumerate(self.block_names):
            width = config.width * 2**i
            self.add_module(name, _ConvBlock(channels, width, kernel, convolutions, pool=2 if i < 5 else 1))
            channels = width
        self.dropout = nn.Dropout(config.dropout)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.fc1 = nn.Linear(channels, channels)
        self.fc_audioset = nn.Linear(channels, n_classes)
        draw_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(x.transpose(1, 2)).permute(0, 2, 3, 1)  # (batch, channels, frames, n_mels), as published
        for name in self.block_names:
            x = self.dropout(self.get_submodule(name)(x))
        x = x.mean(3)  # (batch, width of the last block, frames / 2 ** pools)
        x = x.amax(2) + x.mean(2)
        return self.fc_audioset(functional.relu(self.fc1(self.head_dropout(x))))


class _ConvBlock(nn.Module):
    """One or two convolutions with BatchNorm and ReLU, then average pooling."""

    def __init__(self, channels: int, width: int, kernel: int, convolutions: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2, self.bn2 = None, None
        if convolutions == 2:
            self.conv2 = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
            self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        if self.conv2 is not None and self.bn2 is not None:
            x = functional.relu(self.bn2(self.conv2(x)))
        return x if self.pool == 1 else functional.avg_pool2d(x, self.pool)
