"""Feature extractors: from a batch of waveforms to log-mel bands, cepstra or themselves, on the device of the batch.

A `Features` config builds a `FeatureExtractor` for one sample rate; what it gives is not normalised. A `Normaliser` fitted on
the training clips stands between the features and the model, and is saved with the model.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torchaudio.functional as taf
from pydantic import Field
from torch import Tensor

from audio_cls.components.extractors import (
    FeatureExtractor,
    LogMelExtractor,
    MfccExtractor,
    StatisticsExtractor,
    WaveformExtractor,
)
from audio_cls.components.normaliser import Normalisation, Normaliser
from audio_cls.core.auto import AUTO, OrAuto, known
from audio_cls.core.config import Component, ConfigError

if TYPE_CHECKING:
    from audio_cls.core.payload import Payload

__all__ = [
    "FeatureExtractor",
    "Features",
    "LogMel",
    "Mfcc",
    "MfccStatistics",
    "Normalisation",
    "Normaliser",
    "Waveform",
]

_LONGEST_WINDOW = 0.064  # seconds of `n_fft` at most, unless more bands ask for more
_FEWEST_FRAMES = 48  # of a window: three after the four poolings of `cnn4`
_LONG_CLIP = 5.0  # seconds: of a clip that is long enough for the usual hop


class Features(Component, family=True):
    """What a model sees of a clip.

    `normalise` says over what mean and standard deviation are taken on the training clips: each `band` by itself, all values
    together (`global`), or not at all (`none`).
    """

    input_domain: ClassVar[str] = "waveform"
    output_domain: ClassVar[str] = "spectrogram"
    framewise: ClassVar[bool] = True  # the output has a time axis that can be cropped
    rows_are_bands: ClassVar[bool] = True  # the rows of a spectrogram are frequency bands in order

    normalise: Normalisation = "band"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    def fitted(self, sample_rate: int, clip_seconds: float, top_hz: float | None = None) -> Self:
        """Return a copy in which nothing is left to the data. Features without such settings are returned as they are.

        Args:
            sample_rate: of the waveforms, in Hz.
            clip_seconds: of the window that a model sees.
            top_hz: where the signal ends, when that is below half the sample rate.
        """
        return self

    @abstractmethod
    def build(self, sample_rate: int) -> FeatureExtractor:
        """Return an extractor for waveforms of `sample_rate` Hz.

        Raises:
            ConfigError: for settings that cannot be met at this rate.
        """
        raise NotImplementedError

    def build_for(self, payload: Payload) -> FeatureExtractor:
        """Return an extractor for the rows of a corpus: by `build`, for waveforms.

        Raises:
            ConfigError: for settings that cannot be met with these rows.
        """
        return self.build(int(payload.rate))


class _Mel(Features):
    """The settings that everything on the mel scale shares. Lengths are in samples, frequencies in Hz.

    What is "auto" follows the data, see `fitted`.
    """

    n_fft: OrAuto[Annotated[int, Field(ge=16)]] = AUTO
    """Length of the Fourier transform in samples; auto is 32 to 64 ms."""
    hop_length: OrAuto[Annotated[int, Field(ge=1)]] = AUTO
    """Samples from one frame to the next; auto is a quarter of the window, less for short clips."""
    win_length: int | None = Field(default=None, ge=1)
    """Length of the window in samples; none is n_fft."""
    n_mels: int = Field(default=64, ge=1)
    """Mel bands."""
    f_min: float = Field(default=0.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    f_max: OrAuto[Annotated[float, Field(gt=0)] | None] = AUTO
    """Upper edge of the highest band in Hz; none is half the sample rate, auto where the original files end."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """Formula of the mel scale."""
    mel_norm: Literal["none", "slaney"] = "none"
    """Whether filters have equal area (slaney) or equal height (none)."""
    floor: float = Field(default=1e-10, gt=0)
    """Smallest power before the logarithm."""
    top_db: float | None = Field(default=None, gt=0)
    """Range below the loudest value of a clip in dB; none does not limit it."""

    def fitted(self, sample_rate: int, clip_seconds: float, top_hz: float | None = None) -> Self:
        """Return a copy in which nothing is left to the data.

        `f_max` is `top_hz`, or None (half the sample rate). `n_fft` is 32 to 64 ms, longer where `n_mels` bands would otherwise
        fall between its bins. `hop_length` is a quarter of the window (16 ms at 16 kHz), shorter where `clip_seconds` would
        otherwise give fewer than `_FEWEST_FRAMES` frames, but never below 1 ms.
        """
        whole = self.model_copy(update={"f_max": top_hz if self.f_max == AUTO else self.f_max})
        n_fft = whole._default_n_fft(sample_rate) if self.n_fft == AUTO else self.n_fft
        hop = whole._default_hop(n_fft, sample_rate, clip_seconds) if self.hop_length == AUTO else self.hop_length
        return whole.model_copy(update={"n_fft": n_fft, "hop_length": hop})

    def _default_hop(self, n_fft: int, sample_rate: int, clip_seconds: float) -> int:
        """Return a quarter of the window, halved until a clip has enough frames."""
        hop, shortest = max(1, (self.win_length or n_fft) // 4), max(1, sample_rate // 1000)
        while round(clip_seconds * sample_rate) // hop < _FEWEST_FRAMES and hop // 2 >= shortest:
            hop //= 2
        return hop

    def _default_n_fft(self, sample_rate: int) -> int:
        """Return the power of two of 32 to 64 ms, or the next one that holds the window, the hop and a bin for
        each band.
        """
        n_fft = 16
        while 2 * n_fft <= _LONGEST_WINDOW * sample_rate:
            n_fft *= 2
        hop = 0 if self.hop_length == AUTO else self.hop_length
        while n_fft < (self.win_length or hop):
            n_fft *= 2
        f_max = self._f_max(sample_rate)
        if not self.f_min < f_max <= sample_rate / 2:
            return n_fft  # refused when it is built
        enough = n_fft
        while self._empty(enough, sample_rate, self.n_mels) and enough < 1 << 15:
            enough *= 2
        return n_fft if self._empty(enough, sample_rate, self.n_mels) else enough

    def _f_max(self, sample_rate: int) -> float:
        f_max = known(self.f_max, "features.f_max")
        return sample_rate / 2 if f_max is None else f_max

    def _log_mel(self, sample_rate: int) -> LogMelExtractor:
        whole = self.fitted(sample_rate, clip_seconds=_LONG_CLIP)
        n_fft, hop_length = known(whole.n_fft, "features.n_fft"), known(whole.hop_length, "features.hop_length")
        window = self.win_length if self.win_length is not None else n_fft
        if window > n_fft:
            raise ConfigError(f"features.win_length={window}: a window is at most n_fft={n_fft} samples long")
        if hop_length > window:
            raise ConfigError(
                f"features.hop_length={hop_length}: longer than the window of {window} samples, what lies between two "
                f"frames would never be seen. Allowed: 1 to {window}"
            )
        return LogMelExtractor(n_fft, hop_length, window, whole._filters(n_fft, sample_rate), whole.floor, whole.top_db)

    def _filters(self, n_fft: int, sample_rate: int) -> Tensor:
        """Triangular mel filters (n_mels, n_fft // 2 + 1), each of them with at least one bin."""
        nyquist, f_max = sample_rate / 2, self._f_max(sample_rate)
        if f_max > nyquist:
            raise ConfigError(
                f"features.f_max={f_max:g}: a signal of {sample_rate} Hz ends at {nyquist:g} Hz. Allowed: up to {nyquist:g}, or none"
            )
        if self.f_min >= f_max:
            raise ConfigError(f"features.f_min={self.f_min:g}: must lie below f_max={f_max:g} Hz")
        empty = self._empty(n_fft, sample_rate, self.n_mels)
        if empty:
            most = next((n for n in range(self.n_mels - 1, 0, -1) if not self._empty(n_fft, sample_rate, n)), 0)
            raise ConfigError(
                f"features.n_mels={self.n_mels}: {len(empty)} filters (the first is number {empty[0]}) fall between the bins of "
                f"n_fft={n_fft} at {sample_rate} Hz, {sample_rate / n_fft:.1f} Hz apart, and would always be silent. "
                f"Allowed here: up to {most} bands, or a larger n_fft"
            )
        return self._bank(n_fft, sample_rate, self.n_mels)

    def _empty(self, n_fft: int, sample_rate: int, n_mels: int) -> list[int]:
        """Return the bands that hold no bin of the spectrum."""
        return (self._bank(n_fft, sample_rate, n_mels).amax(1) <= 0).nonzero().flatten().tolist()

    def _bank(self, n_fft: int, sample_rate: int, n_mels: int) -> Tensor:
        norm, top = "slaney" if self.mel_norm == "slaney" else None, self._f_max(sample_rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice on empty filters: `_filters` says it with numbers
            bank = taf.melscale_fbanks(n_fft // 2 + 1, self.f_min, top, n_mels, sample_rate, norm, self.mel_scale)
        return bank.T.contiguous()


class LogMel(_Mel, kind="log_mel"):
    """Log-mel power in decibels, (batch, 1, n_mels, frames).

    A Hann window, frames centred with reflected edges, 10 log10(max(power, floor)). With `top_db` nothing lies further than
    that below the loudest value of its clip.
    """

    def build(self, sample_rate: int) -> FeatureExtractor:
        return self._log_mel(sample_rate)


class Mfcc(_Mel, kind="mfcc"):
    """Mel-frequency cepstral coefficients, (batch, 1, n_mfcc, frames): the orthonormal DCT-II of the log-mel bands.

    Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", 1980.
    """

    rows_are_bands: ClassVar[bool] = False

    n_mfcc: int = Field(default=20, ge=1)
    """Cepstral coefficients."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return self._mfcc(sample_rate)

    def _mfcc(self, sample_rate: int) -> MfccExtractor:
        if self.n_mfcc > self.n_mels:
            raise ConfigError(
                f"features.n_mfcc={self.n_mfcc}: {self.n_mels} mel bands give at most {self.n_mels} coefficients"
            )
        return MfccExtractor(self._log_mel(sample_rate), self.n_mfcc)


class MfccStatistics(Mfcc, kind="mfcc_statistics"):
    """Mean and (population) standard deviation of each MFCC over the clip, (batch, 2 * n_mfcc): means first."""

    output_domain: ClassVar[str] = "embedding"
    framewise: ClassVar[bool] = False

    normalise: Normalisation = "none"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return StatisticsExtractor(self._mfcc(sample_rate))


class Waveform(Features, kind="waveform"):
    """The waveform itself, (batch, samples)."""

    output_domain: ClassVar[str] = "waveform"

    normalise: Normalisation = "none"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return WaveformExtractor()
