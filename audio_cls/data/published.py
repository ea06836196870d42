"""What a data set publishes beside its clips: further columns, lists of clips for each fold, families of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LIST_SIDES", "Published"]

LIST_SIDES = ("train", "validation", "test")
Value = str | int | float | None


@dataclass(frozen=True)
class Published:
    """What a data set publishes beside its clips.

    Attributes:
        columns: of its tables, by name: one value for each clip (salience, title, ...).
        lists: fold -> "train", "validation" or "test" -> clip numbers. For folds that are no partition of the clips;
            others stand in `Clip.fold`.
        families: class -> the names of its families, for example its top-level ancestors in an ontology.
    """

    columns: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    lists: Mapping[int, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.lists or self.families)

    def keep(self, clips: Iterable[int]) -> Published:
        """Return the same for a part of the clips, in the given order, which are numbered from 0 again."""
        kept = list(clips)
        number = {old: new for new, old in enumerate(kept)}
        return Published(
            {name: tuple(values[i] for i in kept) for name, values in self.columns.items()},
            {
                fold: {
                    side: tuple(sorted(number[i] for i in numbers if i in number)) for side, numbers in sides.items()
                }
                for fold, sides in self.lists.items()
            },
            self.families,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries and lists; what is empty is left out."""
        parts: dict[str, Any] = {
            "columns": {name: list(values) for name, values in self.columns.items()},
            "lists": {
                str(fold): {side: list(numbers) for side, numbers in sides.items()}
                for fold, sides in self.lists.items()
            },
            "families": {name: list(families) for name, families in self.families.items()},
        }
        return {name: part for name, part in parts.items() if part}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Published:
        """Return what `to_json` gave."""
        return cls(
            {name: tuple(values) for name, values in data.get("columns", {}).items()},
            {
                int(fold): {side: tuple(numbers) for side, numbers in sides.items()}
                for fold, sides in data.get("lists", {}).items()
            },
            {name: tuple(families) for name, families in data.get("families", {}).items()},
        )

    def fault(self, n_clips: int, classes: Iterable[str]) -> str | None:
        """Return what does not fit `n_clips` clips of these classes, or None. Values of wrong types are faults too: an index
        may come from an archive.
        """
        for name, values in self.columns.items():
            if len(values) != n_clips:
                return f"the published column {name!r} has {len(values)} values for {n_clips} clips"
            if any(not isinstance(value, str | int | float | None) for value in values):
                return f"the published column {name!r} holds values that are neither text nor numbers"
        for fold, sides in self.lists.items():
            for side, numbers in sides.items():
                if side not in LIST_SIDES:
                    return f"the list {side!r} of fold {fold} is none of {', '.join(LIST_SIDES)}"
                if any(type(i) is not int or not 0 <= i < n_clips for i in numbers):
                    return f"the list {side!r} of fold {fold} names a clip that is not there"
        known = set(classes)
        for name, families in self.families.items():
            if name not in known or any(not isinstance(family, str) for family in families):
                return f"families of the class {name!r}, which is not there"
        return None
