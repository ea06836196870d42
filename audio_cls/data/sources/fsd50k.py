"""FSD50K as distributed: `FSD50K.dev_audio`, `FSD50K.eval_audio`, `FSD50K.ground_truth`, `FSD50K.metadata`.

E. Fonseca, X. Favory, J. Pons, F. Font, X. Serra, "FSD50K: An Open Dataset of Human-Labeled Sound Events" (IEEE/ACM TASLP 2022).
`dev.csv` names training and validation clips, `eval.csv` is the test split. Labels stand leaf first, ancestors after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.manifest import Clip, Faults, Manifest, split_name
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.csv import read_rows
from audio_cls.data.sources.ontology import families_of, read_ontology
from audio_cls.data.sources.rows import read_plain_rows

__all__ = ["Fsd50k"]

_TRUTH, _METADATA = "FSD50K.ground_truth", "FSD50K.metadata"


class Fsd50k(Source, kind="fsd50k"):
    """FSD50K: 200 labels, train and val of the development set, the evaluation set as test split, uploaders as groups."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "FSD50K.ground_truth"
    parts: Literal["all", "dev", "eval"] = "all"
    """Which sets are read."""
    ontology: str | None = None
    """The AudioSet ontology (ontology.json), for the families of the classes; none takes one that lies beside the data."""

    def detect(self, path: Path) -> bool:
        return (path / _TRUTH / "vocabulary.csv").is_file()

    def read(self, path: Path) -> Manifest:
        ids = _vocabulary(path / _TRUTH / "vocabulary.csv")
        clips = list[Clip]()
        notes = list[str]()
        for part in ("dev", "eval") if self.parts == "all" else (self.parts,):
            made, note = _clips(path, part, ids)
            clips += made
            notes += [note] if note else []
        families, note = self._families(path, ids)
        return Manifest(
            "fsd50k",
            tuple(clips),
            tuple(ids),
            "multilabel",
            f"fsd50k:{self.parts}",
            "; ".join(part for part in (*notes, note) if part),
            path,
            families=families,
        )

    def _families(self, root: Path, ids: dict[str, str]) -> tuple[dict[str, tuple[str, ...]], str]:
        beside = [root / folder / "ontology.json" for folder in ("", _TRUTH, _METADATA)]
        file = Path(self.ontology) if self.ontology else next((p for p in beside if p.is_file()), None)
        if file is None:
            return {}, "no ontology.json beside the data (--set ontology=FILE): the classes have no families"
        return families_of(ids, read_ontology(file), file), ""


def _vocabulary(path: Path) -> dict[str, str]:
    """Return class -> machine id, in the order of the vocabulary (index, label, mid; no header)."""
    faults, ids = Faults(path), dict[str, str]()
    for row, cells in read_plain_rows(path, ("index", "label", "mid"), ","):
        if cells["index"] != str(len(ids)):
            faults.add(f"index {cells['index']!r}, expected {len(ids)}", row)
        if cells["label"] in ids or cells["mid"] in ids.values():
            faults.add(f"{cells['label']!r} ({cells['mid']}) stands twice", row)
        ids[cells["label"]] = cells["mid"]
    faults.check()
    return ids


def _clips(root: Path, part: str, ids: dict[str, str]) -> tuple[list[Clip], str]:
    """Return the clips of `dev` or `eval`, and a note."""
    table, audio = root / _TRUTH / f"{part}.csv", root / f"FSD50K.{part}_audio"
    columns = ("fname", "labels", "mids", *(("split",) if part == "dev" else ()))
    _, rows = read_rows(table, columns)
    if not audio.is_dir():
        other = "eval" if part == "dev" else "dev"
        raise UserError(
            f"{audio}: this folder is missing, {table} names {len(rows)} clips in it. Unpack it there, or read the other "
            f"set alone: --set parts={other}"
        )
    uploaders, note = _uploaders(root / _METADATA / f"{part}_clips_info_FSD50K.json")
    faults, clips = Faults(table), []
    for row, cells in rows:
        labels, mids = _listed(cells["labels"]), _listed(cells["mids"])
        unknown = next((label for label in labels if label not in ids), None)
        split = split_name(cells["split"]) if part == "dev" else "test"
        if unknown is not None:
            faults.add(f"the label {unknown!r} is not in vocabulary.csv.{did_you_mean(unknown, ids)}", row)
        elif len(labels) != len(mids) or any(ids[label] != mid for label, mid in zip(labels, mids, strict=True)):
            faults.add(f"the mids {cells['mids']!r} are not those of the labels {cells['labels']!r}", row)
        elif split is None or (part == "dev" and split == "test"):
            faults.add(f"the split {cells['split']!r} is neither train nor val", row)
        elif uploaders and cells["fname"] not in uploaders:
            faults.add(f"{cells['fname']!r} has no entry in {part}_clips_info_FSD50K.json", row)
        else:
            file = audio / f"{cells['fname']}.wav"
            group = uploaders.get(cells["fname"])
            clips.append(Clip(cells["fname"], file, tuple(dict.fromkeys(labels)), split=split, group=group, row=row))
    faults.check()
    return clips, note


def _uploaders(path: Path) -> tuple[dict[str, str], str]:
    """Return clip -> uploader, and a note where the file is missing."""
    if not path.is_file():
        return {}, f"{path.parent.name}/{path.name} is missing: its clips name no uploader, so they have no groups"
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(entry["uploader"]) for name, entry in info.items()}, ""
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not the clips' metadata: {error}") from None
    except KeyError as error:
        raise UserError(f"{path}: an entry without {error}") from None


def _listed(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(",") if part.strip()]
