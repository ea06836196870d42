"""Stretching and pitch shifting of spectrograms, (batch, 1, n_bins, frames), by interpolation: cheap beside waveforms'."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, Range, chosen, uniform
from audio_cls.components.interpolation import interpolate, tempo_places

__all__ = ["Warp"]


def _positive(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError(f"factors above 0 are allowed, found {value[0]:g}")
    return value


Factors = Annotated[Range, AfterValidator(_positive)]


class Warp(Augmentation, kind="warp"):
    """Stretch a spectrogram along time, scale and shift it along frequency, by linear interpolation; on mel bands nearly a change of tempo and pitch.

    Frequency scaling as in vocal tract length perturbation (Jaitly and Hinton, ICML workshop 2013), around the middle bin. Time is
    circular: what a faster clip lacks is filled with its beginning. Bins beyond the lowest and highest repeat these. One
    interpolation of each spectrogram, without the Fourier transforms of `time_stretch` and `pitch_shift`, which change waveforms.
    """

    domain: ClassVar[str] = "spectrogram"
    needs_bands: ClassVar[bool] = True
    order: ClassVar[int] = 15

    rate: Factors = (0.83, 1.2)
    """Lowest and highest tempo; above 1 is faster. Drawn uniformly over its logarithm."""
    scale: Factors = (0.94, 1.06)
    """Lowest and highest factor of frequency, in bins from the middle one; above 1 spreads the bins."""
    shift: Range = (-0.04, 0.04)
    """Lowest and highest shift along frequency, as a share of the bins; above 0 is higher."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        rates, scales = (torch.tensor(r).log().tolist() for r in (self.rate, self.scale))

        def warp(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, _, bins, frames = x.shape
            rate = uniform(rates[0], rates[1], (batch, 1), generator).exp()
            scale = uniform(scales[0], scales[1], (batch, 1), generator).exp()
            shift = uniform(*self.shift, (batch, 1), generator) * bins
            changed = chosen(self.p, batch, generator).to(x.device)[:, None, None, None]
            time = tempo_places(frames, rate)
            middle = (bins - 1) / 2
            frequency = ((torch.arange(bins) - shift - middle) / scale + middle).clamp(0, bins - 1)
            out = interpolate(x, time.to(x.device), 3, circular=True)
            out = interpolate(out, frequency.to(x.device), 2, circular=False)
            return torch.where(changed, out, x)

        return warp
