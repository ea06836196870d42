"""What the header of an audio file promises, compared with what the file holds.

libsndfile reads a file that was cut short as a shorter one: for WAV, AIFF, AU, W64 and CAF it trims the length that the
header names to the bytes that are there, for Ogg and MP3 it stops at the last page or frame. So the promises are read
here, from the bytes. FLAC needs nothing of the kind: its decoder fails.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Promise", "read_promise"]

_UNKNOWN_FROM = 0x7FFFF000  # writers that cannot seek back name such sizes, up to 0xFFFFFFFF, or 0
_MAX_CHUNKS = 10_000
_TAIL = 1 << 17  # an Ogg page has at most 65,307 bytes
_MAX_MP3 = 1 << 28  # bytes that are walked through frame by frame


@dataclass(frozen=True)
class Promise:
    """How much a header says there is, and how much there is.

    Attributes:
        what: "audio" where both are bytes of samples, so that their ratio is one of durations; else what is counted.
        promised, present: in bytes, or in what `what` says.
    """

    what: str
    promised: int
    present: int

    @property
    def broken(self) -> bool:
        """Whether something is missing. One byte may: some writers count a pad byte that they do not write."""
        spare = 0 if self.what.startswith("bytes of") else 1  # an MP3 encoder may count the frame of the header itself
        return self.present + spare < self.promised


def read_promise(file: BinaryIO, size: int) -> Promise | None:
    """Return the promise of a file's header that is not kept, or None: all is there, or the format names no length.

    `file` is read from its start and left anywhere; `size` is its length in bytes.
    """
    file.seek(0)
    head = file.read(16)
    reader = _READERS.get(head[:4])
    if reader is None and (head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)):
        reader = _mp3
    if reader is None:
        return None
    found = reader(file, size)
    return found if found is not None and found.broken else None


def _riff(file: BinaryIO, size: int) -> Promise | None:
    """RIFF, RIFX and RF64: chunks of (name, 32-bit size); RF64 keeps the size of its data in the chunk `ds64`."""
    file.seek(0)
    head = file.read(12)
    order = ">" if head[:4] == b"RIFX" else "<"
    long_size = None
    for name, start, length in _chunks(file, size, 12, order + "I"):
        if name == b"ds64":
            body = file.read(16)
            long_size = struct.unpack("<Q", body[8:16])[0] if len(body) == 16 else None
        elif name == b"data":
            promised = long_size if length == 0xFFFFFFFF and long_size is not None else length
            if length != promised or 0 < promised < _UNKNOWN_FROM:
                found = Promise("audio", promised, max(0, size - start))
                if found.broken:
                    return found
            break
    whole = struct.unpack(order + "I", head[4:8])[0] if len(head) == 12 else 0
    return Promise("bytes", whole + 8, size) if 0 < whole < _UNKNOWN_FROM else None


def _aiff(file: BinaryIO, size: int) -> Promise | None:
    """AIFF and AIFF-C: big-endian chunks; COMM tells frames and bytes a frame, SSND holds 8 bytes and the samples."""
    file.seek(0)
    head = file.read(12)
    frames_bytes = 0
    for name, start, length in _chunks(file, size, 12, ">I"):
        if name == b"COMM" and head[8:12] == b"AIFF" and len(body := file.read(8)) == 8:
            channels, frames, bits = struct.unpack(">hIh", body)
            frames_bytes = frames * max(0, channels) * ((max(0, bits) + 7) // 8)
        elif name == b"SSND":
            promised = max(length - 8, frames_bytes)
            if 0 < promised < _UNKNOWN_FROM:
                return Promise("audio", promised, max(0, size - start - 8))
            return None
    whole = struct.unpack(">I", head[4:8])[0] if len(head) == 12 else 0
    return Promise("bytes", whole + 8, size) if 0 < whole < _UNKNOWN_FROM else None


def _au(file: BinaryIO, size: int) -> Promise | None:
    """Sun's AU: magic, offset of the samples, their bytes; big-endian, or little-endian when the magic is reversed."""
    file.seek(0)
    head = file.read(12)
    if len(head) < 12:
        return None
    start, promised = struct.unpack((">" if head[:4] == b".snd" else "<") + "II", head[4:12])
    return Promise("audio", promised, max(0, size - start)) if 0 < promised < _UNKNOWN_FROM else None


def _w64(file: BinaryIO, size: int) -> Promise | None:
    """Return Sony's Wave64: 16-byte names, 64-bit sizes that include the 24 bytes of name and size, multiples of 8."""
    at = 40
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(24)
        if len(head) < 24:
            return None
        length = struct.unpack("<Q", head[16:24])[0]
        if head[:4] == b"data":
            return Promise("audio", max(0, length - 24), size - at - 24) if length < 1 << 62 else None
        at += max(24, (length + 7) // 8 * 8)
        if at >= size:
            return None
    return None


def _caf(file: BinaryIO, size: int) -> Promise | None:
    """Core Audio: chunks with 64-bit sizes; the data chunk begins with 4 bytes, and -1 means to the end of the file."""
    for name, start, length in _chunks(file, size, 8, ">q", padded=False):
        if name == b"data":
            return Promise("audio", length - 4, max(0, size - start - 4)) if length >= 4 else None
    return None


def _chunks(file: BinaryIO, size: int, at: int, layout: str, padded: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start of the body, length of the body) with the file at the body."""
    head = 4 + struct.calcsize(layout)
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        raw = file.read(head)
        if len(raw) < head:
            return
        length = struct.unpack(layout, raw[4:])[0]
        yield raw[:4], at + head, length
        at += head + max(0, length) + (length & 1 if padded else 0)
        if at >= size:
            return


def _ogg(file: BinaryIO, size: int) -> Promise | None:
    """Ogg (RFC 3533): the last page must be whole. A file that ends between two pages may be a stream that was stopped."""
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    at = tail.rfind(b"OggS")
    if at < 0:
        return None
    page = tail[at:]
    segments = page[26] if len(page) > 26 else 0
    head = 27 + segments
    length = head + (sum(page[27:head]) if len(page) >= head else 0)
    return Promise("bytes of its last page", length, len(page))


# Kilobits a second by index, for MPEG 1 layer I, II, III and MPEG 2 layer I, II and III (ISO/IEC 11172-3 and 13818-3).
_MPEG1 = {
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_MPEG2_LAYER1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _mp3(file: BinaryIO, size: int) -> Promise | None:
    """MPEG audio: the last frame must be whole, and there must be as many frames as a Xing or Info header names."""
    if size > _MAX_MP3:
        return None
    file.seek(0)
    data = file.read()
    at, frames, named = 0, 0, None
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        flags, raw = data[at + 5], data[at + 6 : at + 10]
        at += 10 + (raw[0] << 21 | raw[1] << 14 | raw[2] << 7 | raw[3]) + (10 if flags & 0x10 else 0)
    cut = None
    while at + 4 <= len(data):
        length = _mp3_frame(data[at : at + 4])
        if length is None:  # a tag behind the last frame, or something that only the decoder can make sense of
            break
        if at + length > len(data):
            cut = Promise("bytes of its last frame", length, len(data) - at)
            break
        if frames == 0:
            named = _xing(data[at : at + 64])
        frames += 1
        at += length
    ends_here = cut is not None or len(data) - at < 4 or data[at : at + 3] in (b"TAG", b"APE", b"LYR")
    if (
        named is not None and ends_here and frames <= named
    ):  # the frame that holds the header is not among those it names
        return Promise("MP3 frames", named, frames - 1)
    return cut


def _mp3_frame(head: bytes) -> int | None:
    """Return bytes of the frame that begins with these four; None if they begin none (or one of free format)."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0 or version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return None
    padding = head[2] >> 1 & 1
    table = _MPEG1[layer] if version == 3 else _MPEG2_LAYER1 if layer == 3 else _MPEG2
    bits, hertz = table[bitrate] * 1000, _MP3_RATES[version][rate]
    if layer == 3:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding


def _xing(frame: bytes) -> int | None:
    """Return the number of frames that a Xing or Info header names, if the first frame holds one."""
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at > 0 and len(frame) >= at + 12 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    return None


_READERS = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"FORM": _aiff,
    b".snd": _au,
    b"dns.": _au,
    b"riff": _w64,
    b"caff": _caf,
    b"OggS": _ogg,
}
