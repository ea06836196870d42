"""Mean and deviation of the training features: applied between an extractor and a model, and saved with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from audio_cls.components.features import Features

__all__ = ["IMAGENET", "Normalisation", "Normaliser"]

Normalisation = Literal["band", "global", "none"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels by channel, as torchvision's weights were trained with."""
_BY_COLUMN = ("band", "channel")  # statistics of each of `n_bins` by itself


class Normaliser(nn.Module):
    """(x - mean) / std, with the mean and standard deviation of the training features; the identity until it is fitted.

    The buffers `mean` and `std` broadcast against a batch: (1, 1, n_bins, 1) for spectrograms and sequences, (1, n_features) for
    embeddings, (1, 1) for waveforms, (1, channels, 1, 1) for pictures, with ones instead of sizes when all values are taken
    together. In the mode "imagenet" they are known and not fitted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mode: str, n_bins: int, domain: str = "spectrogram") -> None:
        super().__init__()
        self.mode, self.n_bins, self.domain = mode, n_bins, domain
        size = n_bins if mode in (*_BY_COLUMN, "imagenet") else 1
        shape: tuple[int, ...] = (1, 1, size, 1) if domain in ("spectrogram", "sequence", "image") else (1, size)
        if mode in ("channel", "imagenet"):
            shape = (1, size, 1, 1)
        known = [torch.tensor(values).view(shape) for values in IMAGENET] if mode == "imagenet" else None
        self.register_buffer("mean", known[0] if known else torch.zeros(shape))
        self.register_buffer("std", known[1] if known else torch.ones(shape))

    @classmethod
    def build(cls, features: Features, n_bins: int) -> Normaliser:
        """Return the normaliser that `features` ask for, of `n_bins` bands (an extractor's `n_bins`)."""
        return cls(features.normalise, n_bins, features.output_domain)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "none":
            return x
        return (x - self.mean) / self.std

    @torch.no_grad()
    def fit(
        self,
        features: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
        on_block: Callable[[int], None] | None = None,
    ) -> Normaliser:
        """Take mean and standard deviation from the training clips; returns itself.

        `features` is one array of rows (rows, n_bins), as packed, or batches as the extractor gives them: (batch, 1, n_bins,
        frames), (batch, n_features) or (batch, samples). Summed in float64 and merged block by block (Chan, Golub and LeVeque,
        1983), so that neither size nor offset of the values costs accuracy. A band that never changes keeps a deviation of 1.

        `on_block` is called before each block with the number of blocks done; what it raises is raised.
        """
        if self.mode in ("none", "imagenet"):
            return self
        count, mean, square = 0, torch.zeros(()), torch.zeros(())
        for done, block in enumerate(self._blocks(features)):
            if on_block:
                on_block(done)
            n = block.shape[0] if self.mode in _BY_COLUMN else block.numel()
            if n == 0:
                continue
            over = (0,) if self.mode in _BY_COLUMN else (0, 1)
            var, m = torch.var_mean(block, dim=over, correction=0)
            if count == 0:
                count, mean, square = n, m, var * n
                continue
            delta, total = m - mean, count + n
            mean = mean + delta * (n / total)
            square = square + var * n + delta.square() * (count * n / total)
            count = total
        if count == 0:
            raise ValueError("no features to take a mean of")
        std = (square / count).sqrt()
        constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.std.copy_(torch.where(constant, torch.ones_like(std), std).reshape(self.std.shape))
        return self

    @staticmethod
    def count_blocks(features: Tensor | np.ndarray) -> int:
        """Return the number of blocks that `fit` takes one array of features in."""
        return -(-len(features) // _rows_per_block(features))

    def _blocks(self, features: Tensor | np.ndarray | Iterable[Tensor | np.ndarray]) -> Iterator[Tensor]:
        """Return float64 rows (rows, n_bins) on the CPU, some megabytes at a time."""
        for part in [features] if isinstance(features, (Tensor, np.ndarray)) else features:
            step = _rows_per_block(part)
            for start in range(0, len(part), step):
                block = part[start : start + step]
                rows = block.cpu().double() if isinstance(block, Tensor) else torch.from_numpy(block.astype(np.float64))
                if rows.dim() == 4:
                    rows = rows[:, 0].transpose(1, 2).reshape(-1, rows.shape[2])
                elif self.domain == "waveform":
                    rows = rows.reshape(-1, 1)
                if rows.dim() != 2 or rows.shape[1] != self.n_bins:
                    raise ValueError(f"expected rows of {self.n_bins} values, got {tuple(part.shape)}")
                yield rows


def _rows_per_block(part: Tensor | np.ndarray) -> int:
    return max(1, (1 << 20) // max(1, math.prod(part.shape[1:])))
