"""A folder of pictures for each class (PNG, JPEG): spectrograms that somebody else has drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from audio_cls.core.errors import UserError
from audio_cls.data.codecs.pictures import PICTURE_SUFFIXES, Pictures
from audio_cls.data.manifest import LARGEST_NUMBER, Clip, Manifest, display_name, natural_key, split_name
from audio_cls.data.sources.base import Source

__all__ = ["PictureFolder"]


class PictureFolder(Source, kind="pictures"):
    """Pictures in a folder for each class, below train, val and test folders where there are any. Time runs to the right unless said."""

    order: ClassVar[int] = 45
    looks_for: ClassVar[str] = "folders of PNG or JPEG pictures by class"
    time: Literal["right", "left", "down", "up"] = "right"
    """Where later is in the pictures: see the preview of `data describe --html`."""
    height: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Pixels across time; none takes the height that most have."""
    width: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Pixels along time; none keeps each picture's proportions."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colours; none takes what the pictures have."""
    columns_per_second: Annotated[float, Field(gt=0)] = 100.0
    """Pixels along time that are one second."""
    group_pattern: str | None = None
    """A regular expression that finds each picture's group in its path, such as speaker\\d+."""
    fold_pattern: str | None = None
    """A regular expression whose first group is the number of each picture's fold in its path, such as fold(\\d+)."""

    def detect(self, path: Path) -> bool:
        return path.is_dir() and any(next(_pictures(folder), None) is not None for _, folder in _class_folders(path))

    def read(self, path: Path) -> Manifest:
        groups, folds = _compiled("group_pattern", self.group_pattern), _compiled("fold_pattern", self.fold_pattern)
        clips = list[Clip]()
        for split, folder in _class_folders(path):
            files = sorted(_pictures(folder), key=lambda p: natural_key(p.relative_to(path).as_posix()))
            if not files:
                raise UserError(
                    f"{folder}: a class folder without pictures (endings: {', '.join(sorted(PICTURE_SUFFIXES))})"
                )
            for file in files:
                name = display_name(file.relative_to(path).as_posix())
                fold = _fold(name, folds)
                label = display_name(folder.name)
                clips.append(Clip(name, file, (label,), fold=fold, split=split, group=_matched(name, groups)))
        if not clips:
            raise UserError(f"{path}: no class folders with pictures in them, or empty")
        names = ("time", "height", "width", "columns_per_second", *(("channels",) if self.channels else ()))
        codec = Pictures.parse({name: getattr(self, name) for name in names}, "layout pictures")
        codec = codec.fitted([clip.path for clip in clips])
        classes = tuple(sorted({clip.labels[0] for clip in clips}, key=natural_key))
        notes = [
            f"time runs {_DIRECTION[self.time]}: check it (data describe NAME --html page.html), or say --set time=...",
            codec.resized([clip.path for clip in clips]),
        ]
        return Manifest(
            display_name(path.resolve().name),
            tuple(clips),
            classes,
            "multiclass",
            "pictures",
            "; ".join(filter(None, notes)),
            path,
            codec=codec,
        )


_DIRECTION = {"right": "to the right", "left": "to the left", "down": "downwards", "up": "upwards"}


def _compiled(option: str, pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise UserError(f"{option}={pattern!r}: not a regular expression: {error}") from None


def _matched(name: str, pattern: re.Pattern[str] | None) -> str | None:
    """Return what the first group of a pattern, or all of it where it has none, matches in a path."""
    found = pattern.search(name) if pattern else None
    return (found.group(1) if found.groups() else found.group()) if found else None


def _fold(name: str, pattern: re.Pattern[str] | None) -> int | None:
    text = _matched(name, pattern)
    if text is None and pattern is None:
        return None
    if text is None or not (text.isdecimal() and int(text) <= LARGEST_NUMBER):
        raise UserError(
            f"{name}: fold_pattern={pattern.pattern if pattern else None!r} finds {text!r} in this path, not the number of a fold"
        )
    return int(text)


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return (split, folder of a class); the split of the folder above where those are train, val, test."""
    top = _folders(root)
    splits = [split_name(folder.name) for folder in top]
    if "train" in splits and all(splits):
        return [(split, folder) for split, above in zip(splits, top, strict=True) for folder in _folders(above)]
    return [(None, folder) for folder in top]


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    found = (entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(found, key=lambda p: natural_key(p.name))


def _pictures(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                yield Path(path, name)
