"""Random filtering of waveforms, (batch, samples)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, Range, chosen, uniform

__all__ = ["Equalizer"]

_LOWEST_HZ = 60.0
_RINGING_SECONDS = 0.05  # of silence after the clip, so that its end does not ring into its beginning


class Equalizer(Augmentation, kind="equalizer"):
    """Filter with a random curve: gains drawn uniformly from `db` at `bands` frequencies, evenly spaced in octaves, linear in dB between.

    As another microphone, distance or room would. The filter has zero phase, so nothing moves in time.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 15

    db: Range = (-6.0, 6.0)
    """Lowest and highest gain in dB."""
    bands: int = Field(default=6, ge=2, le=64)
    """Frequencies at which gains are drawn, from 60 Hz to half the sample rate."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        from scipy.fft import next_fast_len  # loading it takes a third of a second

        weights: dict[tuple[int, torch.device], Tensor] = {}

        def filtered(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, samples = x.shape
            db = uniform(*self.db, (batch, self.bands), generator)
            rows = chosen(self.p, batch, generator).nonzero().flatten()
            if len(rows) == 0:
                return x
            n_fft = next_fast_len(samples + round(_RINGING_SECONDS * sample_rate), real=True)
            if (n_fft, x.device) not in weights:
                weights[n_fft, x.device] = _curves(n_fft, sample_rate, self.bands).to(x.device)
            where = rows.to(x.device)
            gain = 10 ** (db[rows].to(x.device) @ weights[n_fft, x.device] / 20)
            spectrum = torch.fft.rfft(x[where].float(), n_fft) * gain
            return x.index_copy(0, where, torch.fft.irfft(spectrum, n_fft)[:, :samples].to(x.dtype))

        return filtered


def _curves(n_fft: int, sample_rate: int, bands: int) -> Tensor:
    """Return the share of each band's gain at each bin of a Fourier transform, (bands, n_fft // 2 + 1); each bin's add up to 1."""
    top = sample_rate / 2
    octave = np.log2(np.fft.rfftfreq(n_fft, 1 / sample_rate).clip(min(_LOWEST_HZ, top / 2), top))
    at = np.linspace(octave[0], octave[-1], bands)
    curves = [np.interp(octave, at, row) for row in np.eye(bands)]
    return torch.from_numpy(np.stack(curves).astype(np.float32))
