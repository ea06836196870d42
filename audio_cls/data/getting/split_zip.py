"""Split ZIP archives (`x.z01`, `x.z02`, ..., `x.zip`), read in place: the parts are neither joined on disk nor copied.

PKWARE, APPNOTE.TXT 6.3, sections 4.3.12, 4.3.16, 8: each entry of the central directory names the part that its member begins
in, and the place in that part. `zipfile` knows one file only, so it is given the parts as one, with a directory whose places
count from the first part's begin.
"""

from __future__ import annotations

import bisect
import io
import struct
import zipfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

__all__ = ["open_split_zip"]

_END = struct.Struct("<4s4H2LH")  # signature, disk, disk of the directory, entries here, entries, size, offset, comment
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LARGE, _MANY = 0xFFFFFFFF, 0xFFFF


class _Parts(io.RawIOBase):
    """Files and a tail of bytes, one behind another, as one file."""

    def __init__(self, paths: Sequence[Path], length: int, tail: bytes) -> None:
        self._files = [open(path, "rb") for path in paths]  # noqa: SIM115 - closed by `close`
        sizes = [path.stat().st_size for path in paths]
        self._starts = [0, *accumulate(sizes)]
        self._length, self._tail, self._at = length, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._length + len(self._tail))[whence]
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        if self._at >= self._length:
            data = self._tail[self._at - self._length :][: len(buffer)]
        else:
            k = bisect.bisect_right(self._starts, self._at) - 1
            last = min(self._starts[k + 1], self._length)
            self._files[k].seek(self._at - self._starts[k])
            data = self._files[k].read(min(len(buffer), last - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def open_split_zip(paths: Sequence[Path]) -> zipfile.ZipFile:
    """Open a split ZIP archive.

    Args:
        paths: of all parts, in order; the last is `x.zip`.

    Raises:
        zipfile.BadZipFile: the last part has no directory, a part is missing, or the directory does not fit the parts.
    """
    sizes = [path.stat().st_size for path in paths]
    starts = [0, *accumulate(sizes)]
    with open(paths[-1], "rb") as file:
        file.seek(max(0, sizes[-1] - _END.size - _MANY))
        base, end = file.tell(), file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < _END.size:
        raise zipfile.BadZipFile(f"{paths[-1].name} is not the last part of a ZIP archive")
    _, disk, first, _, count, size, offset, _ = _END.unpack_from(end, at)
    if _MANY in (disk, first, count) or _LARGE in (size, offset):
        disk, first, count, size, offset = _end64(paths[-1], base + at)
    if disk + 1 != len(paths):
        raise zipfile.BadZipFile(f"the archive has {disk + 1} parts, {len(paths)} were given")
    begin = starts[first] + offset
    whole = _Parts(paths, starts[-1], b"")
    whole.seek(begin)
    directory = io.BufferedReader(whole).read(size)
    whole.close()
    moved = _moved(directory, count, starts)
    tail = moved + _ends(count, len(moved), begin)
    return zipfile.ZipFile(io.BufferedReader(_Parts(paths, begin, tail)))


def _end64(path: Path, at: int) -> tuple[int, int, int, int, int]:
    with open(path, "rb") as file:
        file.seek(at - _LOCATOR64.size)
        signature, _, offset, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
        file.seek(offset)
        record = file.read(_END64.size)
    if signature != b"PK\x06\x07" or record[:4] != b"PK\x06\x06":
        raise zipfile.BadZipFile(f"{path.name}: the record of the directory's place is damaged")
    _, _, _, _, disk, first, _, count, size, offset = _END64.unpack(record)
    return disk, first, count, size, offset


def _moved(directory: bytes, count: int, starts: Sequence[int]) -> bytes:
    """Return the central directory with each member's place counted from the begin of the first part."""
    out, at = io.BytesIO(), 0
    for _ in range(count):
        if directory[at : at + 4] != b"PK\x01\x02" or len(directory) - at < _ENTRY.size:
            raise zipfile.BadZipFile("the central directory is damaged")
        fields = list(_ENTRY.unpack_from(directory, at))
        n_name, n_extra, n_comment, disk, offset = fields[10], fields[11], fields[12], fields[13], fields[16]
        rest = directory[at + _ENTRY.size : at + _ENTRY.size + n_name + n_extra + n_comment]
        name, extra, comment = rest[:n_name], rest[n_name : n_name + n_extra], rest[n_name + n_extra :]
        sizes, offset, disk, extra = _zip64(extra, (fields[9], fields[8]), offset, disk)
        if disk >= len(starts) - 1:
            raise zipfile.BadZipFile(f"the directory names part {disk + 1}, there are {len(starts) - 1}")
        place = starts[disk] + offset
        values = [*(size for size, short in zip(sizes, (fields[9], fields[8]), strict=True) if short == _LARGE)]
        if place >= _LARGE:
            values.append(place)
        if values:
            extra = struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) + extra
        fields[11], fields[13], fields[16] = len(extra), 0, min(place, _LARGE)
        out.write(_ENTRY.pack(*fields) + name + extra + comment)
        at += _ENTRY.size + n_name + n_extra + n_comment
    return out.getvalue()


def _zip64(extra: bytes, short: tuple[int, int], offset: int, disk: int) -> tuple[list[int], int, int, bytes]:
    """Return sizes (plain, packed), place and part with the values of the ZIP64 field, and the extra fields without it."""
    sizes, kept, at = list(short), b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == 1:
            for k in (0, 1):
                if short[k] == _LARGE:
                    sizes[k], field = int.from_bytes(field[:8], "little"), field[8:]
            if offset == _LARGE:
                offset, field = int.from_bytes(field[:8], "little"), field[8:]
            if disk == _MANY:
                disk = int.from_bytes(field[:4], "little")
        else:
            kept += extra[at : at + 4 + length]
        at += 4 + length
    return sizes, offset, disk, kept


def _ends(count: int, size: int, begin: int) -> bytes:
    """Return the records that end an archive of one file, in the form for large archives."""
    end64 = _END64.pack(b"PK\x06\x06", _END64.size - 12, 45, 45, 0, 0, count, count, size, begin)
    locator = _LOCATOR64.pack(b"PK\x06\x07", 0, begin + size, 1)
    end = _END.pack(b"PK\x05\x06", 0, 0, min(count, _MANY), min(count, _MANY), min(size, _LARGE), min(begin, _LARGE), 0)
    return end64 + locator + end
