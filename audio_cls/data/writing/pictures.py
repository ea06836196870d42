"""Write a corpus as pictures in a folder for each class (`data.sources.pictures` reads them)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus

__all__ = ["FOLD_PATTERN", "GROUP_PATTERN", "write_pictures"]

FOLD_PATTERN, GROUP_PATTERN = r"fold(\d+)__", "group-(.+?)__"
"""Find the fold and the group in the names of the files."""
_LONGEST_NAME = 120
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def write_pictures(
    corpus: Corpus,
    pixels: Callable[[int], NDArray[np.uint8]],
    folder: Path,
    progress: Callable[[int, int, str], None],
) -> int:
    """Write one PNG a clip; fold and group stand in its name. Pictures that are there are kept. Returns how many were written.

    Args:
        pixels: clip -> (height, width) uint8, time to the right.

    Raises:
        UserError: for a corpus of several labels a clip, or classes that cannot be told apart as names of folders.
    """
    from PIL import Image

    if corpus.task != "multiclass":
        raise UserError(f"{corpus.name!r} is {corpus.task}: a folder for each class holds one label a clip")
    classes = _distinct([_safe(name) for name in corpus.classes], "classes")
    groups = _group_names(corpus)
    whole = all(corpus.splits)
    written = 0
    for i, clip_id in enumerate(corpus.ids):
        below = folder / _SPLITS[corpus.splits[i] or ""] if whole else folder
        parts = [f"fold{corpus.folds[i]}"] if corpus.folds[i] >= 0 else []
        group = corpus.groups[i]
        parts += [f"group-{groups[group]}"] if group is not None else []
        stem = _safe(clip_id.rpartition(".")[0] or clip_id)[-_LONGEST_NAME:]
        path = below / classes[corpus.label_lists[i][0]] / ("__".join([*parts, f"{i:06d}-{stem}"]) + ".png")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            Image.fromarray(pixels(i)).save(partial, format="PNG")
            os.replace(partial, path)
            written += 1
        progress(i + 1, len(corpus), clip_id)
    return written


def _group_names(corpus: Corpus) -> dict[str, str]:
    """Return names of the groups that a file's name can hold: their own, or numbers where two would become one."""
    groups = list(dict.fromkeys(group for group in corpus.groups if group is not None))
    names = [re.sub("_+", "_", _safe(group)).strip("_")[:40] for group in groups]
    if len(set(names)) < len(names) or not all(names):
        names = [str(k) for k in range(len(groups))]
    return dict(zip(groups, names, strict=True))


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+() -]", "-", name).lstrip(".") or "-"


def _distinct(names: list[Any], what: str) -> list[Any]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two {what} would both be named {twice[0]!r} as a folder: give one another name (data.labels=mapped)"
        )
    return names
