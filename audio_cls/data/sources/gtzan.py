"""GTZAN as distributed: `genres/<genre>/<genre>.<number>.wav` (or .au), also under the name `genres_original`.

G. Tzanetakis, P. Cook, "Musical genre classification of audio signals" (IEEE TSAP 2002). It has repeated and mislabelled
recordings and names no artists (B. L. Sturm, "The State of the Art Ten Years After a State of the Art", 2014), which is why the
fault-filtered lists (`train_filtered.txt`, `valid_filtered.txt`, `test_filtered.txt`) are taken as the official split if they lie
beside the genres. In the widely copied WAV version `jazz.00054.wav` cannot be decoded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from audio_cls.core.errors import UserError
from audio_cls.data.audio import BadAudio, source_rate
from audio_cls.data.manifest import Clip, Faults, Manifest, natural_key
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.rows import find_clip, read_plain_rows

__all__ = ["GENRES", "Gtzan"]

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_FOLDERS = ("genres_original", "genres", "Data/genres_original", ".")
_LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}
_ENOUGH_GENRES = 5  # to take a folder for GTZAN; the missing ones are then named
_KNOWN_BAD = "jazz.00054"
_NAME = re.compile(rf"({'|'.join(GENRES)})\.\d{{5}}\.(wav|au)")


class Gtzan(Source, kind="gtzan"):
    """GTZAN: ten genres of 100 clips; the file that is damaged in most copies is left out, and said."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "folders of the ten GTZAN genres with files such as blues.00000.wav"

    def detect(self, path: Path) -> bool:
        return _genres(path) is not None

    def read(self, path: Path) -> Manifest:
        folder = _genres(path)
        if folder is None:
            raise UserError(f"{path}: no folders {', '.join(GENRES)} with files such as blues.00000.wav")
        missing = [genre for genre in GENRES if not (folder / genre).is_dir()]
        if missing:
            raise UserError(f"{folder}: GTZAN has ten genres, and folders are missing: {', '.join(missing)}")
        clips = list[Clip]()
        notes = list[str]()
        for genre in GENRES:
            for file in sorted((folder / genre).iterdir(), key=lambda p: natural_key(p.name)):
                if _NAME.fullmatch(file.name) is None:
                    continue
                if file.stem == _KNOWN_BAD and (reason := _fault(file)):
                    notes.append(f"{file.name}, known to be damaged in most copies, was left out ({reason})")
                    continue
                clips.append(Clip(file.name, file, (genre,)))
        if len(clips) + len(notes) < 1000:
            notes.append(f"{len(clips) + len(notes)} of 1000 files are there")
        split_of = _official_lists(path, clips) or _official_lists(folder, clips)
        if not split_of:
            notes.append(
                "no fault-filtered lists (train_filtered.txt, ...) beside it: repetitions and artists may be on both sides of a split"
            )
        split = tuple(Clip(clip.id, clip.path, clip.labels, split=split_of.get(i)) for i, clip in enumerate(clips))
        return Manifest("gtzan", split, GENRES, "multiclass", "gtzan", "; ".join(notes), path)


def _genres(path: Path) -> Path | None:
    """Return the folder with the genres, half of them at least, at `path` or in one of the usual folders below it."""
    for name in _FOLDERS:
        there = [path / name / genre for genre in GENRES if (path / name / genre).is_dir()]
        if len(there) >= _ENOUGH_GENRES:
            first = sorted(p.name for p in there[0].iterdir() if not p.name.startswith("."))
            if first and _NAME.fullmatch(first[0]):
                return path / name
    return None


def _fault(file: Path) -> str:
    """Return why a file cannot be decoded; empty if it can."""
    try:
        source_rate(file)
    except BadAudio as error:
        return str(error)
    return ""


def _official_lists(folder: Path, clips: list[Clip]) -> dict[int, str]:
    """Return clip number -> split from the fault-filtered lists; empty where they are not all there."""
    if not all((folder / name).is_file() for name in _LISTS.values()):
        return {}
    numbers = {f"{clip.labels[0]}/{clip.path.stem}": i for i, clip in enumerate(clips)}
    split_of: dict[int, str] = {}
    for split, name in _LISTS.items():
        faults = Faults(folder / name)
        for row, cells in read_plain_rows(folder / name, ("file",)):
            stem = cells["file"].removesuffix(".wav").removesuffix(".au")
            if stem.endswith(_KNOWN_BAD) and stem not in numbers:
                continue
            i = find_clip(stem, numbers, row, faults)
            if i is not None and split_of.setdefault(i, split) != split:
                faults.add(f"{cells['file']!r} is in the {split_of[i]} list too", row)
        faults.check()
    return split_of
