"""The clip table: what a data set says about its clips, before any audio is decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError, choices, did_you_mean

if TYPE_CHECKING:
    from audio_cls.data.codecs.base import Codec

__all__ = [
    "LARGEST_NUMBER",
    "SPLITS",
    "TASKS",
    "Clip",
    "Faults",
    "Manifest",
    "display_name",
    "natural_key",
    "split_name",
]

LARGEST_NUMBER = 2**31 - 1  # of a fold

TASKS = ("multiclass", "multilabel")
SPLITS = ("train", "validation", "test")

_ALIASES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One example.

    Attributes:
        id: unique within its manifest; like labels and group valid text, whatever the file's name is (`display_name`).
        path: the audio file. A name that is not UTF-8 is kept as Python keeps it, with surrogates for its bytes.
        labels: names of classes; exactly one in a multiclass set, any number in a multilabel set.
        fold: the published fold, or None.
        split: "train", "validation", "test", or None.
        group: what must not be torn apart (a recording, a speaker), or None.
        start, end: the part of the file, in seconds; None is the file's begin or end.
        row: the line of the metadata file that told of it (its header is line 1), or None.
        position: where it is in a file of many clips: the byte at which its record begins, or its row; else None.
    """

    id: str
    path: Path
    labels: tuple[str, ...]
    fold: int | None = None
    split: str | None = None
    group: str | None = None
    start: float | None = None
    end: float | None = None
    row: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        return self.id if self.row is None else f"{self.id} (row {self.row})"


@dataclass(frozen=True)
class Manifest:
    """A data set's clips in their published order, its classes in the order of the targets' columns.

    `source` says which layout was read and from where; paths below `root` are kept relative to it, so that a moved data
    set is still recognised. Labels are not checked against `classes` here: a clip with an unknown label is a bad clip,
    which `prepare` leaves out or refuses, as asked. `group_pattern` is the regular expression by which the groups were taken
    from the paths, if they were (`name_groups.with_groups`).

    Attributes:
        codec: decodes the clips' files; None decodes audio files.
        extra: more columns of the data set by name, one value a clip (text, a number or None); kept, and not in the digest.
        lists: fold -> "train", "validation" or "test" -> ids of clips, for folds that are no partition of the clips.
        families: class -> names of its families, as by an ontology; kept, and not in the digest.
        options: of the layout, those not at their defaults, as `--set KEY=VALUE` takes them; kept, so that a repair can name them.

    Raises:
        UserError: no clips, no classes, a class twice, an unknown task, a column of another length, or a list that names a
            clip that is not there.
    """

    name: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    task: str
    source: str
    note: str = ""
    root: Path | None = None
    group_pattern: str | None = None
    codec: Codec | None = None
    extra: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    lists: Mapping[int, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UserError(f"{self.source}: {self.task!r} is no task. {choices(self.task, TASKS)}")
        if not self.clips:
            raise UserError(f"{self.source}: no clips found")
        twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if twice or not self.classes:
            raise UserError(f"{self.source}: classes must be one or more different names, found {twice or 'none'}")
        if unknown := [name for name in self.families if name not in self.classes]:
            raise UserError(f"{self.source}: families of {unknown[0]!r}, which is no class")
        for name, values in self.extra.items():
            if len(values) != len(self.clips):
                raise UserError(f"{self.source}: column {name!r} has {len(values)} values for {len(self.clips)} clips")
        ids = {clip.id for clip in self.clips} if self.lists else set()
        for fold, sides in self.lists.items():
            for side, listed in sides.items():
                if side not in SPLITS:
                    raise UserError(f"{self.source}: fold {fold}: {side!r} is no side. {choices(side, SPLITS)}")
                absent = next((name for name in listed if name not in ids), None)
                if absent is not None:
                    near = did_you_mean(absent, ids)
                    raise UserError(f"{self.source}: fold {fold} lists {absent!r} for {side}, which is no clip.{near}")

    def __len__(self) -> int:
        return len(self.clips)

    def relative(self, clip: Clip) -> str:
        """Return the clip's path as it is stored: below `root` where it is there, with forward slashes."""
        if self.root is not None and clip.path.is_relative_to(self.root):
            return clip.path.relative_to(self.root).as_posix()
        return clip.path.as_posix()


class Faults:
    """Collects the faults of one file, so that a user sees them together and not one at each attempt."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, list[str]()

    def add(self, message: str, row: int | None = None) -> None:
        self.found.append(f"{self.path}{'' if row is None else f', row {row}'}: {message}")

    def check(self) -> None:
        """Raise a `UserError` with the first ten faults and their count, if there are any."""
        if self.found:
            more = f"\n... and {len(self.found) - 10} more" if len(self.found) > 10 else ""
            raise UserError("\n".join(self.found[:10]) + more)


def split_name(text: str) -> str | None:
    """`"val"` -> `"validation"`; None for a word that names no split."""
    word = text.strip().lower()
    return next((name for name, words in _ALIASES.items() if word in words), None)


def display_name(name: str | Path) -> str:
    r"""Return a file's name as text that can be shown and stored: bytes that are not UTF-8 as `\xe9`; other names as
    they are.
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which "take2" stands before "take10"."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in parts]
