"""Augmentations of the tempo and the pitch of waveforms, (batch, samples): length, beginning and level stay."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional
from torchaudio.transforms import Resample

from audio_cls.components.augment.base import Augmentation, Augmenter, Range, chosen, uniform
from audio_cls.components.augment.vocoder import stretch, window_length

__all__ = ["PitchShift", "Speed", "TimeStretch"]

_FACTORS = 16  # by which clips are resampled: those that share one go together
_LARGEST_DENOMINATOR = 100  # of such a factor; pitch is then true to 0.06 semitones


def _within(low: float, high: float, what: str) -> AfterValidator:
    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(f"{what} from {low:g} to {high:g} are allowed")
        return value

    return AfterValidator(check)


Rates = Annotated[Range, _within(0.5, 2.0, "rates")]


class TimeStretch(Augmentation, kind="time_stretch"):
    """Faster or slower at the same pitch, by a rate drawn uniformly from `rate`: a phase vocoder with phase locking.

    The beginning stays. The end of a slower clip is cut off, and a faster one ends in silence. `augment.time_shift` comes after
    it and moves both.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 5

    rate: Rates = (0.8, 1.2)
    """Lowest and highest rate, 0.5 to 2; above 1 is faster."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        n_fft = window_length(sample_rate)

        def change(x: Tensor, generator: torch.Generator, /) -> Tensor:
            batch = len(x)
            rates = uniform(*self.rate, (batch,), generator)
            rows = chosen(self.p, batch, generator).nonzero().flatten()
            if len(rows) == 0:
                return x
            where = rows.to(x.device)
            return x.index_copy(0, where, stretch(x[where], rates[rows], n_fft))

        return change


class PitchShift(Augmentation, kind="pitch_shift"):
    """Higher or lower at the same tempo, by semitones drawn uniformly from 16 steps of `semitones`.

    Clips are resampled, those of one step together, then stretched back to their length as by `TimeStretch`.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 6

    semitones: Annotated[Range, _within(-12, 12, "semitones")] = (-2.0, 2.0)
    """Lowest and highest shift in semitones, -12 to 12."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        n_fft = window_length(sample_rate)
        resampler = _Resampler([2 ** (step / 12) for step in _steps(*self.semitones)])

        def change(x: Tensor, generator: torch.Generator, /) -> Tensor:
            rows, step = resampler.draw(self.p, len(x), generator)
            if len(rows) == 0:
                return x
            where = rows.to(x.device)
            played = resampler(x[where], step)
            return x.index_copy(0, where, stretch(played, 1 / resampler.rates[step], n_fft, x.shape[1]))

        return change


class Speed(Augmentation, kind="speed"):
    """Played faster and higher, or slower and lower, by a rate from 16 steps of `rate`, evenly spread over its logarithm.

    The scale augmentation of EnvNet-v2 (Tokozume et al., ICLR 2018), much cheaper than a stretch. The beginning stays. The end
    of a slower clip is cut off, and a faster one ends in silence.
    """

    domain: ClassVar[str] = "waveform"
    order: ClassVar[int] = 4

    rate: Rates = (0.8, 1.25)
    """Lowest and highest rate, 0.5 to 2; above 1 is faster and higher."""
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a clip is changed."""

    def build(self, sample_rate: int, hop_length: int) -> Augmenter:
        low, high = (float(torch.tensor(rate, dtype=torch.float64).log2()) for rate in self.rate)
        resampler = _Resampler([2**step for step in _steps(low, high)])

        def change(x: Tensor, generator: torch.Generator, /) -> Tensor:
            rows, step = resampler.draw(self.p, len(x), generator)
            if len(rows) == 0:
                return x
            where = rows.to(x.device)
            played = resampler(x[where], step, x.shape[1])
            return x.index_copy(0, where, played)

        return change


def _steps(low: float, high: float) -> list[float]:
    """Return the middles of equal parts of a range."""
    return [low + (part + 0.5) * (high - low) / _FACTORS for part in range(_FACTORS)]


class _Resampler:
    """Play waveforms at one of a few rates, by band-limited interpolation.

    Attributes:
        rates: (n,) float64 on the CPU, as near to those asked for as their fractions come.
    """

    def __init__(self, rates: list[float]) -> None:
        factors = [Fraction(rate).limit_denominator(_LARGEST_DENOMINATOR) for rate in rates]
        self.rates = torch.tensor([float(factor) for factor in factors], dtype=torch.float64)
        self._filters = {
            step: Resample(factor.numerator, factor.denominator) for step, factor in enumerate(factors) if factor != 1
        }

    def draw(self, p: float, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the rows of the clips that are changed, and the number of the rate of each; on the CPU."""
        step = torch.randint(len(self.rates), (batch,), generator=generator)
        changed = chosen(p, batch, generator) & (self.rates[step] != 1)
        rows = changed.nonzero().flatten()
        return rows, step[rows]

    def __call__(self, x: Tensor, step: Tensor, samples: int | None = None) -> Tensor:
        """Return clips (batch, n) each played at the rate of its number `step`, (batch,) on the CPU.

        All are filled up with silence to the longest of them, or cut and filled up to `samples`.
        """
        if samples is None:
            samples = int((x.shape[1] / self.rates[step]).ceil().max())
        out = x.new_zeros(len(x), samples)
        for number in step.unique().tolist():
            rows = (step == number).nonzero().flatten().to(x.device)
            played = self._filters[number].to(x.device)(x[rows].float())[:, :samples]
            out[rows] = functional.pad(played, (0, samples - played.shape[1])).to(x.dtype)
        return out
