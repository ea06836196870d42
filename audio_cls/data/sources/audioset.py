"""AudioSet's published embeddings: TFRecord files of SequenceExample in `bal_train`, `eval` and `unbal_train`.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events" (ICASSP 2017). Up to ten vectors of 128
bytes a clip (VGGish, PCA, quantised). Files are named by the first two characters of their clips' video ids, so that names may
differ in case only. All labels of a clip are kept; one class against the rest is a view of them (`data.labels`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from audio_cls.core.errors import UserError
from audio_cls.data.codecs.sequence_example import SequenceExamples, parse_context
from audio_cls.data.codecs.tfrecord import BrokenRecord, records
from audio_cls.data.manifest import Clip, Faults, Manifest
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.ontology import families_of, read_ontology

__all__ = ["AudioSet"]

_PARTS = {"bal_train": "train", "unbal_train": "train", "eval": "test"}
_MAP = "class_labels_indices.csv"


class AudioSet(Source, kind="audioset"):
    """AudioSet's embeddings: 128 bytes a second, any number of labels, the evaluation set as test split."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "bal_train, eval or unbal_train with .tfrecord files"
    train: Literal["balanced", "unbalanced", "both"] = "balanced"
    """The training set: bal_train, unbal_train, or both."""
    class_map: str | None = None
    """class_labels_indices.csv (index, mid, display_name); none takes one that lies beside the records or above them."""
    ontology: str | None = None
    """The AudioSet ontology (ontology.json), for the families of the classes; none takes one beside the class map."""

    def detect(self, path: Path) -> bool:
        return any(
            next((folder / part).glob("*.tfrecord"), None) is not None for folder in _roots(path) for part in _PARTS
        )

    def read(self, path: Path) -> Manifest:
        root = next((folder for folder in _roots(path) if any((folder / part).is_dir() for part in _PARTS)), None)
        if root is None:
            raise UserError(f"{path}: no folders bal_train, eval or unbal_train here, or empty")
        table = self._class_map(path, root)
        names, ids = _classes(table)
        clips = list[Clip]()
        notes = list[str]()
        for part, split in _PARTS.items():
            if part in ("bal_train", "unbal_train") and self.train not in (
                "both",
                {"bal_train": "balanced"}.get(part, "unbalanced"),
            ):
                continue
            files = sorted((root / part).glob("*.tfrecord"))
            if not files:
                notes.append(f"{part} is not here")
            for file in files:
                clips += _clips(file, root, split, names, table)
        file = Path(self.ontology) if self.ontology else table.parent / "ontology.json"
        families: Mapping[str, tuple[str, ...]] = {}
        if self.ontology or file.is_file():
            families = families_of(dict(zip(names.values(), ids, strict=True)), read_ontology(file), file)
        return Manifest(
            "audioset",
            tuple(clips),
            tuple(names.values()),
            "multilabel",
            f"audioset:{self.train}",
            "; ".join(notes),
            root,
            codec=SequenceExamples(),
            families=families,
        )

    def _class_map(self, path: Path, root: Path) -> Path:
        if self.class_map is not None:
            return Path(self.class_map)
        for folder in (root, path, root.parent):
            if (folder / _MAP).is_file():
                return folder / _MAP
        raise UserError(f"{path}: {_MAP} is missing (the names of the classes): put it there, or --set class_map=FILE")


def _roots(path: Path) -> list[Path]:
    return [path, path / "audioset_v1_embeddings"]


def _classes(path: Path) -> tuple[dict[int, str], list[str]]:
    """Return number -> class and the machine ids, in order, of the class map (index, mid, display_name)."""
    faults, names, ids = Faults(path), dict[int, str](), list[str]()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or not {"index", "mid", "display_name"} <= set(reader.fieldnames):
                raise UserError(
                    f"{path}, row 1: columns index, mid, display_name are needed, found {reader.fieldnames}"
                )
            for cells in reader:
                row, index, name = reader.line_num, cells["index"] or "", cells["display_name"] or ""
                if not index.isdecimal() or not name or int(index) in names or name in names.values():
                    faults.add(f"index {index!r}, display_name {name!r}: not a number and a name that stand once", row)
                    continue
                names[int(index)] = name
                ids.append(cells["mid"] or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    faults.check()
    return names, ids


def _clips(file: Path, root: Path, split: str, names: Mapping[int, str], table: Path) -> list[Clip]:
    """Return the clips of a file: a record each, known by its video and its second of begin."""
    clips, where = [], file.relative_to(root)
    if file.stat().st_size == 0:
        raise UserError(f"{file}: empty: it holds no records (an interrupted download?)")
    for number, (offset, data) in enumerate(records(file), start=1):
        try:
            context = parse_context(data)
        except BrokenRecord as error:
            raise UserError(f"{file}, record {number} (at byte {offset:,}): {error}") from None
        video, labels = _only(context, "video_id"), context.get("labels", [])
        if not isinstance(video, bytes):
            raise UserError(f"{file}, record {number}: it has no video_id")
        unknown = next((k for k in labels if k not in names), None)
        if unknown is not None:
            raise UserError(
                f"{file}, record {number} ({video.decode(errors='replace')}): label {unknown} is not in {table}"
            )
        name = video.decode("utf-8", "backslashreplace")
        start = _only(context, "start_time_seconds")
        part = "" if start is None else f"@{start:g}"
        clips.append(
            Clip(
                f"{where.parent.name}/{name}{part}",
                file,
                tuple(dict.fromkeys(names[k] for k in labels)),
                split=split,
                group=name,
                position=offset,
            )
        )
    return clips


def _only(context: Mapping[str, list[Any]], name: str) -> Any:
    values = context.get(name, [])
    return values[0] if len(values) == 1 else None
