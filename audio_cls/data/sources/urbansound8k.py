"""UrbanSound8K as distributed: `audio/fold<n>/<slice_file_name>` and `metadata/UrbanSound8K.csv`.

J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research" (ACM Multimedia 2014). `start` and `end` of
the table are places in the recording that a slice was cut from, not in the slice: every file is one whole clip. Slices of one
recording (`fsID`) overlap, so they are one group; the published folds keep them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from audio_cls.data.manifest import LARGEST_NUMBER, Clip, Faults, Manifest
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.csv import read_rows

__all__ = ["COLUMNS", "UrbanSound8K", "class_order", "slice_fault"]

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
_TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
_SALIENCE = {"1": "foreground", "2": "background"}


class UrbanSound8K(Source, kind="urbansound8k"):
    """UrbanSound8K: ten folds, the recording (`fsID`) as group, classes in the order of `classID`."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "metadata/UrbanSound8K.csv"

    def detect(self, path: Path) -> bool:
        return any((path / name).is_file() for name in _TABLES)

    def read(self, path: Path) -> Manifest:
        return _read(path)


def _read(root: Path) -> Manifest:
    table = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    _, rows = read_rows(table, COLUMNS)
    audio = root / "audio" if (root / "audio").is_dir() else root
    faults, clips = Faults(table), list[Clip]()
    salience = list[str]()
    for row, cells in rows:
        fault = slice_fault(cells)
        if fault:
            faults.add(fault, row)
            continue
        file = f"fold{int(cells['fold'])}/{cells['slice_file_name']}"
        clips.append(
            Clip(
                cells["slice_file_name"],
                audio / file,
                (cells["class"],),
                int(cells["fold"]),
                group=cells["fsID"],
                row=row,
            )
        )
        salience.append(_SALIENCE[cells["salience"]])
    classes = class_order([(row, cells["classID"], cells["class"]) for row, cells in rows], faults)
    faults.check()
    note = _unlisted(audio, {clip.path for clip in clips})
    extra = {"salience": tuple(salience)}
    return Manifest("urbansound8k", tuple(clips), classes, "multiclass", "urbansound8k", note, root=root, extra=extra)


def slice_fault(cells: Mapping[str, str]) -> str | None:
    """Return what is wrong with a row of the table, or None. The file's name repeats `fsID` and `classID`."""
    for name in ("fold", "classID"):
        if not cells[name].isdecimal() or int(cells[name]) > LARGEST_NUMBER:
            return f"{name} is {cells[name]!r}, not a whole number"
    if cells["salience"] not in _SALIENCE:
        return f"salience is {cells['salience']!r}, not 1 (foreground) or 2 (background)"
    if not cells["class"] or not cells["fsID"] or not cells["slice_file_name"]:
        return "class, fsID or slice_file_name is empty"
    parts = cells["slice_file_name"].split("-")
    if parts[:2] != [cells["fsID"], cells["classID"]]:
        return f"the file name {cells['slice_file_name']!r} is of another fsID or classID than {cells['fsID']}, {cells['classID']}"
    return None


def class_order(rows: list[tuple[int, str, str]], faults: Faults) -> tuple[str, ...]:
    """Return the classes in the order of their numbers, from (row, number, class); a number of two classes is a fault."""
    by_number: dict[int, tuple[str, int]] = {}
    by_name: dict[str, tuple[int, int]] = {}
    for row, text, name in rows:
        if not text.isdecimal():
            continue
        number = int(text)
        other, first = by_number.setdefault(number, (name, row))
        if other != name:
            faults.add(f"class {number} is {name!r} here and {other!r} in row {first}", row)
        known, first = by_name.setdefault(name, (number, row))
        if known != number:
            faults.add(f"{name!r} is class {number} here and {known} in row {first}", row)
    return tuple(dict.fromkeys(by_number[number][0] for number in sorted(by_number)))


def _unlisted(audio: Path, listed: set[Path]) -> str:
    """Return a note on audio files that the table does not name."""
    found = [
        entry.path
        for folder in sorted(audio.glob("fold*"))
        if folder.is_dir()
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(".wav") and not entry.name.startswith(".")
    ]
    extra = sorted(set(map(Path, found)) - listed)
    if not extra:
        return ""
    return f"{len(extra)} audio files that the table does not name were left out ({extra[0].parent.name}/{extra[0].name}, ...)"
