"""Random filtering of spectrograms, (batch, 1, n_bins, frames), as another recorder would: an offset of each band."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, Range, chosen, uniform

__all__ = ["BandGain"]


class BandGain(Augmentation, kind="band_gain"):
    """Add a random level and a random smooth curve over the bands to a log spectrogram: gain and filtering, at a thousandth of `equalizer`'s cost.

    A gain of a waveform is an offset of its log-mel bands, and a filter that is smooth over frequency one offset for each band. The
    curve is a sum of `curves` cosines over the bands, of half a period, one, one and a half, ...; the k-th has a normal weight of
    deviation `deviation` / sqrt(k). Values are in units of the normalised features (one is some 10 to 20 dB).
    """

    domain: ClassVar[str] = "spectrogram"
    needs_bands: ClassVar[bool] = True
    order: ClassVar[int] = 20

    level: Range = (-0.4, 0.4)
    """Lowest and highest offset of the whole clip, drawn uniformly."""
    deviation: float = Field(default=0.15, ge=0)
    """Standard deviation of the first cosine's weight."""
    curves: int = Field(default=4, ge=1, le=64)
    """Cosines over the bands."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        def filtered(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, _, bins, _ = x.shape
            k = torch.arange(1, self.curves + 1)[:, None]
            cosines = torch.cos(math.pi * k * (torch.arange(bins) + 0.5) / bins) / k.sqrt()  # (curves, bins)
            weights = torch.randn(batch, self.curves, generator=generator) * self.deviation
            offsets = weights @ cosines + uniform(*self.level, (batch, 1), generator)
            offsets *= chosen(self.p, batch, generator)[:, None]
            return x + offsets.to(x.device, x.dtype)[:, None, :, None]

        return filtered
