"""A plain CNN whose blocks, pooling and head are settings."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from audio_cls.components.models.base import Model, maps_of

__all__ = ["Cnn", "CnnBlocks", "GridAverage"]


class Cnn(Model, kind="cnn"):
    """A plain CNN whose blocks, pooling and head are settings: 1,472,776 parameters for one input channel and 200 classes, those of a
    published multi-label system for FSD50K (blocks of 32, 64, 128 and 128 channels, a head of 512 and 256 units).

    Blocks of a convolution, BatchNorm, ReLU and max-pooling; the map averaged to a grid of `pooled` cells; a head of linear layers
    with ReLU and dropout. Other systems are settings of it (docs/models.md has the list):

    - widths=16,32,64 pooled=3,1 head=() dropout=0: 26,415 parameters for 15 classes, three blocks of the size of `frame_mlp`.
    - widths=32,64,128 head=730 dropout=0.2: 1,599,855 for 15 classes.
    - widths=32,64,128 pooled=none head=128 dropout=0.2: 7,040,838 for 64 x 431 inputs and 6 classes.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("spectrogram", "image", "sequence")

    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128, 128), min_length=1)
    """Channels of each block."""
    kernel_size: int = Field(default=3, ge=1)
    """Height and width of the convolutions, odd; maps keep their size."""
    bias: bool = True
    """Whether convolutions have a bias (which the BatchNorm after them makes redundant)."""
    pool: tuple[PositiveInt, ...] = Field(default=(2,), min_length=1)
    """Max-pooling after each block, 1 for none: one number for all blocks or one for each."""
    pooled: tuple[PositiveInt, PositiveInt] | None = (4, 4)
    """Rows and columns that the last map is averaged to; none keeps all of it."""
    head: tuple[PositiveInt, ...] = (512, 256)
    """Units of each hidden layer of the head; an empty list for a linear layer alone."""
    dropout: tuple[float, ...] = Field(default=(0.3, 0.2), min_length=1)
    """After each hidden layer: one probability for all or one for each; before the output layer, where there is none."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        lengths = {"pool": len(self.widths), "dropout": max(1, len(self.head))}
        for name, n in lengths.items():
            found = len(getattr(self, name))
            if found not in (1, n):
                words = {"name": name, "found": found, "expected": f"1 or {n}" if n > 1 else "1"}
                raise PydanticCustomError("length", "{name}: {found} values found, expected {expected}", words)
        if self.kernel_size % 2 == 0:
            raise PydanticCustomError("odd", "kernel_size: expected an odd number")
        if not all(0 <= p < 1 for p in self.dropout):
            raise PydanticCustomError("probability", "dropout: expected probabilities of at least 0 and below 1")
        return self

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        pool = _for_each(self.pool, len(self.widths))
        channels, height, width = maps_of(self, input_shape, math.prod(pool))
        return _Cnn(
            self, CnnBlocks(channels, self.widths, pool, self.kernel_size, bias=self.bias), (height, width), n_classes
        )


class CnnBlocks(nn.Sequential):
    """Blocks of a convolution that keeps the size of its map, BatchNorm, ReLU and max-pooling.

    Args:
        pool: of each block; 1 for none.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], pool: tuple[int, ...], kernel_size: int = 3, *, bias: bool = True
    ) -> None:
        layers: list[nn.Module] = []
        for before, width, by in zip((channels, *widths), widths, pool, strict=False):
            conv = nn.Conv2d(before, width, kernel_size, padding=kernel_size // 2, bias=bias)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *([nn.MaxPool2d(by)] if by > 1 else [])]
        super().__init__(*layers)
        self.pool = pool

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of the map that an input of this height and width gives."""
        for by in self.pool:
            size = (size[0] // by, size[1] // by)
        return size


class GridAverage(nn.Module):
    """Average maps (batch, channels, height, width) to (batch, channels, rows, columns): `nn.AdaptiveAvgPool2d` for one known size.

    As two products, since the gradient of adaptive pooling is not deterministic on CUDA.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], cells: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", _averages(size[0], cells[0]).T.contiguous(), persistent=False)
        self.register_buffer("columns", _averages(size[1], cells[1]), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.rows.to(maps.dtype) @ (maps @ self.columns.to(maps.dtype))


class _Cnn(nn.Module):
    def __init__(self, config: Cnn, blocks: CnnBlocks, size: tuple[int, int], n_classes: int) -> None:
        super().__init__()
        self.blocks = blocks
        size = blocks.output_size(size)
        self.average = GridAverage(size, config.pooled) if config.pooled else nn.Identity()
        features = config.widths[-1] * math.prod(config.pooled or size)
        dropout = _for_each(config.dropout, max(1, len(config.head)))
        layers: list[nn.Module] = []
        for (before, units), p in zip(itertools.pairwise((features, *config.head)), dropout, strict=False):
            layers += [nn.Linear(before, units), nn.ReLU(inplace=True), nn.Dropout(p)]
        self.head = nn.Sequential(*(layers or [nn.Dropout(dropout[0])]))
        self.output = nn.Linear(config.head[-1] if config.head else features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.average(self.blocks(x))  # (batch, widths[-1], *pooled)
        return self.output(self.head(maps.flatten(1)))


def _averages(n: int, cells: int) -> Tensor:
    """Return (n, cells): each column averages the places from floor(i n / cells) to ceil((i + 1) n / cells)."""
    matrix = torch.zeros(n, cells)
    for i in range(cells):
        low, high = i * n // cells, -(-(i + 1) * n // cells)
        matrix[low:high, i] = 1 / (high - low)
    return matrix


def _for_each(values: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    return values * n if len(values) == 1 else values
