"""One clip from a file: decode, mix to mono, resample, quantise. Imports neither torch nor scipy: it runs in workers."""

from __future__ import annotations

import io
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data.headers import Promise, read_promise

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_RATE",
    "MIN_RATE",
    "MIN_SECONDS",
    "SILENCE_PEAK",
    "Audio",
    "BadAudio",
    "audio_facts",
    "cut_short",
    "decode",
    "failure_reason",
    "file_handle",
    "file_size",
    "header_rate",
    "load",
    "open_audio",
    "plausible_rate",
    "silence_reason",
    "source_rate",
    "to_float",
    "to_int16",
    "trim_silence",
]

MIN_RATE, MAX_RATE = 1_000, 1_000_000  # hertz: below hydrophones' and seismic audio, above bat detectors
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"})
SILENCE_PEAK = 1e-4  # -80 dBFS: three steps of int16, below any recorder's own noise
MIN_SECONDS = 0.05
_TOLERANCE_SECONDS = 0.05  # published end times are rounded
_MAX_VALUES = 1 << 29  # samples times channels decoded at once: 2 GiB as float32, 101 minutes of CD audio
_BLOCK = 1 << 20  # values read at a time
_UNKNOWN = 1 << 61  # frames; libsndfile says more where a FLAC stream's header names none
_TRIM_BLOCK_SECONDS = 0.01
_OUTLIERS = 16  # so few samples, however loud, may not decide the level of a clip


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
    trim_db: float | None = None,
) -> Audio:
    """Read a clip (WAV, FLAC, OGG, MP3, AIFF, ...; any rate, any number of channels) as mono at `sample_rate`.

    Channels are averaged; resampling is soxr's HQ recipe (linear phase, alias below -140 dB). `start` and `end` are
    seconds within the file; what is longer than `max_seconds` is cut at its end. With `trim_db` silence is then cut off at both ends,
    see `trim_silence`.

    Raises:
        BadAudio: missing, empty, undecodable, cut short, of an implausible sample rate, not finite, silent, too long to be
            decoded at once, or shorter than `min_seconds`.
    """
    size = file_size(path)
    with open_audio(path) as raw:
        return decode(
            raw,
            size,
            sample_rate=sample_rate,
            start=start,
            end=end,
            max_seconds=max_seconds,
            min_seconds=min_seconds,
            trim_db=trim_db,
        )


def decode(
    raw: BinaryIO,
    size: int,
    *,
    sample_rate: int,
    start: float | None = None,
    end: float | None = None,
    max_seconds: float | None = None,
    min_seconds: float = MIN_SECONDS,
    trim_db: float | None = None,
) -> Audio:
    """Read a clip as `load` does, from an open file of `size` bytes: a real one, or `io.BytesIO`.

    Raises:
        BadAudio: as `load` does.
    """
    x, rate = _read(raw, size, sample_rate, start, end, max_seconds)
    if len(x) == 0:
        raise BadAudio("empty: it holds no samples")
    if len(x) < min_seconds * rate:
        raise BadAudio(f"too short: {len(x) / rate:.3f} s, at least {min_seconds:g} s are needed")
    mono = _mix(x)
    if rate != sample_rate:
        import soxr

        mono = soxr.resample(np.ascontiguousarray(mono), rate, sample_rate, quality="HQ")
    if max_seconds is not None:
        mono = mono[: max(1, math.floor(max_seconds * sample_rate + 0.5))]
    if trim_db is not None:
        mono = trim_silence(mono, sample_rate, trim_db, min_seconds)
    samples, gain = to_int16(mono)
    return Audio(samples, sample_rate, rate, x.shape[1], gain)


def trim_silence(
    x: NDArray[np.float32], sample_rate: int, below_db: float, min_seconds: float = MIN_SECONDS
) -> NDArray[np.float32]:
    """Return mono samples (n,) without the silence at both ends: blocks of 10 ms whose power lies more than `below_db` dB below that of
    the loudest block. At least `min_seconds` are kept, where there are so many.
    """
    block = max(1, round(_TRIM_BLOCK_SECONDS * sample_rate))
    n_blocks = -(-len(x) // block)
    power = np.pad(x, (0, n_blocks * block - len(x))).astype(np.float64).reshape(n_blocks, block)
    power = np.square(power).mean(axis=1)
    heard = np.flatnonzero(power >= power.max() * 10 ** (-below_db / 10))
    first, last = int(heard[0]) * block, min(len(x), (int(heard[-1]) + 1) * block)
    missing = math.ceil(min_seconds * sample_rate) - (last - first)
    if missing > 0:
        last = min(len(x), last + missing)
        first = max(0, min(first, last - math.ceil(min_seconds * sample_rate)))
    return x[first:last]


def audio_facts(audio: Audio) -> dict[str, Any]:
    """Return what an index keeps of a decoded clip: rate and channels of its file, and its gain."""
    return {"rate": audio.source_rate, "channels": audio.source_channels, "gain": round(audio.gain, 6)}


def source_rate(path: Path) -> int:
    """Return the sample rate that a file's header names, hertz.

    Raises:
        BadAudio: when there is none, or one that `load` refuses.
    """
    file_size(path)
    with open_audio(path) as raw:
        return header_rate(raw)


def header_rate(raw: BinaryIO) -> int:
    """Return the sample rate that the header of an open audio file names, hertz.

    Raises:
        BadAudio: when there is none, or one that `load` refuses.
    """
    import soundfile

    try:
        with soundfile.SoundFile(file_handle(raw), closefd=False) as file:
            return plausible_rate(int(file.samplerate))
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudio(f"cannot be decoded: {failure_reason(error)}") from None


def file_size(path: Path) -> int:
    """Return bytes of a file that can be opened for reading.

    Raises:
        BadAudio: missing, empty, a folder, or a path that no file can have.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadAudio("the file is missing") from None
    except OSError as error:
        raise BadAudio(f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadAudio("cannot be read: its path holds a NUL character") from None
    if stat.S_ISDIR(found.st_mode):
        raise BadAudio("is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise BadAudio("is a device or a pipe, not a file")
    if found.st_size == 0:
        raise BadAudio("empty: the file has 0 bytes")
    return found.st_size


def open_audio(path: Path) -> BinaryIO:
    """Open a file for `decode`.

    Raises:
        BadAudio: when it cannot be.
    """
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise BadAudio(f"cannot be decoded: {failure_reason(error)}") from None


def file_handle(raw: BinaryIO) -> Any:
    """Return what libsndfile reads: a file's descriptor, never its name (it takes whatever is named `.au`, `.vox` or `.gsm` for
    audio without a header, and Python's names that are not UTF-8 for none), or an object that has none.
    """
    try:
        return raw.fileno()
    except io.UnsupportedOperation:
        return raw


def _read(
    raw: BinaryIO, size: int, sample_rate: int, start: float | None, end: float | None, max_seconds: float | None
) -> tuple[NDArray[np.float32], int]:
    """Return the asked part of a file, (frames, channels), and its rate."""
    import soundfile

    try:
        promise = read_promise(raw, size)
        if promise is not None and promise.what != "audio":
            raise BadAudio(cut_short(promise, None))
        raw.seek(0)
        with soundfile.SoundFile(file_handle(raw), closefd=False) as file:
            rate, channels, frames = plausible_rate(int(file.samplerate)), int(file.channels), int(file.frames)
            if promise is not None:
                raise BadAudio(cut_short(promise, frames / rate))
            first, last = _span(frames, rate, start, end)
            if max_seconds is not None:
                last = min(last, first + math.ceil(max_seconds * rate))
            if first:
                file.seek(first)
            wanted = _bounded(last - first, channels, rate, sample_rate)
            x = _read_frames(file, wanted, channels)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudio(f"cannot be decoded: {failure_reason(error)}") from None
    if len(x) < last - first - rate // 10:
        raise BadAudio(f"cut short: its header says {(last - first) / rate:.2f} s, {len(x) / rate:.2f} s can be read")
    return x, rate


def _read_frames(file: Any, wanted: int, channels: int) -> NDArray[np.float32]:
    """`wanted` frames, or those that there are: memory grows with what is read, not with what a header claims."""
    blocks: list[NDArray[np.float32]] = []
    size = max(1, _BLOCK // channels)
    while wanted > 0:
        blocks.append(file.read(min(wanted, size), dtype="float32", always_2d=True))
        if len(blocks[-1]) < min(wanted, size):
            break
        wanted -= size
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros((0, channels), np.float32), *blocks])


def _bounded(frames: int, channels: int, rate: int, sample_rate: int) -> int:
    if frames >= _UNKNOWN:
        raise BadAudio("its header names no length, as where it was written to a pipe: write it to a file once more")
    if frames * max(channels, sample_rate / rate) > _MAX_VALUES:
        raise BadAudio(
            f"too long: {frames / rate:,.0f} s of {channels} channels at {rate} Hz are more than is decoded at once "
            f"({_MAX_VALUES:,} values). Keep its beginning with --max-seconds, or name parts of it by start and end in a CSV"
        )
    return frames


def plausible_rate(rate: int) -> int:
    """Return a sample rate in Hz as it is.

    Raises:
        BadAudio: for one that is not read.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadAudio(f"its header names a sample rate of {rate} Hz: {MIN_RATE:,} to {MAX_RATE:,} Hz are read")
    return rate


def _mix(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return frames (n, channels) -> (n,), the mean of the channels, refused where it is not a sound."""
    with np.errstate(over="ignore", invalid="ignore"):
        mono = x[:, 0] if x.shape[1] == 1 else x.mean(axis=1, dtype=np.float32)
    if not np.isfinite(x).all() or not np.isfinite(mono).all():
        raise BadAudio("holds samples that are not finite numbers")
    level = np.abs(mono)
    peak = float(level.max())
    if peak < SILENCE_PEAK:
        raise BadAudio(silence_reason(peak, float(np.abs(x).max())))
    if peak > 1 and len(level) > _OUTLIERS:
        rest = float(np.partition(level, -_OUTLIERS - 1)[-_OUTLIERS - 1])
        if rest / peak < SILENCE_PEAK:
            raise BadAudio(
                f"holds a sample of {peak:.1e} (full scale is 1) beside which the rest, up to {rest:.1e}, would be silent"
            )
    return mono


def silence_reason(peak: float, loudest_channel: float) -> str:
    """Return why a clip is refused as silent: `peak` of its mono samples, and of the channels before they were mixed."""
    if loudest_channel >= SILENCE_PEAK:
        return "silent: its channels cancel when mixed to mono"
    return f"silent: peak {peak:.1e}, at least {SILENCE_PEAK:g} is needed"


def cut_short(promise: Promise, seconds: float | None) -> str:
    """Return what a file lacks whose header promises more than it holds; `seconds` can be read of it, None where that is unknown."""
    if seconds is None or promise.present == 0:
        kind = "bytes of audio" if promise.what == "audio" else promise.what
        return f"cut short: its header says {promise.promised:,} {kind}, {promise.present:,} are there"
    whole = seconds * promise.promised / promise.present
    return f"cut short: its header says {whole:.2f} s, {seconds:.2f} s can be read"


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


def failure_reason(error: BaseException) -> str:
    """Return why a file could not be read, as libsndfile or the system says it."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".") or type(error).__name__
