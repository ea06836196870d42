"""Audio in tables, as Hugging Face's data sets hold it: Parquet shards, or the Arrow streams that `save_to_disk` writes.

One row is one clip; its audio is a column of bytes or of {bytes, path}. UrbanSound8K's mirror is read with its own columns
(fold, fsID as group, salience; `start` and `end` are places in the original recording and cut nothing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.codecs.audio_bytes import AudioBytes
from audio_cls.data.codecs.tables import TABLE_SUFFIXES, table_columns, table_rows
from audio_cls.data.manifest import LARGEST_NUMBER, Clip, Faults, Manifest, natural_key, split_name
from audio_cls.data.sources.base import Source

__all__ = ["AudioTable"]

_USUAL = {
    "label": ("class", "label", "category", "labels"),
    "group": ("fsID", "group", "speaker", "speaker_id", "recording"),
    "fold": ("fold",),
    "id": ("slice_file_name", "id", "file_name", "filename", "path"),
}
_KEPT = ("salience", "title")
_SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\.\w+)")
_FILES = ("*.parquet", "data/*.parquet", "data-*.arrow", "*/data-*.arrow")


@dataclass(frozen=True)
class _Columns:
    """The columns that are read, by what they are for; `order` holds the numbers of the classes."""

    label: str
    group: str | None
    fold: str | None
    id: str | None
    order: str | None
    kept: tuple[str, ...]

    def wanted(self) -> list[str]:
        named = (self.label, self.group, self.fold, self.id, self.order, *self.kept)
        return list(dict.fromkeys(name for name in named if name))


class AudioTable(Source, kind="audio_table"):
    """Parquet shards or `save_to_disk` folders with a column of audio; shards named train-..., test-... are the official split."""

    order: ClassVar[int] = 20
    looks_for: ClassVar[str] = "Parquet files, or Arrow files of save_to_disk"
    audio: str = "audio"
    """The column of audio."""
    label: str | None = None
    """The column of the class, of its number, or of a list of them; none takes class, label, category or labels."""
    group: str | None = None
    """The column of groups; none takes fsID, group, speaker, speaker_id or recording."""
    partial: bool = False
    """Read the shards that are here although their names say that there are more."""

    def detect(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path) -> Manifest:
        files = _files(path)
        if not files:
            raise UserError(f"{path}: no Parquet files and no Arrow files of save_to_disk here")
        missing = _missing_shards(files)
        if missing and not self.partial and path.is_dir():
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UserError(
                f"{path}: {', '.join(missing[:5])}{more}: missing, by the names of the other shards. --set partial=true reads those that are here"
            )
        root = path if path.is_dir() else path.parent
        columns = self._columns(files[0])
        names = _class_names(files[0], columns.label)
        faults, clips, numbers = Faults(path), list[Clip](), dict[str, int]()
        extra: dict[str, list[Any]] = {name: [] for name in columns.kept}
        several = False
        for file in files:
            split = _split_of(file, root)
            for row, cells in enumerate(table_rows(file, columns.wanted())):
                clip, fault = _clip(file, row, cells, columns, names)
                if clip is None:
                    faults.found.append(f"{file.relative_to(root)}, row {row}: {fault}")
                    continue
                clips.append(replace(clip, split=split))
                several = several or isinstance(cells[columns.label], list)
                if columns.order:
                    numbers.setdefault(clip.labels[0], int(cells[columns.order] or 0))
                for key, values in extra.items():
                    values.append(cells[key])
        faults.check()
        found = {name for clip in clips for name in clip.labels}
        classes = names or tuple(sorted(found, key=lambda name: (numbers.get(name, 0), natural_key(name))))
        task = "multilabel" if several else "multiclass"
        kind = "urbansound8k" if columns.order else root.resolve().name
        codec = AudioBytes(column=self.audio)
        return Manifest(kind, tuple(clips), classes, task, "audio_table", root=root, codec=codec, extra=extra)

    def _columns(self, file: Path) -> _Columns:
        there, _ = table_columns(file)
        if self.audio not in there:
            raise UserError(
                f"{file}: no column {self.audio!r} (--set audio=NAME).{did_you_mean(self.audio, there)} It has {', '.join(there)}"
            )
        found = {key: next((name for name in usual if name in there), None) for key, usual in _USUAL.items()}
        for key in ("label", "group"):
            asked = getattr(self, key)
            if asked is not None and asked not in there:
                raise UserError(f"{file}: no column {asked!r} (--set {key}={asked}).{did_you_mean(asked, there)}")
            found[key] = asked or found[key]
        label = found["label"]
        if label is None:
            raise UserError(f"{file}: no column of labels (--set label=NAME). It has {', '.join(there)}")
        order = "classID" if label == "class" and "classID" in there else None
        kept = tuple(name for name in _KEPT if name in there)
        return _Columns(label, found["group"], found["fold"], found["id"], order, kept)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in TABLE_SUFFIXES else []
    for pattern in _FILES:
        found = sorted(path.glob(pattern), key=lambda p: natural_key(p.as_posix()))
        if found:
            return found
    return []


def _missing_shards(files: list[Path]) -> list[str]:
    """Return the names of shards (train-00001-of-00002.parquet) that are not there although others of their series are."""
    series: dict[tuple[Path, str, str, str], set[int]] = {}
    for file in files:
        if found := _SHARD.fullmatch(file.name):
            series.setdefault((file.parent, found[1], found[3], found[4]), set()).add(int(found[2]))
    return [
        f"{prefix}{k:0{len(total)}d}-of-{total}{suffix}"
        for (_, prefix, total, suffix), there in series.items()
        for k in range(int(total))
        if k not in there
    ]


def _split_of(file: Path, root: Path) -> str | None:
    """Return the split that a shard's name (train-00000-of-00016.parquet) or the folder of a saved data set says."""
    beside = file.parent.name if file.parent != root and file.suffix == ".arrow" else ""
    return split_name(beside) or split_name(file.name.partition("-")[0])


def _class_names(file: Path, column: str) -> tuple[str, ...]:
    """Return the names of a column of class numbers, from the features that the file or its folder declares; empty if none."""
    declared: list[Any] = [table_columns(file)[1]]
    if (file.parent / "dataset_info.json").is_file():
        try:
            declared.append(json.loads((file.parent / "dataset_info.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{file.parent / 'dataset_info.json'}: not JSON: {error}") from None
    for found in declared:
        feature = found.get("features", {}).get(column, {}) if isinstance(found, Mapping) else {}
        feature = feature.get("feature", feature) if isinstance(feature, Mapping) else {}
        if isinstance(feature, Mapping) and isinstance(feature.get("names"), list):
            return tuple(map(str, feature["names"]))
    return ()


def _labels(value: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Return the labels of a cell, and what is wrong with it."""
    out = []
    for item in _items(value):
        if isinstance(item, int) and not isinstance(item, bool) and names:
            if not 0 <= item < len(names):
                return (), f"{item}, there are {len(names)} classes"
            out.append(names[item])
        elif isinstance(item, str | int) and str(item).strip():
            out.append(str(item).strip())
        else:
            return (), f"{item!r}, not a label"
    return tuple(dict.fromkeys(out)), ""


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]


def _clip(
    file: Path, row: int, cells: Mapping[str, Any], columns: _Columns, names: tuple[str, ...]
) -> tuple[Clip | None, str]:
    """Return the clip of a row, or None and what is wrong with it."""
    labels, fault = _labels(cells[columns.label], names)
    if fault:
        return None, f"{columns.label} is {fault}"
    fold, group, name = (cells[column] if column else None for column in (columns.fold, columns.group, columns.id))
    if fold is not None and not (isinstance(fold, int) and 0 <= fold <= LARGEST_NUMBER):
        return None, f"fold is {fold!r}, not a whole number"
    clip_id = f"{file.name}#{row}" if name is None else str(name)
    return Clip(clip_id, file, labels, fold=fold, group=None if group is None else str(group), position=row), ""
