"""Audio in tables, as Hugging Face's data sets hold it: Parquet shards, or the Arrow streams that `save_to_disk` writes.

One row is one clip; its audio is a column of bytes or of {bytes, path}. UrbanSound8K's mirror is read with its own columns
(fold, fsID as group, salience; `start` and `end` are places in the original recording and cut nothing).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
_FILES = ("*.parquet", "data/*.parquet", "data-*.arrow", "*/data-*.arrow")


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

    def detect(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path) -> Manifest:
        files = _files(path)
        if not files:
            raise UserError(f"{path}: no Parquet files and no Arrow files of save_to_disk here")
        root = path if path.is_dir() else path.parent
        columns = self._columns(files[0])
        names = _class_names(files[0], columns["label"])
        faults, clips, numbers = Faults(path), list[Clip](), dict[str, int]()
        extra: dict[str, list[Any]] = {name: [] for name in _KEPT if name in columns["kept"]}
        wanted = [name for name in (*columns["all"], *extra) if name]
        several = False
        for file in files:
            split = _split_of(file, root)
            for row, cells in enumerate(table_rows(file, wanted)):
                where = f"{file.relative_to(root)}, row {row}"
                labels, fault = _labels(cells[columns["label"]], names)
                if fault:
                    faults.found.append(f"{where}: {columns['label']} is {fault}")
                    continue
                several = several or isinstance(cells[columns["label"]], list)
                if columns["order"]:
                    numbers.setdefault(labels[0], int(cells[columns["order"]] or 0))
                fold, group = _cell(cells, columns["fold"]), _cell(cells, columns["group"])
                if fold is not None and not (isinstance(fold, int) and 0 <= fold <= LARGEST_NUMBER):
                    faults.found.append(f"{where}: fold is {fold!r}, not a whole number")
                    continue
                name = _cell(cells, columns["id"])
                clips.append(
                    Clip(
                        str(name) if name is not None else f"{file.name}#{row}",
                        file,
                        labels,
                        fold=fold,
                        split=split,
                        group=None if group is None else str(group),
                        position=row,
                    )
                )
                for key, values in extra.items():
                    values.append(cells[key])
        faults.check()
        classes = names or tuple(
            sorted({n for c in clips for n in c.labels}, key=lambda n: (numbers.get(n, 0), natural_key(n)))
        )
        task = "multilabel" if several else "multiclass"
        kind = "urbansound8k" if columns["order"] else root.resolve().name
        codec = AudioBytes(column=self.audio)
        return Manifest(kind, tuple(clips), classes, task, "audio_table", root=root, codec=codec, extra=extra)

    def _columns(self, file: Path) -> dict[str, Any]:
        """Return the columns to read, by what they are for."""
        there, _ = table_columns(file)
        if self.audio not in there:
            raise UserError(
                f"{file}: no column {self.audio!r} (--set audio=NAME).{did_you_mean(self.audio, there)} It has {', '.join(there)}"
            )
        found: dict[str, Any] = {
            key: next((name for name in usual if name in there), None) for key, usual in _USUAL.items()
        }
        for key in ("label", "group"):
            asked = getattr(self, key)
            if asked is not None and asked not in there:
                raise UserError(f"{file}: no column {asked!r} (--set {key}={asked}).{did_you_mean(asked, there)}")
            found[key] = asked or found[key]
        if found["label"] is None:
            raise UserError(f"{file}: no column of labels (--set label=NAME). It has {', '.join(there)}")
        if found["label"] == "class" and "classID" in there:
            found["order"] = "classID"
        found.setdefault("order", None)
        found["all"] = tuple(
            dict.fromkeys(found[key] for key in ("label", "group", "fold", "id", "order") if found[key])
        )
        found["kept"] = there
        return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in TABLE_SUFFIXES else []
    for pattern in _FILES:
        found = sorted(path.glob(pattern), key=lambda p: natural_key(p.as_posix()))
        if found:
            return found
    return []


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


def _cell(cells: Mapping[str, Any], column: str | None) -> Any:
    return cells[column] if column else None
