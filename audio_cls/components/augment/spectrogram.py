"""Augmentations of features with frames, after normalisation: spectrograms, pictures of them, sequences (batch, channels, n_bins, frames)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from audio_cls.components.augment.base import Augmentation, Augmenter, chosen

__all__ = ["Masks", "SpecAugment", "TimeRoll"]


class TimeRoll(Augmentation, kind="time_roll"):
    """Roll along time by up to `max_seconds` either way (none: by anything), what leaves at one end entering at the other."""

    domain: ClassVar[str] = "spectrogram"
    domains: ClassVar[tuple[str, ...]] = ("spectrogram", "sequence", "image")
    order: ClassVar[int] = 10

    max_seconds: float | None = Field(default=None, gt=0)
    """Largest roll in seconds; none is half the clip."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        furthest = None if self.max_seconds is None else max(1, round(self.max_seconds * sample_rate / hop_length))

        def roll(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch, frames = len(x), x.shape[-1]
            most = frames // 2 if furthest is None else min(furthest, frames // 2)
            by = torch.randint(-most, most + 1, (batch, 1), generator=generator)
            by = by * chosen(self.p, batch, generator)[:, None]
            source = (torch.arange(frames) - by).remainder_(frames).to(x.device)
            return x.gather(-1, source[:, None, None, :].expand(x.shape))

        return roll


class SpecAugment(Augmentation, kind="specaugment"):
    """Masks of random width and place over frames and bins, without time warping.

    Park et al., "SpecAugment", Interspeech 2019: each width is uniform on 0 ... `time_mask_frames` (`freq_mask_bins`), never more
    than half of the axis here, and each place uniform among those where the mask fits. Masks hold the training mean (`fill=zero`:
    it is 0 once features are normalised, and `Masks.centre` where they are not), or the `mean` of the clip itself. With several
    `layers` all this is done so often, each time with probability `p`.
    """

    domain: ClassVar[str] = "spectrogram"
    domains: ClassVar[tuple[str, ...]] = ("spectrogram", "sequence", "image")
    order: ClassVar[int] = 50
    added_fields = frozenset({"layers"})

    n_time_masks: int = Field(default=2, ge=0)
    """Masks over time."""
    time_mask_frames: int = Field(default=20, ge=0)
    """Widest mask over time in frames."""
    n_freq_masks: int = Field(default=2, ge=0)
    """Masks over frequency."""
    freq_mask_bins: int = Field(default=8, ge=0)
    """Widest mask over frequency in bands."""
    fill: Literal["zero", "mean"] = "zero"
    """What masks hold: the mean of the training clips, which is zero after normalisation, or the mean of the clip."""
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a clip is changed, in each layer."""
    layers: int = Field(default=1, ge=1, le=8)
    """How often masks are laid over a clip."""

    def build(self, sample_rate: int, hop_length: int) -> Masks:
        return Masks(self)


class Masks:
    """The augmenter of `SpecAugment`.

    Attributes:
        centre: the training mean of what it is given, (1, 1, n_bins, 1); None where that is 0, after normalisation.
    """

    centre: Tensor | None = None

    def __init__(self, config: SpecAugment) -> None:
        self.config = config

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        for _ in range(self.config.layers):
            x = self._layer(x, generator)
        return x

    def _layer(self, x: Tensor, generator: torch.Generator) -> Tensor:
        config, (batch, _, bins, frames) = self.config, x.shape
        time = _kept(frames, batch, config.n_time_masks, config.time_mask_frames, generator)
        freq = _kept(bins, batch, config.n_freq_masks, config.freq_mask_bins, generator)
        spared = ~chosen(config.p, batch, generator)[:, None]
        time = (time | spared).to(x.device)[:, None, None, :]
        freq = (freq | spared).to(x.device)[:, None, :, None]
        if config.fill == "mean":
            return torch.where(time & freq, x, x.mean((1, 2, 3), keepdim=True))
        if self.centre is not None:
            return torch.where(time & freq, x, self.centre.to(x))
        return (x * time.to(x.dtype)).mul_(freq.to(x.dtype))


def _kept(length: int, batch: int, n_masks: int, widest: int, generator: torch.Generator) -> Tensor:
    """Return what the masks of one axis leave, (batch, length) bool on the CPU."""
    widest = min(widest, length // 2)
    draws = torch.rand(2, batch, n_masks, 1, generator=generator)
    width = (draws[0] * (widest + 1)).long().clamp_(max=widest)
    start = (draws[1] * (length - width + 1)).long().minimum(length - width)
    place = torch.arange(length)
    return ((place < start) | (place >= start + width)).all(1)
