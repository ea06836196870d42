"""The index of a packed corpus: what it holds, by columns, as JSON.

Its second line is the CRC-32 of the lines after it. File names that are not UTF-8 stand in it with JSON's escapes for lone
surrogates, as Python reads them back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.core.payload import Payload, waveform_payload
from audio_cls.data.audio import MAX_RATE
from audio_cls.data.manifest import SPLITS, TASKS

__all__ = [
    "CLIP_COLUMNS",
    "FORMAT_VERSION",
    "ROWS_VERSION",
    "content_digest",
    "payload_of",
    "read_index",
    "recorded_rate",
    "write_index",
]

FORMAT_VERSION = 1
"""Of the index of a corpus of waveforms."""
ROWS_VERSION = 2
"""Of an index that holds a `payload` (of rows that are no waveforms) or `lists` (of folds that are no partition)."""
CLIP_COLUMNS = ("id", "path", "labels", "fold", "split", "group", "start", "end", "row")
_TEXT, _WHOLE, _LIST = frozenset({str}), frozenset({int}), frozenset({list})
_NUMBER, _OR_NOTHING = frozenset({int, float}), frozenset({type(None)})
_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(("name", "source", "note", "fingerprint", "samples", "digest", "task"), _TEXT),
    "n": _WHOLE,
    **dict.fromkeys(("classes", "bad"), _LIST),
    "root": _TEXT | _OR_NOTHING,
}
_COLUMN_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(("id", "path", "key"), _TEXT),
    **dict.fromkeys(("split", "group"), _TEXT | _OR_NOTHING),
    **dict.fromkeys(("fold", "row"), _WHOLE | _OR_NOTHING),
    **dict.fromkeys(("start", "end"), _NUMBER | _OR_NOTHING),
    **dict.fromkeys(("length", "crc", "rate", "channels"), _WHOLE),
    "gain": _NUMBER,
    "labels": _LIST,
    "position": _WHOLE | _OR_NOTHING,
}
_FACTS = ("length", "crc", "key")  # of every clip; those of a waveform:
_WAVEFORM_FACTS = ("rate", "channels", "gain")
_EXTRA = frozenset({str, int, float, type(None)})


def payload_of(index: dict[str, Any]) -> Payload:
    """Return what an index says of its rows: `payload`, or else int16 samples at its sample rate.

    Raises:
        KeyError, TypeError, ValueError: for what no index says.
    """
    if "payload" in index:
        return Payload.parse(index["payload"])
    if type(index["sample_rate"]) is not int or not 1 <= index["sample_rate"] <= MAX_RATE:
        raise ValueError(f"sample_rate is {index['sample_rate']!r}")
    return waveform_payload(index["sample_rate"])


def read_index(directory: Path) -> dict[str, Any]:
    """Return the index as a dictionary whose `columns` all have `n` values.

    Raises:
        UserError: no corpus there, another format version, or an index that does not hold together.
    """
    path = directory / "index.json"
    try:
        data = path.read_bytes()
        index = json.loads(data)
        version = index["version"]
    except FileNotFoundError:
        busy = (
            " An interrupted `prepare` lies there: run it again to finish it."
            if (directory / "partial").exists()
            else ""
        )
        raise UserError(f"{directory}: no corpus here (index.json is missing).{busy}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the index of a corpus ({error}); prepare the corpus again") from None
    if version not in (FORMAT_VERSION, ROWS_VERSION):
        raise UserError(
            f"{path}: format version {version}, this version reads {FORMAT_VERSION} and {ROWS_VERSION}; "
            "prepare the corpus again"
        )
    try:
        n, columns = index["n"], index["columns"]
        for name in _columns_of(index):
            if columns[name] is None:
                columns[name] = [None] * n
            if len(columns[name]) != n:
                raise UserError(
                    f"{path}: column {name!r} has {len(columns[name])} values for {n} clips; prepare the corpus again"
                )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: incomplete (no {error}); prepare the corpus again") from None
    whole = _checksum(data) == index["checksum"] if "checksum" in index else _digest_holds(index)
    if not whole:
        raise UserError(f"{path}: damaged: it does not match its checksum; prepare the corpus again")
    fault = _nonsense(index)
    if fault:
        raise UserError(f"{path}: damaged: {fault}; prepare the corpus again")
    return dict(index)


def _columns_of(index: dict[str, Any]) -> tuple[str, ...]:
    more = ("position",) if "position" in index["columns"] else ()
    return (*CLIP_COLUMNS, *more, *_FACTS, *(() if "payload" in index else _WAVEFORM_FACTS))


def _nonsense(index: dict[str, Any]) -> str | None:
    """Return what in an index cannot be, whoever wrote it: an archive may bring one whose checksum is right."""
    try:
        columns, classes = index["columns"], index["classes"]
        for name, types in _TYPES.items():
            values = index[name]
            if type(values) not in types:
                return f"{name} is {values!r}"
        for name in _columns_of(index):
            types = _COLUMN_TYPES[name]
            wrong = set(map(type, columns[name])) - types
            if wrong:
                return f"the column {name!r} holds {sorted(t.__name__ for t in wrong)[0]} values"
            if types & _NUMBER and not _are_plain_numbers(columns[name]):
                return f"the column {name!r} holds numbers that cannot be"
        payload = payload_of(index)
        if not re.fullmatch(rf"samples-[0-9a-f]{{16}}\.{payload.suffix}", index["samples"]):
            return f"its samples are named {index['samples']!r}"
        if not re.fullmatch(r"[0-9a-f]{64}", index["digest"]):
            return f"its digest is {index['digest']!r}"
        if index["task"] not in TASKS or index["n"] < 1:
            return f"{index['task']!r}, {index['n']} clips"
        if not classes or set(map(type, classes)) != {str} or len(set(classes)) != len(classes):
            return "its classes are not different names"
        if not set(chain.from_iterable(columns["labels"])) <= set(range(len(classes))):
            return "labels of classes that it does not have"
        if not all(
            isinstance(a, str) and isinstance(b, str) and (row is None or type(row) is int) and isinstance(c, str)
            for a, b, row, c in index["bad"]
        ):
            return "its list of bad clips is none"
        for name, values in index.get("extra", {}).items():
            if len(values) != index["n"] or not set(map(type, values)) <= _EXTRA:
                return f"the column {name!r} does not hold a value for each clip"
        for name, families in index.get("families", {}).items():
            if name not in classes or type(families) is not list or set(map(type, families)) - {str}:
                return f"the families of {name!r} are none"
        for fold, sides in index.get("lists", {}).items():
            rows = [row for side in sides.values() for row in side]
            if not set(sides) <= set(SPLITS) or not all(type(r) is int and 0 <= r < index["n"] for r in rows):
                return f"the lists of fold {int(fold)} do not name its clips"
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _are_plain_numbers(values: list[Any]) -> bool:
    numbers = np.asarray([v for v in values if v is not None], dtype=np.float64)
    return bool(((numbers >= 0) & (numbers < 1 << 53)).all())


def recorded_rate(directory: Path) -> int | None:
    """Return the sample rate that a corpus, or a preparation of it that was interrupted, was packed at; None if
    there is none.
    """
    for path in (directory / "index.json", directory / "partial" / "request.json"):
        try:
            rate = json.loads(path.read_bytes())["sample_rate"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(rate, int):
            return rate
    return None


def _checksum(data: bytes) -> int:
    """Return CRC-32 of what follows the second line of an index, which holds it."""
    return zlib.crc32(data.split(b"\n", 2)[-1])


def _digest_holds(index: dict[str, Any]) -> bool:
    """Whether an index without a checksum, as older versions wrote, holds what its digest says."""
    try:
        return content_digest(index) == index["digest"]
    except (KeyError, TypeError, ValueError):
        return False


def content_digest(index: dict[str, Any]) -> str:
    """Return SHA-256 (hex) over what an experiment depends on: audio, labels, folds, splits, groups, classes, task,
    sample rate or payload, lists of folds.

    Neither paths nor names nor the place of the corpus go in.
    """
    columns = index["columns"]
    names = ("length", "crc", "labels", "fold", "split", "group")
    parts = [
        index["version"],
        index["task"],
        index["classes"],
        index["payload"] if "payload" in index else index["sample_rate"],
        *([columns[name] for name in names]),
        *([index["lists"]] if "lists" in index else []),
    ]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def write_index(path: Path, index: dict[str, Any]) -> None:
    """Write an index with its checksum, durably."""
    columns = {name: None if all(v is None for v in values) else values for name, values in index["columns"].items()}

    def dump(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    lines = [f"{dump(key)}: {dump(value)}" for key, value in index.items() if key != "columns"]
    lines.append(
        '"columns": {\n' + ",\n".join(f"{dump(name)}: {dump(values)}" for name, values in columns.items()) + "\n}"
    )
    rest = (",\n".join(lines) + "\n}\n").encode(
        "utf-8", "backslashreplace"
    )  # a lone surrogate becomes JSON's escape of it
    with open(path, "wb") as file:
        file.write(b'{\n"checksum": %d,\n' % zlib.crc32(rest) + rest)
        file.flush()
        os.fsync(file.fileno())
