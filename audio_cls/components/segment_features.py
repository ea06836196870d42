"""Features in operations that `torch.export` and ONNX have, for exported models: twins of the extractors in `extractors`.

An extractor pads a clip at its edges and writes into buffers. Its twin takes segments that hold the samples around each frame already, and
computes what no operator of ONNX does fast, the Fourier transform, as two small matrix products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SegmentFeatures", "SegmentLogMel", "SegmentMfcc", "SegmentStatistics", "SegmentWaveform"]


class SegmentFeatures(nn.Module):
    """Segments (n, (frames - 1) * hop_length + span) float32 to features.

    Attributes:
        hop_length: samples between two frames.
        span: samples of a frame.
        reach: samples of a frame before its centre. The segment of a window begins that many samples before the window does.
        whole_clip: a frame depends on the whole clip, so that a segment must be one.
    """

    def __init__(self, hop_length: int, span: int, *, whole_clip: bool = False) -> None:
        super().__init__()
        self.hop_length, self.span, self.reach = hop_length, span, span // 2
        self.whole_clip = whole_clip

    def forward(self, segments: Tensor) -> Tensor:
        raise NotImplementedError


class SegmentWaveform(SegmentFeatures):
    """The samples themselves."""

    def __init__(self) -> None:
        super().__init__(hop_length=1, span=1)

    def forward(self, segments: Tensor) -> Tensor:
        return segments


class SegmentLogMel(SegmentFeatures):
    """Log-mel power in decibels, (n, 1, n_mels, frames).

    Args:
        n_fft: samples of a frame.
        filters: (n_mels, n_fft // 2 + 1).
        window: (win_length,), at most n_fft samples.
        floor: smallest power before the logarithm.
        top_db: range below the loudest value of the segment, in dB; None does not limit it.
        fft: transform by `torch.stft`; else by matrix products, for ONNX.
    """

    filters: Tensor
    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        filters: Tensor,
        window: Tensor,
        *,
        floor: float,
        top_db: float | None,
        fft: bool,
    ) -> None:
        super().__init__(hop_length, n_fft, whole_clip=top_db is not None)
        self.floor, self.top_db = floor, top_db
        before = (n_fft - len(window)) // 2  # a shorter window stands in the middle of its frame
        window = nn.functional.pad(window, (before, n_fft - len(window) - before))
        self.spectrum = None if fft else _PowerSpectrum(window, hop_length)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters if fft else self._reordered(filters), persistent=False)

    def _reordered(self, filters: Tensor) -> Tensor:
        assert self.spectrum is not None
        out = filters.new_zeros(filters.shape[0], self.spectrum.n_values)
        out[:, self.spectrum.place] = filters
        return out.T.contiguous()

    def forward(self, segments: Tensor) -> Tensor:
        if self.spectrum is None:
            spectrum = torch.stft(
                segments, self.span, self.hop_length, window=self.window, center=False, return_complex=True
            )
            mel = self.filters @ (spectrum.real.square() + spectrum.imag.square())
        else:
            mel = (self.spectrum(segments) @ self.filters).transpose(1, 2)
        out = mel.clamp(min=self.floor).log10() * 10
        if self.top_db is not None:
            out = torch.maximum(out, out.amax((1, 2), keepdim=True) - self.top_db)
        return out.unsqueeze(1)


class SegmentMfcc(SegmentFeatures):
    """Cepstral coefficients, (n, 1, n_mfcc, frames): `dct` (n_mfcc, n_mels) of the log-mel bands."""

    dct: Tensor

    def __init__(self, log_mel: SegmentLogMel, dct: Tensor) -> None:
        super().__init__(log_mel.hop_length, log_mel.span, whole_clip=log_mel.whole_clip)
        self.log_mel = log_mel
        self.register_buffer("dct", dct, persistent=False)

    def forward(self, segments: Tensor) -> Tensor:
        return self.dct @ self.log_mel(segments)


class SegmentStatistics(SegmentFeatures):
    """Mean and (population) standard deviation over the frames of a whole clip, (n, 2 * n_bins)."""

    def __init__(self, framewise: SegmentFeatures) -> None:
        super().__init__(framewise.hop_length, framewise.span, whole_clip=True)
        self.framewise = framewise

    def forward(self, segments: Tensor) -> Tensor:
        x = self.framewise(segments)[:, 0]  # (n, n_bins, frames)
        mean = x.mean(2)
        variance = (x - mean[:, :, None]).square().mean(2)
        return torch.cat([mean, variance.sqrt()], dim=1)


class _PowerSpectrum(nn.Module):
    """Squared magnitudes of the Fourier transform of windowed frames, by two stages of matrix products.

    Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965: with N = P Q, n = n1 + P n2 and
    k = k2 + Q k1, X[k] = sum_n1 exp(-2 pi i n1 k1 / P) exp(-2 pi i n1 k2 / N) sum_n2 x[n] exp(-2 pi i n2 k2 / Q): for N = 1024 a tenth
    of the products of one matrix. Only k2 up to Q / 2 are computed: X[N - k] is the conjugate of X[k].

    Attributes:
        n_values: values for each frame, in an order of their own.
        place: where each frequency bin stands among them, (n_fft // 2 + 1,).
    """

    window: Tensor
    first: Tensor
    twiddle_real: Tensor
    twiddle_imag: Tensor
    second: Tensor

    def __init__(self, window: Tensor, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = len(window), hop_length
        p = next(d for d in range(math.isqrt(self.n_fft), 0, -1) if self.n_fft % d == 0)
        q = self.n_fft // p
        self.p, self.rows = p, q // 2 + 1
        n1, n2, k2 = torch.arange(p), torch.arange(q), torch.arange(self.rows)
        real, imag = _unit_circle(torch.outer(k2, n2), q)
        self.register_buffer("first", torch.cat([real, imag]).float(), persistent=False)  # (2 rows, q)
        real, imag = _unit_circle(torch.outer(k2, n1), self.n_fft)
        self.register_buffer("twiddle_real", real.float(), persistent=False)
        self.register_buffer("twiddle_imag", imag.float(), persistent=False)
        real, imag = _unit_circle(torch.outer(n1, n1), p)
        second = torch.cat([torch.cat([real, imag], 1), torch.cat([-imag, real], 1)])
        self.register_buffer("second", second.float(), persistent=False)  # (2 p, 2 p): [real, imag] to [real, imag]
        self.register_buffer("window", window.reshape(q, p).contiguous(), persistent=False)
        self.n_values = self.rows * p
        bins = torch.arange(self.n_fft // 2 + 1)
        mirrored = torch.where(bins % q <= q // 2, bins, self.n_fft - bins)
        self.place = mirrored % q * p + mirrored // q

    def forward(self, segments: Tensor) -> Tensor:
        """Return (n, frames, n_values) of segments (n, samples)."""
        frames = self._frames(segments)
        x = frames.unflatten(2, (-1, self.p)) * self.window  # (n, frames, q, p)
        x = self.first @ x
        real, imag = x[:, :, : self.rows], x[:, :, self.rows :]
        turned = torch.cat(
            [
                real * self.twiddle_real - imag * self.twiddle_imag,
                real * self.twiddle_imag + imag * self.twiddle_real,
            ],
            3,
        )
        x = (turned @ self.second).square()  # (n, frames, rows, 2 p)
        return (x[..., : self.p] + x[..., self.p :]).flatten(2)

    def _frames(self, segments: Tensor) -> Tensor:
        """Return overlapping frames (n, frames, n_fft), gathered as blocks that hop and frame are multiples of."""
        block = math.gcd(self.n_fft, self.hop_length)
        n_frames = (segments.shape[1] - self.n_fft) // self.hop_length + 1
        first = torch.arange(n_frames, device=segments.device) * (self.hop_length // block)
        at = first[:, None] + torch.arange(self.n_fft // block, device=segments.device)
        blocks = segments.unflatten(1, (-1, block)).index_select(1, at.flatten())
        return blocks.view(segments.shape[0], n_frames, self.n_fft)


def _unit_circle(turns: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of exp(-2 pi i turns / n) in float64."""
    angle = (turns % n).double() * (2 * math.pi / n)
    return angle.cos(), -angle.sin()
