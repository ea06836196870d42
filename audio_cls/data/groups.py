"""Groups of clips (recordings, speakers) and the sides of a split that they are on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split

__all__ = [
    "PUBLISHED_SCHEMES",
    "check_leak",
    "group_names",
    "natural_key",
    "published_parts",
    "shared_groups",
    "shared_groups_declared",
    "shared_groups_notes",
    "shared_groups_published",
    "shared_groups_text",
]

PUBLISHED_SCHEMES = {"splits": "official", "folds": "folds, cross_validation"}
"""The split schemes that follow each of the `published_parts`."""


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts `speaker2` before `speaker10`."""
    parts = re.split(r"([0-9]+)", name)
    numbers = ((len(p.lstrip("0")), p.lstrip("0")) if i % 2 else (0, p) for i, p in enumerate(parts))
    return (*numbers, (0, name))


def group_names(corpus: Corpus) -> list[str]:
    """Return the names of a corpus's groups in natural order."""
    return sorted({g for g in corpus.groups if g is not None}, key=natural_key)


def shared_groups(corpus: Corpus, split: Split, groups: Sequence[str | None] | None = None) -> dict[str, list[str]]:
    """Return the groups with clips on more than one side of a split: name -> sides, in the order of the corpus.

    Args:
        groups: (n_clips,) the group of each clip; the corpus's own unless given.
    """
    groups = corpus.groups if groups is None else groups
    where: dict[str, list[str]] = {}
    for name, side in split.sides().items():
        for i in side.tolist():
            group = groups[i]
            if group is not None and name not in where.setdefault(group, []):
                where[group].append(name)
    return {group: sides for group, sides in where.items() if len(sides) > 1}


def shared_groups_text(n: int) -> str:
    """Return the remark that goes with every figure of a split that shares groups; empty for n = 0."""
    if n == 0:
        return ""
    subject = "1 group stands" if n == 1 else f"{n} groups stand"
    return (
        f"{subject} on more than one side of the split (data.split.allow_shared_groups=true): figures may be optimistic"
    )


def shared_groups_declared(experiment: Mapping[str, Any]) -> str:
    """Return the remark on an experiment (as `to_dict` gives it) that allows shared groups, where the corpus is not
    at hand to count them; empty for one that does not.
    """
    split = experiment.get("data", {}).get("split") or {}
    if not split.get("allow_shared_groups"):
        return ""
    return "groups may stand on more than one side of the split (data.split.allow_shared_groups=true): figures may be optimistic"


def check_leak(corpus: Corpus, split: Split, allow_shared_groups: bool | None = None) -> None:
    """Refuse a split in which a clip or a group (recording, speaker) stands on two sides.

    Args:
        allow_shared_groups: whether groups may be shared; None for a split whose scheme has no such key.

    Raises:
        UserError: naming the first five groups, their sides, and how many there are.
    """
    clips: dict[int, str] = {}
    for name, side in split.sides().items():
        for i in side.tolist():
            if i in clips:
                raise UserError(f"{corpus.name!r}: clip {corpus.ids[i]!r} stands in {clips[i]} and in {name}")
            clips[i] = name
    if allow_shared_groups:
        return
    shared = shared_groups(corpus, split)
    if shared:
        named = [f"{group!r} ({' and '.join(sides)})" for group, sides in list(shared.items())[:5]]
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        way_on = "" if allow_shared_groups is None else ", or accept it: data.split.allow_shared_groups=true (recorded)"
        raise UserError(
            f"{corpus.name!r}: {len(shared)} group{'s' if len(shared) > 1 else ''} on two sides of the split: "
            f"{', '.join(named)}{more}. Clips of one group must stay together: use the split 'grouped' or 'k_fold', mend "
            f"the groups{way_on}"
        )


def published_parts(corpus: Corpus) -> dict[str, Sequence[object]]:
    """Return where the data set itself puts each clip, (n_clips,): its "splits" and its "folds", None for nowhere."""
    return {"splits": corpus.splits, "folds": [None if f < 0 else f for f in corpus.folds.tolist()]}


def shared_groups_published(corpus: Corpus) -> dict[str, int]:
    """Return the number of groups with clips in more than one of the published "splits" or "folds"; what is not
    shared is left out.
    """
    counts = {}
    for part, names in published_parts(corpus).items():
        where: dict[str, set[object]] = {}
        for group, name in zip(corpus.groups, names, strict=True):
            if group is not None and name is not None:
                where.setdefault(group, set()).add(name)
        counts[part] = sum(len(found) > 1 for found in where.values())
    return {part: n for part, n in counts.items() if n}


def shared_groups_notes(corpus: Corpus) -> list[str]:
    """Return what to say of a corpus whose published splits or folds share groups, and the ways on: a line for each."""
    notes = []
    for part, n in shared_groups_published(corpus).items():
        notes.append(
            f"{n} of {len(group_names(corpus))} groups have clips in more than one of the published {part}. Keep groups whole with "
            f"data.split=grouped, k_fold or leave_one_group_out; data.split={PUBLISHED_SCHEMES[part]} needs data.split.allow_shared_groups=true, "
            "which every record and page then says"
        )
    return notes
