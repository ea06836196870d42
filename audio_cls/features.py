"""Feature extractors: from a batch of waveforms to log-mel bands, cepstra or themselves, on the device of the batch.

A `Features` config builds a `FeatureExtractor` for one sample rate; what it gives is not normalised. A `Normaliser` fitted on
the training clips stands between the features and the model, and is saved with the model.
"""

from __future__ import annotations

import itertools
import warnings
from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
import torchaudio.functional as taf
from pydantic import Field
from torch import Tensor, nn

from audio_cls.config import Component, ConfigError
from audio_cls.normaliser import Normalisation, Normaliser

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

# One chunk of complex STFT bins: on a CPU what stays in the cache (measured: larger is slower), elsewhere what fits in memory.
_CPU_CHUNK_BINS = 1 << 18
_DEVICE_CHUNK_BINS = 1 << 28
_BAND_GROUPS = 8  # a mel filter spans few bins: filters are applied in groups, each to the bins it can see


class FeatureExtractor(nn.Module):
    """Waveforms (batch, samples) to features; no gradient flows back to the waveform.

    Attributes:
        hop_length: samples between two frames.
        n_bins: rows of a framewise feature, or the length of the vector.
    """

    def __init__(self, hop_length: int, n_bins: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.n_bins = n_bins

    def frames(self, n_samples: int) -> int:
        """How many frames `n_samples` samples give: frames are centred on multiples of the hop, the first on sample 0."""
        return n_samples // self.hop_length + 1


class Features(Component, family=True):
    """What a model sees of a clip.

    `normalise` says over what mean and standard deviation are taken on the training clips: each `band` by itself, all values
    together (`global`), or not at all (`none`).
    """

    input_domain: ClassVar[str] = "waveform"
    output_domain: ClassVar[str] = "spectrogram"
    framewise: ClassVar[bool] = True  # the output has a time axis that can be cropped

    normalise: Normalisation = "band"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    @abstractmethod
    def build(self, sample_rate: int) -> FeatureExtractor:
        """An extractor for waveforms of `sample_rate` Hz.

        Raises:
            ConfigError: for settings that cannot be met at this rate.
        """
        raise NotImplementedError


class _Mel(Features):
    """The settings that everything on the mel scale shares. Lengths are in samples, frequencies in Hz."""

    n_fft: int = Field(default=1024, ge=16)
    """Length of the Fourier transform in samples."""
    hop_length: int = Field(default=256, ge=1)
    """Samples from one frame to the next."""
    win_length: int | None = Field(default=None, ge=1)
    """Length of the window in samples; none is n_fft."""
    n_mels: int = Field(default=64, ge=1)
    """Mel bands."""
    f_min: float = Field(default=0.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    f_max: float | None = Field(default=None, gt=0)
    """Upper edge of the highest band in Hz; none is half the sample rate."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """Formula of the mel scale."""
    mel_norm: Literal["none", "slaney"] = "none"
    """Whether filters have equal area (slaney) or equal height (none)."""
    floor: float = Field(default=1e-10, gt=0)
    """Smallest power before the logarithm."""
    top_db: float | None = Field(default=None, gt=0)
    """Range below the loudest value of a clip in dB; none does not limit it."""

    def _log_mel(self, sample_rate: int) -> _LogMelExtractor:
        window = self.win_length if self.win_length is not None else self.n_fft
        if window > self.n_fft:
            raise ConfigError(f"features.win_length={window}: a window is at most n_fft={self.n_fft} samples long")
        if self.hop_length > window:
            raise ConfigError(
                f"features.hop_length={self.hop_length}: longer than the window of {window} samples, what lies between two "
                f"frames would never be seen. Allowed: 1 to {window}"
            )
        return _LogMelExtractor(self, window, self._filters(sample_rate))

    def _filters(self, sample_rate: int) -> Tensor:
        """Triangular mel filters (n_mels, n_fft // 2 + 1), each of them with at least one bin."""
        nyquist = sample_rate / 2
        f_max = nyquist if self.f_max is None else self.f_max
        if f_max > nyquist:
            raise ConfigError(
                f"features.f_max={f_max:g}: a signal of {sample_rate} Hz ends at {nyquist:g} Hz. Allowed: up to {nyquist:g}, or none"
            )
        if self.f_min >= f_max:
            raise ConfigError(f"features.f_min={self.f_min:g}: must lie below f_max={f_max:g} Hz")

        def bank(n_mels: int) -> Tensor:
            norm = "slaney" if self.mel_norm == "slaney" else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its advice on empty filters: said below, with numbers
                bins = self.n_fft // 2 + 1
                return taf.melscale_fbanks(
                    bins, self.f_min, f_max, n_mels, sample_rate, norm, self.mel_scale
                ).T.contiguous()

        filters = bank(self.n_mels)
        empty = (filters.amax(1) <= 0).nonzero().flatten().tolist()
        if empty:
            most = next((n for n in range(self.n_mels - 1, 0, -1) if bool((bank(n).amax(1) > 0).all())), 0)
            raise ConfigError(
                f"features.n_mels={self.n_mels}: {len(empty)} filters (the first is number {empty[0]}) fall between the bins of "
                f"n_fft={self.n_fft} at {sample_rate} Hz, {sample_rate / self.n_fft:.1f} Hz apart, and would always be silent. "
                f"Allowed here: up to {most} bands, or a larger n_fft"
            )
        return filters


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

    n_mfcc: int = Field(default=20, ge=1)
    """Cepstral coefficients."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return self._mfcc(sample_rate)

    def _mfcc(self, sample_rate: int) -> _MfccExtractor:
        if self.n_mfcc > self.n_mels:
            raise ConfigError(
                f"features.n_mfcc={self.n_mfcc}: {self.n_mels} mel bands give at most {self.n_mels} coefficients"
            )
        return _MfccExtractor(self._log_mel(sample_rate), self.n_mfcc)


class MfccStatistics(Mfcc, kind="mfcc_statistics"):
    """Mean and (population) standard deviation of each MFCC over the clip, (batch, 2 * n_mfcc): means first."""

    output_domain: ClassVar[str] = "embedding"
    framewise: ClassVar[bool] = False

    normalise: Normalisation = "none"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return _StatisticsExtractor(self._mfcc(sample_rate))


class Waveform(Features, kind="waveform"):
    """The waveform itself, (batch, samples)."""

    output_domain: ClassVar[str] = "waveform"

    normalise: Normalisation = "none"
    """Subtract mean and divide by standard deviation of the training clips: by band, over all values, or not at all."""

    def build(self, sample_rate: int) -> FeatureExtractor:
        return _Identity()


# -- extractors ---------------------------------------------------------------------------------------------------


class _Identity(FeatureExtractor):
    def __init__(self) -> None:
        super().__init__(hop_length=1, n_bins=1)

    def frames(self, n_samples: int) -> int:
        return n_samples

    def forward(self, waveform: Tensor) -> Tensor:
        return _batch_of_waveforms(waveform)


class _LogMelExtractor(FeatureExtractor):
    filters: Tensor
    window: Tensor

    def __init__(self, config: _Mel, win_length: int, filters: Tensor) -> None:
        super().__init__(config.hop_length, config.n_mels)
        self.n_fft, self.win_length = config.n_fft, win_length
        self.floor, self.top_db = config.floor, config.top_db
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        self._groups = _band_groups(filters)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        waveform = _batch_of_waveforms(waveform)
        batch, samples = waveform.shape
        frames = self.frames(samples)
        out = waveform.new_empty(batch, self.n_bins, frames)
        budget = _CPU_CHUNK_BINS if waveform.device.type == "cpu" else _DEVICE_CHUNK_BINS
        chunk = max(1, budget // (frames * self.filters.shape[1]))
        with torch.autocast(waveform.device.type, enabled=False):
            for start in range(0, batch, chunk):
                self._mel_power(waveform[start : start + chunk], out[start : start + chunk])
            out.clamp_(min=self.floor).log10_().mul_(10)
            if self.top_db is not None:
                out = torch.maximum(out, out.amax((1, 2), keepdim=True) - self.top_db)
        return out.unsqueeze(1)

    def _mel_power(self, waveform: Tensor, out: Tensor) -> None:
        reflectable = waveform.shape[1] > self.n_fft // 2  # a shorter clip has nothing to reflect: silence around it
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            pad_mode="reflect" if reflectable else "constant",
            return_complex=True,
        )
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)  # (chunk, bins, frames)
        if waveform.device.type != "cpu":
            torch.matmul(self.filters, power, out=out)
            return
        for clip, mel in zip(
            power, out, strict=True
        ):  # one product a clip: its result does not depend on its neighbours
            for first, last, low, high in self._groups:
                torch.mm(self.filters[first:last, low:high], clip[low:high], out=mel[first:last])


class _MfccExtractor(FeatureExtractor):
    dct: Tensor

    def __init__(self, log_mel: _LogMelExtractor, n_mfcc: int) -> None:
        super().__init__(log_mel.hop_length, n_mfcc)
        self.log_mel = log_mel
        self.register_buffer(
            "dct", taf.create_dct(n_mfcc, log_mel.n_bins, norm="ortho").T.contiguous(), persistent=False
        )

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        bands = self.log_mel(waveform)  # (batch, 1, n_mels, frames)
        with torch.autocast(bands.device.type, enabled=False):
            if bands.device.type != "cpu":
                return torch.matmul(self.dct, bands)
            out = bands.new_empty(len(bands), 1, self.n_bins, bands.shape[3])
            for clip, cepstrum in zip(bands, out, strict=True):
                torch.mm(self.dct, clip[0], out=cepstrum[0])
            return out


class _StatisticsExtractor(FeatureExtractor):
    def __init__(self, framewise: FeatureExtractor) -> None:
        super().__init__(framewise.hop_length, 2 * framewise.n_bins)
        self.framewise = framewise

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        std, mean = torch.std_mean(self.framewise(waveform)[:, 0], dim=2, correction=0)
        return torch.cat([mean, std], dim=1)


def _batch_of_waveforms(waveform: Tensor) -> Tensor:
    if waveform.dim() != 2 or not waveform.is_floating_point():
        raise ValueError(
            f"expected floating-point waveforms (batch, samples), got {waveform.dtype} {tuple(waveform.shape)}"
        )
    return waveform.float()


def _band_groups(filters: Tensor) -> list[tuple[int, int, int, int]]:
    """Neighbouring filters [first, last) with the bins [low, high) outside which all of them are zero."""
    edges = np.linspace(0, len(filters), min(_BAND_GROUPS, len(filters)) + 1).astype(int).tolist()
    groups = []
    for first, last in itertools.pairwise(edges):
        used = filters[first:last].amax(0).nonzero().flatten()
        groups.append((first, last, int(used[0]), int(used[-1]) + 1))
    return groups
