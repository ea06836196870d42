"""One clip from a file: decode, mix to mono, resample, quantise. Imports neither torch nor scipy: it runs in workers."""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.errors import UserError

__all__ = [
    "AUDIO_SUFFIXES",
    "MIN_SECONDS",
    "SILENCE_PEAK",
    "Audio",
    "BadAudio",
    "load",
    "pack_job",
    "to_float",
    "to_int16",
]

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"})
SILENCE_PEAK = 1e-4  # -80 dBFS: three steps of int16, below any recorder's own noise
MIN_SECONDS = 0.05
_TOLERANCE_SECONDS = 0.05  # published end times are rounded
_STREAM_SIZES = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})  # what writers put into RIFF when they cannot seek back


class BadAudio(UserError):
    """A clip that cannot be used; the message is the reason alone, the caller says which clip."""


@dataclass(frozen=True)
class Audio:
    """A decoded clip.

    Attributes:
        samples: (n,) int16, mono, at `sample_rate` hertz.
        sample_rate: as asked.
        source_rate, source_channels: what the file holds.
        gain: the factor that kept the clip from clipping, 1.0 for nearly all.
    """

    samples: NDArray[np.int16]
    sample_rate: int
    source_rate: int
    source_channels: int
    gain: float


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 -> float32 in [-1, 1)."""
    return samples.astype(np.float32) * np.float32(1 / 32768)


def to_int16(x: NDArray[np.floating]) -> tuple[NDArray[np.int16], float]:
    """float in [-1, 1] -> (int16, gain). A clip with samples beyond the range is turned down as a whole, not clipped.

    Where no gain is needed the error is at most one step (1/32768), half a step except at full scale, and int16 sources
    come back unchanged.
    """
    peak = float(np.max(np.abs(x), initial=0.0))
    gain = 1.0 if peak <= 1.0 else 1.0 / peak
    scaled = np.rint(x * np.float32(32768.0 * gain))
    return np.clip(scaled, -32768, 32767).astype("<i2"), gain


def load(
    path: Path,
    *,
    sample_rate: int,
    start: float | None = None,
    end: float | None = None,
    max_seconds: float | None = None,
    min_seconds: float = MIN_SECONDS,
) -> Audio:
    """Read a clip (WAV, FLAC, OGG, MP3, AIFF, ...; any rate, any number of channels) as mono at `sample_rate`.

    Channels are averaged; resampling is soxr's HQ recipe (linear phase, alias below -140 dB). `start` and `end` are
    seconds within the file; what is longer than `max_seconds` is cut at its end.

    Raises:
        BadAudio: missing, empty, undecodable, cut short, not finite, silent, or shorter than `min_seconds`.
    """
    import soundfile

    size = _size(path)
    _check_riff(path, size)
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, frames = int(file.samplerate), int(file.channels), int(file.frames)
            first, last = _span(frames, rate, start, end)
            if max_seconds is not None:
                last = min(last, first + math.ceil(max_seconds * rate))
            if first:
                file.seek(first)
            x = file.read(last - first, dtype="float32", always_2d=True)  # (frames, channels)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudio(f"cannot be decoded: {_reason(error, path)}") from None
    if len(x) < last - first and len(x) < (last - first) - rate // 10:
        raise BadAudio(
            f"cut short: its header tells {(last - first) / rate:.2f} s, {len(x) / rate:.2f} s can be decoded"
        )
    if len(x) == 0:
        raise BadAudio("empty: it holds no samples")
    if len(x) < min_seconds * rate:
        raise BadAudio(f"too short: {len(x) / rate:.3f} s, at least {min_seconds:g} s are needed")
    if not np.isfinite(x).all():
        raise BadAudio("holds samples that are not finite numbers")
    mono = x[:, 0] if channels == 1 else x.mean(axis=1, dtype=np.float32)
    peak = float(np.abs(mono).max())
    if peak < SILENCE_PEAK:
        cancelled = channels > 1 and float(np.abs(x).max()) >= SILENCE_PEAK
        why = (
            "its channels cancel when mixed to mono"
            if cancelled
            else f"peak {peak:.1e}, at least {SILENCE_PEAK:g} is needed"
        )
        raise BadAudio(f"silent: {why}")
    if rate != sample_rate:
        import soxr

        mono = soxr.resample(np.ascontiguousarray(mono), rate, sample_rate, quality="HQ")
    if max_seconds is not None:
        mono = mono[: max(1, math.floor(max_seconds * sample_rate + 0.5))]
    samples, gain = to_int16(mono)
    return Audio(samples, sample_rate, rate, channels, gain)


def pack_job(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The work of one packing worker: `load`'s arguments in, facts and little-endian int16 bytes out."""
    try:
        audio = load(Path(job.pop("path")), **job)
    except BadAudio as error:
        return {"bad": str(error)}, b""
    payload = audio.samples.tobytes()
    facts = {
        "length": len(audio.samples),
        "crc": zlib.crc32(payload),
        "rate": audio.source_rate,
        "channels": audio.source_channels,
        "gain": round(audio.gain, 6),
    }
    return facts, payload


def _size(path: Path) -> int:
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise BadAudio("the file is missing") from None
    except OSError as error:
        raise BadAudio(f"cannot be read: {error.strerror or error}") from None
    if path.is_dir():
        raise BadAudio("is a folder, not a file")
    if size == 0:
        raise BadAudio("empty: the file has 0 bytes")
    return size


def _check_riff(path: Path, size: int) -> None:
    """libsndfile reads a WAV file that was cut short as a shorter one; its RIFF header tells."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise BadAudio(f"cannot be read: {error.strerror or error}") from None
    if head[:4] == b"RIFF" and len(head) == 8:
        declared = int.from_bytes(head[4:], "little")
        if declared not in _STREAM_SIZES and declared + 8 > size + 1:
            raise BadAudio(f"cut short: its header tells {declared + 8} bytes, the file has {size}")


def _span(frames: int, rate: int, start: float | None, end: float | None) -> tuple[int, int]:
    seconds = frames / rate
    if start is not None and start >= seconds:
        raise BadAudio(f"starts at {start:g} s, but the file ends at {seconds:.2f} s")
    if end is not None and end > seconds + _TOLERANCE_SECONDS:
        raise BadAudio(f"ends at {end:g} s, but the file ends at {seconds:.2f} s")
    first = 0 if start is None else math.floor(start * rate + 0.5)
    last = frames if end is None else min(frames, math.floor(end * rate + 0.5))
    if last <= first and frames > 0:
        raise BadAudio(f"holds nothing between {first / rate:g} s and {last / rate:g} s")
    return first, last


def _reason(error: BaseException, path: Path) -> str:
    text = str(error).replace(f"{str(path)!r}", "").strip()
    return text.removeprefix("Error opening").lstrip(" :").rstrip(".") or type(error).__name__
