"""Columns of a corpus by which a run's figures are told apart: its groups, and what else the data set says of each clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError, choices
from audio_cls.data.corpus import Corpus

__all__ = ["GROUP", "clip_column", "clip_columns"]

GROUP = "group"  # the name of the groups (recordings, speakers), which are a column of their own in a corpus
FEW = 20  # values of a column that is shown unasked
PER_VALUE = 3  # clips of a value, on average, below which a column says little


def clip_column(corpus: Corpus, name: str, rows: NDArray[np.int64]) -> list[str]:
    """Return what a column says of some clips, as text; "none" where it says nothing.

    Raises:
        UserError: for a column that the corpus does not have.
    """
    values: Sequence[object]
    if name in corpus.extra:
        values = corpus.extra[name]
    elif name == GROUP and any(corpus.groups):
        values = corpus.groups
    else:
        known = [*corpus.extra, *([GROUP] if any(corpus.groups) else [])]
        raise UserError(f"{corpus.name!r} has no column {name!r} of its clips. {choices(name, known)}")
    found = (values[int(i)] for i in rows)
    return ["none" if value is None else str(value) for value in found]


def clip_columns(corpus: Corpus, rows: NDArray[np.int64]) -> dict[str, list[str]]:
    """Return the columns that are worth a figure of these clips, by name: of few values with some clips each; and the groups, where
    their clips are several.
    """
    columns = {name: clip_column(corpus, name, rows) for name in corpus.extra if name != GROUP}
    counts = {name: Counter(values) for name, values in columns.items()}
    found = {
        name: columns[name]
        for name, values in counts.items()
        if 1 < len(values) <= FEW and len(rows) >= PER_VALUE * len(values)
    }
    if any(corpus.groups):
        groups = clip_column(corpus, GROUP, rows)
        if len(set(groups)) > 1 and len(rows) >= PER_VALUE * len(set(groups)):
            found[GROUP] = groups
    return found
