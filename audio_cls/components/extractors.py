"""Feature extractors: modules that turn a batch of waveforms into features, on the device of the batch."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torchaudio.functional as taf
from torch import Tensor, nn

from audio_cls.components.segment_features import (
    SegmentFeatures,
    SegmentLogMel,
    SegmentMfcc,
    SegmentStatistics,
    SegmentWaveform,
)

__all__ = ["FeatureExtractor", "LogMelExtractor", "MfccExtractor", "StatisticsExtractor", "WaveformExtractor"]

# One chunk of complex STFT bins: on a CPU what stays in the cache (measured: larger is slower), elsewhere what fits in memory.
_CPU_CHUNK_BINS = 1 << 18
_DEVICE_CHUNK_BINS = 1 << 28
_BAND_GROUPS = 8  # a mel filter spans few bins: filters are applied in groups, each to the bins it can see


class FeatureExtractor(nn.Module):
    """Waveforms (batch, samples) to features; no gradient flows back to the waveform.

    Attributes:
        hop_length: samples between two frames.
        n_bins: rows of a framewise feature, or the length of the vector.
        reach: samples on each side of a frame's centre that the frame depends on; None where it depends on the whole clip. With a
            reach, a recording of any length is labelled in bounded memory.
    """

    reach: int | None = None

    def __init__(self, hop_length: int, n_bins: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.n_bins = n_bins

    def frames(self, n_samples: int) -> int:
        """Return the number of frames that `n_samples` samples give: frames are centred on multiples of the hop, the
        first on sample 0.
        """
        return n_samples // self.hop_length + 1

    def exportable(self, *, fft: bool) -> SegmentFeatures | None:
        """Return a twin for exported models; None for an extractor without one, which is exported as it is.

        Args:
            fft: transform by `torch.stft`; else by matrix products, for ONNX.
        """
        return None


class WaveformExtractor(FeatureExtractor):
    """The samples themselves."""

    def __init__(self) -> None:
        super().__init__(hop_length=1, n_bins=1)
        self.reach = 1

    def frames(self, n_samples: int) -> int:
        return n_samples

    def exportable(self, *, fft: bool) -> SegmentFeatures:
        return SegmentWaveform()

    def forward(self, waveform: Tensor) -> Tensor:
        return _batch_of_waveforms(waveform)


class LogMelExtractor(FeatureExtractor):
    """Log-mel power in decibels: `filters` (n_mels, n_fft // 2 + 1) of the power spectrum, see `features.LogMel`."""

    filters: Tensor
    window: Tensor

    def __init__(
        self, n_fft: int, hop_length: int, win_length: int, filters: Tensor, floor: float, top_db: float | None
    ) -> None:
        super().__init__(hop_length, len(filters))
        self.n_fft, self.win_length = n_fft, win_length
        self.floor, self.top_db = floor, top_db
        self.reach = n_fft // 2 + 1 if top_db is None else None
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        self._groups = _band_groups(filters)

    def exportable(self, *, fft: bool) -> SegmentLogMel:
        return SegmentLogMel(
            self.n_fft, self.hop_length, self.filters, self.window, floor=self.floor, top_db=self.top_db, fft=fft
        )

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


class MfccExtractor(FeatureExtractor):
    """Cepstral coefficients of log-mel bands."""

    dct: Tensor

    def __init__(self, log_mel: LogMelExtractor, n_mfcc: int) -> None:
        super().__init__(log_mel.hop_length, n_mfcc)
        self.log_mel, self.reach = log_mel, log_mel.reach
        self.register_buffer(
            "dct", taf.create_dct(n_mfcc, log_mel.n_bins, norm="ortho").T.contiguous(), persistent=False
        )

    def exportable(self, *, fft: bool) -> SegmentMfcc:
        return SegmentMfcc(self.log_mel.exportable(fft=fft), self.dct)

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


class StatisticsExtractor(FeatureExtractor):
    """Mean and deviation of each band of other features over the clip."""

    def __init__(self, framewise: FeatureExtractor) -> None:
        super().__init__(framewise.hop_length, 2 * framewise.n_bins)
        self.framewise = framewise

    def exportable(self, *, fft: bool) -> SegmentFeatures | None:
        inner = self.framewise.exportable(fft=fft)
        return None if inner is None else SegmentStatistics(inner)

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
    """Return neighbouring filters [first, last) with the bins [low, high) outside which all of them are zero."""
    edges = np.linspace(0, len(filters), min(_BAND_GROUPS, len(filters)) + 1).astype(int).tolist()
    groups = []
    for first, last in itertools.pairwise(edges):
        used = filters[first:last].amax(0).nonzero().flatten()
        groups.append((first, last, int(used[0]), int(used[-1]) + 1))
    return groups
