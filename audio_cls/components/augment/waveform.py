"""Augmentations of waveforms, (batch, samples). Peaks may pass 1 afterwards: nothing downstream needs the bound."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, Range, chosen, device_generator, uniform

__all__ = ["Gain", "Noise", "TimeShift"]


class TimeShift(Augmentation, kind="time_shift"):
    """Shift by up to `max_seconds` either way: what leaves at one end comes in at the other, or silence does (`fill`)."""

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 10

    max_seconds: float = Field(default=0.5, gt=0)
    """Largest shift in seconds."""
    fill: Literal["circular", "zero"] = "circular"
    """What enters at the other end: the samples that left, or silence."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        furthest = max(1, round(self.max_seconds * sample_rate))

        def shift(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, samples = x.shape
            most = min(furthest, samples - 1)
            by = torch.randint(-most, most + 1, (batch, 1), generator=generator)
            by = by * chosen(self.p, batch, generator)[:, None]
            source = torch.arange(samples, device=x.device) - by.to(x.device)
            shifted = x.gather(1, source.remainder(samples))
            if self.fill == "zero":
                shifted.mul_((source >= 0) & (source < samples))
            return shifted

        return shift


class Gain(Augmentation, kind="gain"):
    """Louder or softer by a gain drawn uniformly from `db` (decibels)."""

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 20

    db: Range = (-6.0, 6.0)
    """Lowest and highest gain in dB."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        def gain(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch = len(x)
            db = uniform(*self.db, (batch, 1), generator)
            factor = 10 ** (db * chosen(self.p, batch, generator)[:, None] / 20)
            return x * factor.to(x.device, x.dtype)

        return gain


class Noise(Augmentation, kind="noise"):
    """White Gaussian noise, at a signal-to-noise ratio drawn from `snr_db` (decibels, over the whole clip).

    With `amplitude` the standard deviation of the noise is drawn from that range instead, whatever the clip's level. A silent
    clip has no ratio and stays silent unless `amplitude` is given.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 30

    snr_db: Range = (10.0, 30.0)
    """Lowest and highest signal-to-noise ratio in dB."""
    amplitude: Range | None = None
    """Lowest and highest standard deviation of the noise, instead of snr_db."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        def noise(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, samples = x.shape
            level = uniform(*(self.snr_db if self.amplitude is None else self.amplitude), (batch, 1), generator)
            rows = chosen(self.p, batch, generator).nonzero().flatten()
            random = device_generator(x.device, generator)
            if len(rows) == 0:
                return x
            scale, where = level[rows].to(x.device), rows.to(x.device)
            if self.amplitude is None:
                rms = x[where].float().square().mean(1, keepdim=True).sqrt()
                scale = rms * 10 ** (-scale / 20)
            drawn = torch.randn(
                len(rows), samples, generator=random, device=x.device
            )  # only where it is wanted: costly
            return x.index_add(0, where, (drawn * scale).to(x.dtype))

        return noise
