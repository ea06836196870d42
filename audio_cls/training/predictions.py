"""Stored predictions: the probability of every class for every clip, as CSV text that goes into a run's artifacts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError

__all__ = ["LAST_SCORES", "SCORES", "Scores", "read_scores", "scores_csv"]

SCORES = "scores.csv"
"""The artifact with the validation probabilities of the best epoch's weights."""

LAST_SCORES = "scores_last.csv"
"""The same of the last epoch's weights."""


@dataclass(frozen=True, eq=False)
class Scores:
    """clips: (n,) ids. classes: (n_classes,) names. values: (n, n_classes) probabilities, six digits."""

    clips: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.float64]


def scores_csv(clips: Sequence[str], values: NDArray[Any], classes: Sequence[str]) -> str:
    """One row for each clip: its id, then a probability for each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", *classes])
    for clip, row in zip(clips, np.asarray(values).tolist(), strict=True):
        writer.writerow([clip, *(f"{v:.6g}" for v in row)])
    return text.getvalue()


def read_scores(path: Path) -> Scores:
    """Read what `scores_csv` wrote.

    Raises:
        UserError: for a file that is not such a table, naming the row.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:1] != ["clip"]:
            raise UserError(f"{path}: expected a table that begins with 'clip', found {header[:1]}")
        clips, values = [], []
        for number, row in enumerate(rows, start=2):
            try:
                clips.append(row[0])
                values.append([float(v) for v in row[1:]])
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells for {len(header)} columns")
            except (ValueError, IndexError) as error:
                raise UserError(f"{path}, row {number}: {error}") from None
    return Scores(tuple(clips), tuple(header[1:]), np.array(values, dtype=np.float64).reshape(len(clips), -1))
