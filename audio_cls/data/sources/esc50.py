"""ESC-50's layout: `audio/`, and `meta/esc50.csv` with filename, fold, target, category, esc10, src_file, take.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification" (ACM Multimedia 2015). Clips cut from the same
Freesound recording (`src_file`) are one group; the published folds respect them.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from audio_cls.core.errors import UserError, choices
from audio_cls.data.manifest import Clip, Faults, Manifest
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.csv import read_rows

__all__ = ["Esc50"]

_COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
_SUBSETS = ("all", "esc10")


class Esc50(Source, kind="esc50"):
    """ESC-50, or with `subset=esc10` the ten classes that are flagged so. Classes are in the order of `target`."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "meta/esc50.csv"
    subset: str = "all"
    """all or esc10."""

    def detect(self, path: Path) -> bool:
        return (path / "meta" / "esc50.csv").is_file()

    def read(self, path: Path) -> Manifest:
        return _read(path, self.subset)


def _read(root: Path, subset: str) -> Manifest:
    """Read the table.

    Raises:
        UserError: a missing column or a cell that makes no sense, by file and row; an unknown subset.
    """
    if subset not in _SUBSETS:
        raise UserError(f"subset={subset!r}: {choices(subset, _SUBSETS)}")
    path = root / "meta" / "esc50.csv"
    _, rows = read_rows(path, _COLUMNS)
    faults, clips = Faults(path), []
    numbers: dict[str, tuple[int, int]] = {}  # class -> (target, the row that told first)
    flagged = 0
    for row, cells in rows:
        if cells["esc10"].lower() not in ("true", "false"):
            faults.add(f"esc10 is {cells['esc10']!r}, not True or False", row)
        if not all(cells[name].isdecimal() and len(cells[name]) < 10 for name in ("fold", "target")):
            faults.add(f"fold {cells['fold']!r} and target {cells['target']!r} must be whole numbers below 1e9", row)
            continue
        if not cells["filename"] or not cells["category"]:
            faults.add("filename or category is empty", row)
            continue
        if subset == "esc10" and cells["esc10"].lower() != "true":
            continue
        target, category = int(cells["target"]), cells["category"]
        known, first = numbers.setdefault(category, (target, row))
        if known != target:
            faults.add(f"{category!r} has target {target} here and {known} in row {first}", row)
        flagged += cells["esc10"].lower() == "true"
        clips.append(
            Clip(
                id=cells["filename"],
                path=root / "audio" / cells["filename"],
                labels=(category,),
                fold=int(cells["fold"]),
                group=cells["src_file"] or None,
                row=row,
            )
        )
    faults.check()
    if not clips:
        raise UserError(f"{path}: no row is flagged as ESC-10")
    by_target: dict[int, str] = {}
    for category, (target, row) in numbers.items():
        other = by_target.setdefault(target, category)
        if other != category:
            faults.add(f"target {target} is {category!r} here and {other!r} in row {numbers[other][1]}", row)
    faults.check()
    name = "esc10" if flagged == len(clips) else "esc50"
    classes = tuple(by_target[t] for t in sorted(by_target))
    return Manifest(name, tuple(clips), classes, "multiclass", f"esc50:{subset}", root=root)
