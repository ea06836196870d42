"""An audio file of any length in blocks: decode, mix to mono, resample, quantise, as `audio.load` does it, in bounded memory.

soxr's stream gives the samples of one call bit for bit, so blocks put together are the samples that a corpus would hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audio_cls.data.audio import (
    SILENCE_PEAK,
    BadAudio,
    cut_short,
    failure_reason,
    file_handle,
    plausible_rate,
    silence_reason,
    to_float,
)
from audio_cls.data.headers import read_promise

__all__ = ["AudioHeader", "decode_blocks", "read_header"]

BLOCK_SECONDS = 10.0
_INTEGER = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})
_UNKNOWN = 1 << 61  # frames; libsndfile says more where a header names none


@dataclass(frozen=True)
class AudioHeader:
    """What an audio file says of itself. frames: None where it names no length. is_integer: no sample can exceed full scale."""

    rate: int
    channels: int
    frames: int | None
    is_integer: bool

    @classmethod
    def of(cls, file: Any) -> AudioHeader:
        """Return the header of an open `soundfile.SoundFile`.

        Raises:
            BadAudio: for an implausible sample rate.
        """
        frames = int(file.frames) if 0 <= int(file.frames) < _UNKNOWN else None
        return cls(plausible_rate(int(file.samplerate)), int(file.channels), frames, str(file.subtype) in _INTEGER)

    def samples(self, sample_rate: int) -> int | None:
        """Return how many samples the file has after soxr has resampled it."""
        if self.frames is None or self.rate == sample_rate:
            return self.frames
        return math.floor(self.frames * sample_rate / self.rate + 0.5)


def read_header(raw: BinaryIO, size: int) -> AudioHeader:
    """Return what the header of an open audio file of `size` bytes says.

    Raises:
        BadAudio: for what is no audio, is cut short, or has an implausible sample rate.
    """
    import soundfile

    try:
        promise = read_promise(raw, size)
        if promise is not None and promise.what != "audio":
            raise BadAudio(cut_short(promise, None))
        raw.seek(0)
        with soundfile.SoundFile(file_handle(raw), closefd=False) as file:
            header = AudioHeader.of(file)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudio(f"cannot be decoded: {failure_reason(error)}") from None
    if promise is not None:
        raise BadAudio(cut_short(promise, None if header.frames is None else header.frames / header.rate))
    return header


def decode_blocks(raw: BinaryIO, sample_rate: int, header: AudioHeader) -> Iterator[NDArray[np.float32]]:
    """Yield an audio file in blocks of (n,) float32 samples, mono, at `sample_rate`: quantised to 16 bits as a corpus is.

    A file that may hold samples beyond full scale is read twice, and turned down as a whole.

    Args:
        raw: an open file that can seek. It must stay open, and not be read by others, until the last block.

    Raises:
        BadAudio: for what cannot be decoded to its end, is not finite, or is silent throughout (at the end).
    """
    gain = 1.0
    if not (header.is_integer and header.rate == sample_rate):
        peak = max((float(np.abs(block).max(initial=0.0)) for block in _floats(raw, sample_rate)), default=0.0)
        gain = 1.0 if peak <= 1.0 else 1.0 / peak
    for block in _floats(raw, sample_rate):
        scaled = np.rint(block * np.float32(32768.0 * gain))
        yield to_float(np.clip(scaled, -32768, 32767).astype(np.int16))


def _floats(raw: BinaryIO, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield mono samples at `sample_rate` as floats, before they are quantised."""
    import soundfile
    import soxr

    peak, level, n_read = 0.0, 0.0, 0
    raw.seek(0)
    try:
        with soundfile.SoundFile(file_handle(raw), closefd=False) as file:
            header = AudioHeader.of(file)
            rate, size = header.rate, max(1, round(BLOCK_SECONDS * header.rate))
            resampler = None
            if rate != sample_rate:
                resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
            while True:
                x = file.read(size, dtype="float32", always_2d=True)
                last = len(x) < size
                n_read += len(x)
                with np.errstate(over="ignore", invalid="ignore"):
                    mono = x[:, 0] if x.shape[1] == 1 else x.mean(axis=1, dtype=np.float32)
                if not np.isfinite(x).all() or not np.isfinite(mono).all():
                    raise BadAudio("holds samples that are not finite numbers")
                peak = max(peak, float(np.abs(mono).max(initial=0.0)))
                level = max(level, float(np.abs(x).max(initial=0.0)))
                out = np.ascontiguousarray(mono)
                if resampler is not None:
                    out = resampler.resample_chunk(out, last=last)
                if len(out):
                    yield out
                if last:
                    break
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudio(f"cannot be decoded: {failure_reason(error)}") from None
    if header.frames is not None and n_read < header.frames - rate // 10:
        raise BadAudio(f"cut short: its header says {header.frames / rate:.2f} s, {n_read / rate:.2f} s can be read")
    if peak < SILENCE_PEAK:
        raise BadAudio(silence_reason(peak, level))
