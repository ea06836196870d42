"""Mixing the waveforms of a batch with each other, (batch, samples), and their targets likewise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Mixer, Stage, spread
from audio_cls.components.augment.mix import beta_shares

__all__ = ["BetweenClass", "sound_level"]

_QUIETEST_DB = -80.0
_CPU_CHUNK = 2  # clips whose levels are computed together
_WINDOW_SECONDS = 0.1


class BetweenClass(Augmentation, kind="between_class"):
    """Mix the waveforms of two clips of different classes so that their loudness stands in the ratio of their targets.

    Tokozume, Ushiku and Harada, "Learning from Between-Class Examples for Deep Sound Recognition", ICLR 2018. With r drawn for each
    clip and A-weighted levels G1 and G2 in dB, the targets are r t1 + (1 - r) t2 and the waveform is (p x1 + (1 - p) x2) /
    sqrt(p^2 + (1 - p)^2), p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r). A clip stays alone where the batch has no other class.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 90

    alpha: float = Field(default=1.0, gt=0)
    """Of the Beta(alpha, alpha) from which r is drawn; 1 is uniform, as in the paper."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    @property
    def stage(self) -> Stage:
        return "waveform_mix"

    def build(self, sample_rate: int, hop_length: int) -> Mixer:
        def mix(x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
            batch = len(x)
            scores = torch.rand(batch, batch, generator=generator)
            share = beta_shares(self.alpha, self.p, batch, generator).to(x.device)
            partner, found = _partners(y, scores.to(x.device))
            share = torch.where(found, share, torch.ones_like(share))
            level = sound_level(x, sample_rate)
            ratio = 10 ** ((level - level[partner]) / 20)
            weight = 1 / (1 + ratio * (1 - share) / share)
            weight = spread(weight, x.float())
            mixed = (weight * x + (1 - weight) * x[partner]) / (weight.square() + (1 - weight).square()).sqrt()
            return mixed.to(x.dtype), torch.lerp(y[partner], y, spread(share, y))

        return mix


def _partners(y: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each clip the clip of other targets with the highest score, and whether there is one; both (batch,)."""
    weights = torch.arange(1, y.shape[1] + 1, device=y.device, dtype=torch.float64).sqrt()
    code = (y * weights).sum(1)  # equal for equal targets only
    scores = scores.masked_fill(code[:, None] == code[None], -1.0)
    best, partner = scores.max(1)
    return partner, best >= 0


def sound_level(x: Tensor, sample_rate: int) -> Tensor:
    """Return the A-weighted level of the loudest 0.1 s of each waveform (batch, samples), in dB of full scale, at least -80; (batch,)."""
    n_fft = max(16, 1 << round(math.log2(_WINDOW_SECONDS * sample_rate)))
    window = torch.hann_window(n_fft, device=x.device)
    weights = _a_weighting(n_fft, sample_rate, x.device) * (2 / (n_fft * window.square().sum()))
    x = torch.nn.functional.pad(x.float(), (0, max(0, n_fft - x.shape[1])))
    loudest = []
    for part in x.split(_CPU_CHUNK if x.device.type == "cpu" else len(x)):  # what stays in the cache is faster
        spectrum = torch.fft.rfft(part.unfold(1, n_fft, n_fft // 2) * window)
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)  # (part, frames, bins)
        loudest.append((power @ weights).amax(1))
    return 10 * torch.cat(loudest).clamp_min(10 ** (_QUIETEST_DB / 10)).log10()


def _a_weighting(n_fft: int, sample_rate: int, device: torch.device) -> Tensor:
    """Return the power gain of A-weighting (IEC 61672-1) at each bin of a Fourier transform, (n_fft // 2 + 1,)."""
    f2 = torch.fft.rfftfreq(n_fft, 1 / sample_rate, dtype=torch.float64).square()
    gain = (12194**2 * f2.square()) / ((f2 + 20.6**2) * ((f2 + 107.7**2) * (f2 + 737.9**2)).sqrt() * (f2 + 12194**2))
    return (gain * 10 ** (2 / 20)).square().to(device, torch.float32)
