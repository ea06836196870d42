"""Speech Commands as distributed: a folder for each word, `validation_list.txt`, `testing_list.txt`, `_background_noise_`.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition" (arXiv:1804.03209, 2018). The part of a
file's name before `_nohash_` is the speaker. Folders that begin with an underscore hold no words.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from audio_cls.core.errors import UserError
from audio_cls.data.manifest import Clip, Faults, Manifest, natural_key
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.rows import find_clip, read_plain_rows

__all__ = ["SpeechCommands"]

_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


class SpeechCommands(Source, kind="speech_commands"):
    """Speech Commands, version 1 or 2: the official validation and test lists, speakers as groups."""

    order: ClassVar[int] = 10
    looks_for: ClassVar[str] = "validation_list.txt and testing_list.txt"

    def detect(self, path: Path) -> bool:
        lists = [(path / name).is_file() for name in _LISTS.values()]
        return all(lists) or (any(lists) and (path / "_background_noise_").is_dir())

    def read(self, path: Path) -> Manifest:
        missing = [name for name in _LISTS.values() if not (path / name).is_file()]
        if missing:
            raise UserError(f"{path}: {missing[0]} is missing, the official split of Speech Commands needs it")
        files = _files(path)
        if not files:
            raise UserError(f"{path}: no folders of words with WAV files in them")
        split_of = _official_lists(path, {name: i for i, name in enumerate(files)})
        clips = tuple(
            Clip(name, path / name, (name.split("/")[0],), split=split_of.get(i, "train"), group=_speaker(name))
            for i, name in enumerate(files)
        )
        classes = tuple(sorted({clip.labels[0] for clip in clips}))
        noise = path / "_background_noise_"
        notes = ["_background_noise_ (long recordings, no words) was left out"] if noise.is_dir() else []
        unnamed = [clip.id for clip in clips if "_nohash_" not in clip.id]
        if unnamed:
            notes.append(
                f"{len(unnamed)} files without _nohash_ in their names ({unnamed[0]}, ...): each is taken for a speaker of its own"
            )
        if empty := _empty_words(path, classes):
            notes.append(f"{len(empty)} folders without WAV files were left out: {', '.join(empty[:5])}")
        return Manifest("speech_commands", clips, classes, "multiclass", "speech_commands", "; ".join(notes), path)


def _words(root: Path) -> list[str]:
    """Return the folders of words."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] not in "._")


def _empty_words(root: Path, classes: tuple[str, ...]) -> list[str]:
    return [word for word in _words(root) if word not in classes]


def _files(root: Path) -> list[str]:
    """Return word/file of all clips, in natural order."""
    return [
        f"{word}/{name}"
        for word in _words(root)
        for name in sorted(os.listdir(root / word), key=natural_key)
        if name.lower().endswith(".wav") and not name.startswith(".")
    ]


def _official_lists(root: Path, numbers: dict[str, int]) -> dict[int, str]:
    """Return clip number -> "validation" or "test"; what no list names trains."""
    split_of: dict[int, str] = {}
    for split, name in _LISTS.items():
        faults = Faults(root / name)
        for row, cells in read_plain_rows(root / name, ("file",)):
            i = find_clip(cells["file"], numbers, row, faults)
            if i is not None and split_of.setdefault(i, split) != split:
                faults.add(f"{cells['file']!r} is in {_LISTS['validation']} too", row)
        faults.check()
    return split_of


def _speaker(name: str) -> str:
    stem = name.rsplit("/", 1)[-1].removesuffix(".wav")
    return stem.partition("_nohash_")[0]
