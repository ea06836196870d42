"""The framing of TFRecord files: length (u64), its masked CRC-32C, data, its masked CRC-32C; all little endian."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from audio_cls.core.errors import UserError
from audio_cls.data.codecs.crc32c import masked_crc32c

__all__ = ["BrokenRecord", "framed", "read_record", "records"]

_HEAD, _TAIL = struct.Struct("<QI"), struct.Struct("<I")


class BrokenRecord(UserError):
    """A record that is not whole; the message is the reason alone, the caller says where."""


def framed(data: bytes) -> bytes:
    """Return a record of a TFRecord file that holds this data."""
    length = struct.pack("<Q", len(data))
    return _HEAD.pack(len(data), masked_crc32c(length)) + data + _TAIL.pack(masked_crc32c(data))


def read_record(file: BinaryIO) -> bytes | None:
    """Return the data of the record at which a file stands; None at the end of the file.

    Raises:
        BrokenRecord: cut short, or not what its checksums say.
    """
    head = file.read(_HEAD.size)
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise BrokenRecord(f"cut short: {len(head)} of the {_HEAD.size} bytes of its head are there")
    length, crc = _HEAD.unpack(head)
    if masked_crc32c(head[:8]) != crc:
        raise BrokenRecord("damaged: its length does not match its checksum, or this is no TFRecord file")
    data = file.read(length)
    tail = file.read(_TAIL.size)
    if len(tail) < _TAIL.size:
        raise BrokenRecord(f"cut short: {len(data) + len(tail):,} of {length + _TAIL.size:,} bytes are there")
    if masked_crc32c(data) != _TAIL.unpack(tail)[0]:
        raise BrokenRecord("damaged: its data does not match its checksum")
    return data


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each record of a file: the byte at which it begins, and its data.

    Raises:
        UserError: for a file that cannot be opened and a record that is not whole, by its number from 1.
    """
    try:
        with open(path, "rb") as file:
            number = 0
            while True:
                offset, number = file.tell(), number + 1
                try:
                    data = read_record(file)
                except BrokenRecord as error:
                    raise UserError(f"{path}, record {number} (at byte {offset:,}): {error}") from None
                if data is None:
                    return
                yield offset, data
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
