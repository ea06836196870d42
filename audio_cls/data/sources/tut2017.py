"""TUT Acoustic Scenes 2017 (DCASE 2017, task 1) as distributed: `meta.txt`, `evaluation_setup/`, `audio/`, `error.txt`.

A. Mesaros, T. Heittola, T. Virtanen, "TUT database for acoustic scene classification and sound event detection" (EUSIPCO 2016).
The four folds are lists of clips and no partition: some clips are evaluated in two of them. Clips of one recording
(`meta.txt`, third column) are one group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.manifest import Clip, Faults, Manifest, natural_key
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.rows import find_clip, read_plain_rows

__all__ = ["Tut2017"]

_SETUP = "evaluation_setup"
_FOLD = re.compile(r"fold(\d+)_(train|evaluate|test)\.txt")


class Tut2017(Source, kind="tut2017"):
    """TUT Acoustic Scenes 2017: the published folds as lists of clips, recordings as groups, optionally the evaluation set."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "meta.txt and evaluation_setup/fold1_train.txt"
    evaluation: str | None = None
    """The folder of the evaluation set with its published labels, which becomes the test split."""
    errors: Literal["keep", "leave_out"] = "keep"
    """What happens to clips in which error.txt lists a failure of the microphone."""

    def detect(self, path: Path) -> bool:
        return (path / _SETUP).is_dir() and any(
            (path / _SETUP / name).is_file() for name in ("fold1_train.txt", "evaluate.txt", "test.txt")
        )

    def read(self, path: Path) -> Manifest:
        folds = _fold_files(path / _SETUP)
        if not folds:
            return _manifest(
                path, _evaluation_clips(path), {}, {}, "the evaluation set alone: every clip is in the test split"
            )
        clips = _development_clips(path)
        errors = _errors(path / "error.txt", clips)
        if self.errors == "leave_out":
            clips = [clip for clip in clips if clip.id not in errors]
        left_out = set(errors) if self.errors == "leave_out" else set()
        lists = {fold: _lists(files, clips, left_out) for fold, files in folds.items()}
        did = "were left out" if left_out else "are kept (--set errors=leave_out leaves them out)"
        note = f"{len(errors)} clips with failures of the microphone (error.txt) {did}" if errors else ""
        if self.evaluation is not None:
            clips += _evaluation_clips(Path(self.evaluation))
        return _manifest(path, clips, errors, lists, note)


def _manifest(
    root: Path,
    clips: list[Clip],
    errors: Mapping[str, str],
    lists: Mapping[int, Mapping[str, tuple[str, ...]]],
    note: str,
) -> Manifest:
    classes = tuple(sorted({label for clip in clips for label in clip.labels}, key=natural_key))
    extra = {"error": tuple(errors.get(clip.id) for clip in clips)} if errors else {}
    return Manifest("tut2017", tuple(clips), classes, "multiclass", "tut2017", note, root, extra=extra, lists=lists)


def _development_clips(root: Path) -> list[Clip]:
    """Return the clips of meta.txt: file, scene, recording."""
    faults, clips = Faults(root / "meta.txt"), dict[str, Clip]()
    for row, cells in read_plain_rows(root / "meta.txt", ("file", "scene", "recording")):
        name = cells["file"]
        if name in clips:
            faults.add(f"{name!r} is listed in row {clips[name].row} too", row)
        if not cells["scene"] or not cells["recording"]:
            faults.add("the scene or the recording is empty", row)
        clips[name] = Clip(name, root / name, (cells["scene"],), group=cells["recording"], row=row)
    faults.check()
    return list(clips.values())


def _evaluation_clips(root: Path) -> list[Clip]:
    """Return the clips of the evaluation set, whose labels were published later than its audio."""
    table = next((p for p in (root / "meta.txt", root / _SETUP / "evaluate.txt") if p.is_file()), None)
    if table is None:
        raise UserError(
            f"{root}: the evaluation set without labels (no meta.txt, no {_SETUP}/evaluate.txt): nothing can be trained or "
            "evaluated on it. Put its published meta.txt there, or label it with a trained run: audio-cls predict RUN FOLDER"
        )
    columns = ("file", "scene", "recording") if table.name == "meta.txt" else ("file", "scene")
    rows = read_plain_rows(table, columns)
    recordings = _mapped_recordings(root / _SETUP / "map.txt", {cells["file"] for _, cells in rows})
    return [
        Clip(
            f"evaluation/{cells['file']}",
            root / cells["file"],
            (cells["scene"],),
            split="test",
            group=f"evaluation/{found}" if (found := cells.get("recording") or recordings.get(cells["file"])) else None,
            row=row,
        )
        for row, cells in rows
    ]


def _mapped_recordings(path: Path, known: set[str]) -> dict[str, str]:
    """Return evaluation clip -> recording, from map.txt: the clip and the file that it was cut from, b020_90_100.wav of b020."""
    if not path.is_file():
        return {}
    faults, found = Faults(path), dict[str, str]()
    for row, cells in read_plain_rows(path, ("file", "original")):
        if cells["file"] not in known:
            faults.add(f"it names {cells['file']!r}, and there is no such clip in the evaluation set", row)
        found[cells["file"]] = Path(cells["original"]).stem.partition("_")[0]
    faults.check()
    return found


def _fold_files(folder: Path) -> dict[int, dict[str, Path]]:
    """Return fold -> "train", "evaluate" and, where it is there, "test" -> file."""
    folds: dict[int, dict[str, Path]] = {}
    if not folder.is_dir():
        raise UserError(f"{folder}: this folder is missing or empty")
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if found := _FOLD.fullmatch(path.name):
            folds.setdefault(int(found[1]), {})[found[2]] = path
    for fold, files in folds.items():
        missing = {"train", "evaluate"} - set(files)
        if missing:
            raise UserError(f"{folder}/fold{fold}_{min(missing)}.txt is missing")
    return folds


def _lists(files: Mapping[str, Path], clips: list[Clip], left_out: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the clips of a fold's train and evaluation list; what it evaluates validates."""
    numbers = {clip.id: i for i, clip in enumerate(clips)}
    lists, side_of = {}, dict[int, str]()
    for name, side in (("train", "train"), ("evaluate", "validation")):
        faults, listed = Faults(files[name]), list[int]()
        for row, cells in read_plain_rows(files[name], ("file", "scene")):
            if cells["file"] in left_out:
                continue
            i = find_clip(cells["file"], numbers, row, faults)
            if i is None:
                continue
            scene = clips[i].labels[0]
            if cells["scene"] != scene:
                known = {clip.labels[0] for clip in clips}
                faults.add(
                    f"{cells['file']!r} is {cells['scene']!r} here and {scene!r} in meta.txt.{did_you_mean(cells['scene'], known)}",
                    row,
                )
            if side_of.setdefault(i, side) != side:
                faults.add(f"{cells['file']!r} is in the training list of this fold too", row)
            listed.append(i)
        faults.check()
        lists[side] = tuple(clips[i].id for i in sorted(set(listed)))
    if "test" in files:
        _check_test_list(files["test"], set(lists["validation"]) | left_out, files["evaluate"].name)
    return lists


def _check_test_list(file: Path, evaluated: set[str], other: str) -> None:
    """Refuse a list of a fold's test clips that is not its evaluation list without the scenes."""
    faults = Faults(file)
    for row, cells in read_plain_rows(file, ("file",)):
        if cells["file"] not in evaluated:
            faults.add(f"{cells['file']!r} is not in {other}", row)
    faults.check()


def _errors(path: Path, clips: list[Clip]) -> dict[str, str]:
    """Return clip -> where its audio has failures, from error.txt: the file, then times or remarks."""
    if not path.is_file():
        return {}
    faults, found, known = Faults(path), dict[str, str](), {clip.id for clip in clips}
    for row, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, _, rest = line.strip().partition("\t")
        if not name:
            continue
        if name not in known:
            faults.add(f"it names {name!r}, and there is no such clip in meta.txt", row)
        found[name] = "; ".join(
            part for part in (found.get(name, ""), rest.replace("\t", " ").strip() or "listed") if part
        )
    faults.check()
    return found
