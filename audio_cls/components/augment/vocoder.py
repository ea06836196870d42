"""Time stretching of a batch of waveforms, each at its own rate: a phase vocoder that computes with unit phasors.

Output frame k is the source frame i(k) nearest to k * rate. Where i(k) = i(k - 1) + 1, as mostly for rates near 1, phases already advance as
they should. Only where a frame is skipped or repeated must they be turned, and the turn stays until the next such place:

    turn(k) = turn(k - 1) * unit(S[i(k - 1) + 1] * conj(S[i(k)]))

Analysis and synthesis share one hop, so phases need no unwrapping, and no angle is ever computed. Each bin takes the turn of the
strongest bin beside it ("identity phase locking", Laroche and Dolson, "Improved phase vocoder time-scale modification of audio",
1999), so that the bins of one partial stay together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["OVERLAP", "stretch", "window_length"]

OVERLAP = 4
"""Frames that overlap at each sample; squared Hann windows then sum to 1.5."""

_LONGEST_WINDOW = 0.064  # seconds
_LOCKED_BINS = 2  # on either side of a peak
_CPU_CHUNK = 1 << 18  # samples of frames worked on together: what stays in the cache is faster
_DEVICE_CHUNK = 1 << 26


def window_length(sample_rate: int) -> int:
    """Return the samples of a frame: the power of two of 32 to 64 ms."""
    n_fft = 64
    while 2 * n_fft <= _LONGEST_WINDOW * sample_rate:
        n_fft *= 2
    return n_fft


def stretch(x: Tensor, rates: Tensor, n_fft: int, samples: int | None = None) -> Tensor:
    """Return waveforms played faster (rate above 1) or slower, at the same pitch, from their beginning.

    What a slower one has left is cut off; a faster one ends in silence.

    Args:
        x: (batch, n), of any floating dtype.
        rates: (batch,) on the CPU, from 0.5 to 2.
        n_fft: samples of a frame.
        samples: of the output, n if None.
    """
    samples = x.shape[1] if samples is None else samples
    frames = samples // (n_fft // OVERLAP) + OVERLAP
    budget = _CPU_CHUNK if x.device.type == "cpu" else _DEVICE_CHUNK
    size = max(1, budget // (frames * n_fft))
    parts = zip(x.split(size), rates.split(size), strict=True)
    return torch.cat([_stretch(part.float(), own, n_fft, frames, samples) for part, own in parts]).to(x.dtype)


def _stretch(x: Tensor, rates: Tensor, n_fft: int, frames: int, samples: int) -> Tensor:
    hop, device = n_fft // OVERLAP, x.device
    source, turns, places = _plan(rates, frames)
    before, end = n_fft - hop, (int(source.max()) + 2) * hop + n_fft
    x = functional.pad(x, (before, max(0, end - before - x.shape[1])))
    window = torch.hann_window(n_fft, device=device)
    cut = x.unfold(1, n_fft, hop)  # (batch, source frames, n_fft), a view
    spectrum = torch.fft.rfft(_rows(cut, source.to(device)) * window)  # (batch, frames, bins)
    if places.shape[1]:
        there = _rows(spectrum, places.to(device))  # (batch, turns, bins)
        follows = source.gather(1, (places - 1).clamp_min(0)) + 1
        follows = torch.where(places > 0, follows, source[:, :1])  # a place that only fills up the row: no turn
        expected = torch.fft.rfft(_rows(cut, follows.to(device)) * window)
        spectrum *= _rows(_turns(expected, there), turns.to(device))
    y = torch.fft.irfft(spectrum, n_fft) * (window / 1.5)
    out = x.new_zeros(len(x), frames + OVERLAP - 1, hop)
    for part in range(OVERLAP):
        out[:, part : part + frames] += y[..., part * hop : (part + 1) * hop]
    return out.flatten(1)[:, before : before + samples]


def _plan(rates: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for rates (batch,) the source of each output frame and the turns made until then, both (batch, frames), and the frames
    where a turn is made, (batch, most turns), filled up with 0: no turn is ever made there.
    """
    source = ((torch.arange(frames) - 1) * rates.double()[:, None]).round().long().add_(1).clamp_min_(0)
    irregular = functional.pad(source.diff(dim=1) != 1, (1, 0))
    turns = irregular.cumsum(1)
    places = torch.zeros(len(rates), int(turns[:, -1].max()), dtype=torch.long)
    clip, frame = irregular.nonzero(as_tuple=True)
    places[clip, turns[clip, frame] - 1] = frame
    return source, turns, places


def _turns(expected: Tensor, there: Tensor) -> Tensor:
    """Return the turn of each bin after 0, 1, ... of the places, (batch, places + 1, bins), complex.

    Args:
        expected: spectra that would have followed at each place, (batch, places, bins).
        there: spectra that stand there instead.
    """
    change = expected * there.conj() + 1e-16  # silence turns nothing
    change /= change.abs()
    power = there.real.square().addcmul_(there.imag, there.imag)
    width = 2 * _LOCKED_BINS + 1
    peak = functional.max_pool1d(power, width, 1, _LOCKED_BINS, return_indices=True)[1]
    turns = [torch.ones_like(change[:, 0])]
    for place in range(change.shape[1]):
        turns.append((turns[-1] * change[:, place]).gather(1, peak[:, place]))
    return torch.stack(turns, 1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return rows of (batch, rows, n) by number, (batch, m), in a new tensor: (batch, m, n)."""
    if len(values) == 1:
        return values[0].index_select(0, index[0])[None]
    return values[torch.arange(len(values), device=values.device)[:, None], index]
