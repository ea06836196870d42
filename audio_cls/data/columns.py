"""The columns of a large corpus in a binary file beside its index, so that it opens in milliseconds.

The file repeats what `index.json` holds and is no part of the corpus: it is not exported, and where it is missing, damaged or of
another index, the index is read instead. A first line of JSON (with its checksum) holds the index without its columns, and of
each column its kind, place, size and checksum; columns are decoded when they are asked for:

    i8, f8   numbers, int64 or float64; -1 or NaN for None
    lists    lists of whole numbers: how many of each clip, then all of them; int64
    json     anything else
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.workspace import atomic_write

__all__ = ["FROM_CLIPS", "LazyColumns", "read_columns", "remove_columns", "write_columns"]

FROM_CLIPS = 5000
"""Corpora of so many clips or more have such a file; smaller ones open fast without."""
_NAME = "columns.bin"
_VERSION = 1
_HEAD = re.compile(rb'\{\s*"checksum": (\d+)')


class LazyColumns(Mapping[str, Any]):
    """Columns by name, as an index has them: lists of `n` values, each decoded when it is first asked for."""

    def __init__(self, path: Path, start: int, places: dict[str, list[Any]], n: int) -> None:
        self._data = np.memmap(path, dtype=np.uint8, mode="r", offset=start)
        self._places, self._n = places, n
        self._decoded: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def holds_numbers(self, name: str) -> bool:
        """Whether a column is kept as an array of numbers."""
        return self._places[name][0] in ("i8", "f8")

    def array(self, name: str) -> NDArray[Any]:
        """Return a column of numbers, (n,) int64 or float64; None is -1 or NaN.

        Raises:
            ValueError: damaged, or no numbers.
        """
        kind, data = self._raw(name)
        if kind not in ("i8", "f8"):
            raise ValueError(f"the column {name!r} holds no numbers")
        return np.frombuffer(data, f"<{kind}")

    def flat_lists(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a column of lists as the length of each, (n,), and all their values."""
        values = np.frombuffer(self._raw(name)[1], "<i8")
        return values[: self._n], values[self._n :]

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            self._decoded[name] = self._decode(name)
        return self._decoded[name]

    def _raw(self, name: str) -> tuple[str, bytes]:
        kind, start, size, checksum = self._places[name]
        data = self._data[start : start + size].tobytes()
        if len(data) != size or zlib.crc32(data) != checksum:
            raise ValueError(f"the column {name!r} of {_NAME} is damaged: remove that file")
        return kind, data

    def _decode(self, name: str) -> list[Any]:
        kind, data = self._raw(name)
        if kind == "json":
            return list(json.loads(data))
        if kind == "lists":
            counts, flat = self.flat_lists(name)
            values, ends = flat.tolist(), np.cumsum(counts).tolist()
            return [values[end - count : end] for end, count in zip(ends, counts.tolist(), strict=True)]
        numbers = self.array(name)
        missing = np.isnan(numbers) if kind == "f8" else numbers < 0
        if not missing.any():
            return list(numbers.tolist())
        return [None if gone else value for value, gone in zip(numbers.tolist(), missing.tolist(), strict=True)]


def read_columns(directory: Path) -> dict[str, Any] | None:
    """Return the index of a corpus with lazy columns; None where there is no whole file of columns of this very index."""
    path = directory / _NAME
    try:
        with open(path, "rb") as file:
            checksum, _, header = file.readline().partition(b" ")
            start = file.tell()
        if int(checksum) != zlib.crc32(header):
            return None
        head = json.loads(header)
        if head["version"] != _VERSION or head["of"] != _identity(directory / "index.json"):
            return None
        columns = LazyColumns(path, start, head["columns"], head["index"]["n"])
        for name in ("length", "crc"):
            if len(columns.array(name)) != head["index"]["n"]:
                return None
        return {**head["index"], "columns": columns}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_columns(directory: Path, index: dict[str, Any]) -> None:
    """Write the columns of a corpus whose index lies in the directory, where that can be written to and they are many."""
    if index["n"] < FROM_CLIPS or read_columns(directory) is not None:
        return
    places: dict[str, list[Any]] = {}
    blobs: list[bytes] = []
    start = 0
    for name, values in index["columns"].items():
        kind, data = _encode([None] * index["n"] if values is None else values)
        places[name] = [kind, start, len(data), zlib.crc32(data)]
        blobs.append(data)
        start += len(data)
    with contextlib.suppress(OSError):
        head = {
            "version": _VERSION,
            "of": _identity(directory / "index.json"),
            "index": {key: value for key, value in index.items() if key != "columns"},
            "columns": places,
        }
        header = json.dumps(head, separators=(",", ":")).encode() + b"\n"
        atomic_write(directory / _NAME, b"%d " % zlib.crc32(header) + header + b"".join(blobs))


def remove_columns(directory: Path) -> None:
    """Remove the file of columns, before the index changes."""
    with contextlib.suppress(OSError):
        (directory / _NAME).unlink(missing_ok=True)


def _identity(path: Path) -> list[int]:
    """Return what tells an index: its size and the checksum that it begins with."""
    with open(path, "rb") as file:
        found = _HEAD.match(file.read(64))
        if found is None:
            raise ValueError("an index without a checksum")
        return [file.seek(0, 2), int(found.group(1))]


def _encode(values: list[Any]) -> tuple[str, bytes]:
    types = set(map(type, values)) - {type(None)}
    if not types or (types <= {int} and max(v for v in values if v is not None) < 1 << 62):
        return "i8", np.asarray([-1 if v is None else v for v in values], "<i8").tobytes()
    if types == {float}:
        return "f8", np.asarray([np.nan if v is None else v for v in values], "<f8").tobytes()
    if types == {list} and all(type(v) is int for found in values for v in found):
        counts, flat = [len(found) for found in values], [v for found in values for v in found]
        return "lists", np.asarray(counts + flat, "<i8").tobytes()
    return "json", json.dumps(values, separators=(",", ":")).encode()
