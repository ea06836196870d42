"""Audio of any length as blocks of mono samples at a model's sample rate: files, bytes, open files, arrays.

The samples are those that a corpus of the same file would hold (`data.audio.load`).
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from audio_cls.data.audio import BadAudio, decode, file_size, open_audio, to_float, to_int16
from audio_cls.data.blocks import AudioHeader, decode_blocks, read_header

__all__ = ["AudioStream", "Blocks", "PcmPipe", "PcmStream", "Sound", "array_samples", "read_blocks", "spool"]

Sound = Path | str | bytes | BinaryIO | tuple[NDArray, int]
"""What can be labelled: a path, the bytes of an audio file, an open one that can seek, or (samples, sample rate in Hz)."""

_WHOLE = 1 << 24  # values, channels times frames, that are decoded at once: 64 MiB, six minutes of CD audio in mono


class AudioStream:
    """One recording as blocks of (n,) float32 samples in [-1, 1), mono, at `sample_rate` Hz. Can be iterated more than once.

    Attributes:
        n_samples: at `sample_rate`; None where the header names no length.

    Raises:
        BadAudio: when it is made or while it is read: what `data.audio.load` refuses.
    """

    def __init__(self, sound: Sound, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._sound = sound
        self._header: AudioHeader | None = None
        self._whole: NDArray[np.float32] | None = None
        if isinstance(sound, tuple):
            self._whole = array_samples(*sound, sample_rate)
        else:
            with _opened(sound) as (raw, size):
                self._header = read_header(raw, size)
                frames, ratio = self._header.frames, sample_rate / self._header.rate
                if frames is not None and frames * max(self._header.channels, ratio) <= _WHOLE:
                    raw.seek(0)
                    self._whole = to_float(decode(raw, size, sample_rate=sample_rate).samples)
        if self._whole is not None:
            self.n_samples: int | None = len(self._whole)
        else:
            assert self._header is not None
            self.n_samples = self._header.samples(sample_rate)

    @property
    def n_decoded(self) -> int:
        """Samples that are held decoded; 0 where they are decoded while they are read."""
        return 0 if self._whole is None else len(self._whole)

    @property
    def seconds(self) -> float | None:
        """Its length; None where the header names none."""
        return None if self.n_samples is None else self.n_samples / self.sample_rate

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        if self._whole is not None:
            yield self._whole
            return
        assert self._header is not None
        assert not isinstance(self._sound, tuple)
        with _opened(self._sound) as (raw, _):
            yield from decode_blocks(raw, self.sample_rate, self._header)


def read_blocks(sound: Sound, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield a recording as `AudioStream` does.

    Raises:
        BadAudio: what `data.audio.load` refuses.
    """
    return iter(AudioStream(sound, sample_rate))


class Blocks(Protocol):
    """A recording as blocks of samples; n_samples is None where its length is not known."""

    n_samples: int | None

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class PcmPipe:
    """A pipe of headerless PCM: 16-bit little-endian integers, mono, at `rate` Hz."""

    raw: BinaryIO
    rate: int


class PcmStream:
    """A pipe of PCM as blocks of (n,) float32 samples at `sample_rate` Hz, as they arrive. Can be iterated once."""

    def __init__(self, pipe: PcmPipe, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.n_samples: int | None = None
        self._raw, self._rate = pipe.raw, pipe.rate

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        import soxr

        stream = None
        if self._rate != self.sample_rate:
            stream = soxr.ResampleStream(self._rate, self.sample_rate, 1, dtype="float32", quality="HQ")
        odd = b""
        while data := read_some(self._raw):
            data = odd + data
            whole = len(data) // 2 * 2
            x, odd = to_float(np.frombuffer(data[:whole], dtype="<i2")), data[whole:]
            yield x if stream is None else stream.resample_chunk(x)
        if stream is not None:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def read_some(raw: BinaryIO) -> bytes:
    """Return what a pipe holds, up to 64 KiB, waiting for at least a byte; empty at its end."""
    read = getattr(raw, "read1", raw.read)
    return read(1 << 16) or b""


def spool(raw: BinaryIO, pcm_rate: int | None = None) -> BinaryIO:
    """Copy a pipe to a temporary file on disk, which can be read again and whose length is known. It is gone when it is closed.

    Args:
        pcm_rate: what arrives is PCM without a header, 16-bit little-endian mono at this rate in Hz; None for an audio file.
    """
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 # the caller closes it
    if pcm_rate is None:
        while data := read_some(raw):
            file.write(data)
    else:
        import soundfile

        with soundfile.SoundFile(
            file.fileno(), "w", pcm_rate, 1, "PCM_16", format="RF64", closefd=False
        ) as out:  # RF64: a WAV ends at 4 GiB
            for block in PcmStream(PcmPipe(raw, pcm_rate), pcm_rate):
                out.write((block * 32768).astype(np.int16))
    return file


def array_samples(samples: NDArray, rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Return an array as a corpus would hold it: mono, at `sample_rate`, of 16 bits.

    Args:
        samples: (n,) or (n, channels); integers of 8 to 32 bits, or floats in [-1, 1].
        rate: of `samples`, in Hz.

    Raises:
        BadAudio: for another shape or type, or what is not finite or empty.
    """
    x = np.asarray(samples)
    if x.ndim not in (1, 2) or x.size == 0 or (x.ndim == 2 and x.shape[1] > 64):
        raise BadAudio(f"an array of the shape {x.shape}. Allowed: (samples,) or (samples, channels), not empty")
    if x.dtype.kind == "u" and x.dtype.itemsize == 1:
        x = (x.astype(np.float32) - 128) / 128
    elif x.dtype.kind == "i":
        x = x.astype(np.float64) / float(1 << (8 * x.dtype.itemsize - 1))
    elif x.dtype.kind != "f":
        raise BadAudio(f"an array of {x.dtype}. Allowed: floats in [-1, 1], int16, int32, uint8")
    mono = x.astype(np.float32) if x.ndim == 1 else x.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise BadAudio("holds samples that are not finite numbers")
    if rate != sample_rate:
        import soxr

        mono = soxr.resample(np.ascontiguousarray(mono), rate, sample_rate, quality="HQ")
    return to_float(to_int16(mono)[0])


@contextmanager
def _opened(sound: Path | str | bytes | BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    """Give an open file that can seek, and its size in bytes."""
    if isinstance(sound, bytes):
        if not sound:
            raise BadAudio("empty: 0 bytes")
        yield io.BytesIO(sound), len(sound)
    elif isinstance(sound, (str, Path)):
        size = file_size(Path(sound))
        with open_audio(Path(sound)) as raw:
            yield raw, size
    elif isinstance(sound, (io.BufferedReader, io.FileIO)):
        with open(os.dup(sound.fileno()), "rb", buffering=0) as raw:  # unbuffered: libsndfile reads by the descriptor
            yield raw, raw.seek(0, io.SEEK_END)
    else:
        sound.seek(0)
        data = sound.read()
        yield io.BytesIO(data), len(data)
