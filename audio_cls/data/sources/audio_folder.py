"""A folder for each class; optionally train, val and test folders above them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from audio_cls.core.errors import UserError
from audio_cls.data.audio import AUDIO_SUFFIXES
from audio_cls.data.manifest import Clip, Manifest, display_name, natural_key, split_name
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.known import refuse_names

__all__ = ["AudioFolder"]


class AudioFolder(Source, kind="audio_folder"):
    """A folder for each class, below train, val and test folders where there are any."""

    order: ClassVar[int] = 40
    looks_for: ClassVar[str] = "folders of audio files by class"
    group_pattern: str | None = None
    """A regular expression that finds each clip's group in its path, such as speaker\\d+."""
    name: str | None = None
    """Of the data set; none takes the folder's."""

    def detect(self, path: Path) -> bool:
        if path.is_dir():
            refuse_names(path)
        return path.is_dir() and any(next(_audio(folder), None) is not None for folder in _folders(path))

    def read(self, path: Path) -> Manifest:
        return _read(path, self.group_pattern, self.name)


def _read(root: Path, group_pattern: str | None, name: str | None) -> Manifest:
    """Read `root/<class>/**/clip.wav`, or `root/<train|val|test>/<class>/**/clip.wav`.

    Classes are the folders' names, sorted. Hidden files and folders, and files that are no audio by their ending, are
    passed over (the manifest's note counts them).

    Args:
        group_pattern: a regular expression searched in each clip's path relative to `root`; what its first group (or
            else all of it) matches is the clip's group, for example `r"speaker\\d+"`.
        name: of the data set; None takes the folder's.

    Raises:
        UserError: no class folders, a class folder without audio, or audio beside the class folders.
    """
    if not root.is_dir():
        raise UserError(f"{root}: not a folder")
    try:
        pattern = None if group_pattern is None else re.compile(group_pattern)
    except re.error as error:
        raise UserError(f"group_pattern={group_pattern!r}: not a regular expression: {error}") from None
    top = _folders(root)
    splits = {folder: split_name(folder.name) for folder in top}
    by_split = "train" in splits.values() and all(splits.values())
    if any(splits.values()) and not by_split and "train" in splits.values():
        odd = next(f for f, s in splits.items() if s is None)
        raise UserError(
            f"{root}: {odd.name!r} stands beside the folder of a split; either all top folders are splits or none"
        )
    levels = [(folder, splits[folder]) for folder in top] if by_split else [(root, None)]
    clips, passed_over = [], 0
    for level, split in levels:
        stray = next((p for p in sorted(level.iterdir()) if p.is_file() and p.suffix.lower() in AUDIO_SUFFIXES), None)
        if stray is not None:
            raise UserError(f"{stray}: lies beside the class folders, so it has no class")
        for folder in _folders(level):
            files = sorted(_audio(folder), key=lambda p: natural_key(p.relative_to(root).as_posix()))
            if not files:
                raise UserError(
                    f"{folder}: a class folder without audio (endings: {', '.join(sorted(AUDIO_SUFFIXES))})"
                )
            passed_over += sum(len(names) for _, _, names in os.walk(folder)) - len(files)
            for path in files:
                relative = display_name(path.relative_to(root).as_posix())
                found = pattern.search(relative) if pattern else None
                group = (found.group(1) if found.groups() else found.group()) if found else None
                clips.append(Clip(relative, path, (display_name(folder.name),), split=split, group=group))
    if not clips:
        raise UserError(f"{root}: no class folders with audio in them")
    classes = tuple(sorted({c.labels[0] for c in clips}, key=natural_key))
    note = f"{passed_over} files that are no audio by their ending were passed over" if passed_over else ""
    return Manifest(
        name or display_name(root.resolve().name), tuple(clips), classes, "multiclass", "audio_folder", note, root
    )


def _folders(path: Path) -> list[Path]:
    return sorted(
        (p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural_key(p.name)
    )


def _audio(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (Path(path, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in AUDIO_SUFFIXES)
