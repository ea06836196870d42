"""What each clip says about two arms: its influence on the difference of every pair of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.base import metric_of, plain_name
from audio_cls.metrics.crossed import Cell
from audio_cls.metrics.influence import unit_influences
from audio_cls.metrics.predictions import Predictions

__all__ = ["ClipDifferences", "ClipSpread", "clip_differences", "clip_spread"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClipDifferences:
    """The influence of each unit on the difference of two arms, run by run.

    cells: (seed, fold) of the pairs. units: (n_units,) names of the clips, or of the groups where clips are grouped.
    grouped: whether units are groups. influence: (n_cells, n_units), one minus the other arm; 0 where a unit is not
    in a fold.
    """

    cells: tuple[Cell, ...]
    units: tuple[str, ...]
    grouped: bool
    influence: Array

    def of(self, cells: Sequence[Cell]) -> Array:
        """Return the influence in some of the cells, (n_cells, n_units), without the units that are in none of them."""
        rows = self.influence[[self.cells.index(cell) for cell in cells]]
        return rows if len(cells) == len(self.cells) else rows[:, (rows != 0).any(axis=0)]


@dataclass(frozen=True, eq=False)
class ClipSpread:
    """What the sampling of clips alone makes a suite's mean difference vary by, in squared units of the metric.

    Of one or many grids; arrays have the leading shape of the influences.

    mean: variance of the mean over folds and seeds. df: its degrees of freedom. fold: of the mean over seeds in one fold.
    run: the part of one run's variance that is new with each seed; NaN with one seed. n_units: clips or groups in all.
    """

    mean: Array
    df: Array
    fold: Array
    run: Array
    n_units: int


def clip_differences(
    one: Mapping[Cell, Predictions], other: Mapping[Cell, Predictions], metric: str
) -> ClipDifferences | None:
    """Return the influence of each clip, or group of clips, on `metric` of one arm minus the other, for each common cell.

    None where predictions do not say: for the loss, for a figure that is not finite, without a common cell, where two
    runs of a cell are not on the same clips, or where a cell has a single clip or group.

    Raises:
        ConfigError: for a metric that no run reports.
    """
    figure = metric_of(metric)
    cells = sorted(one.keys() & other.keys())
    if not cells or plain_name(metric) == "loss":
        return None
    pairs = [(one[cell], other[cell]) for cell in cells]
    figure = figure.for_families(pairs[0][0].families) or figure
    if any(a.clips != b.clips or len(a) < 2 for a, b in pairs):
        return None
    of_clips = [a.groups if a.groups is not None else a.clips for a, _ in pairs]
    units = sorted({unit for names in of_clips for unit in names})
    grouped = any(len(set(names)) < len(names) for names in of_clips)
    place = {unit: i for i, unit in enumerate(units)}
    influence = np.zeros((len(cells), len(units)))
    for row, ((a, b), names) in enumerate(zip(pairs, of_clips, strict=True)):
        unit_of = np.array([place[name] for name in names])
        n = len(np.unique(unit_of))
        if n < 2:
            return None
        difference = unit_influences(a, figure, unit_of, len(units)) - unit_influences(b, figure, unit_of, len(units))
        influence[row] = difference * np.sqrt(n / (n - 1))
    if not np.isfinite(influence).all():
        return None
    return ClipDifferences(tuple(cells), tuple(units), grouped, influence)


def clip_spread(influence: Array, cells: Sequence[Cell]) -> ClipSpread:
    """Return the clips' share of the variance of the mean over folds (of the mean over seeds).

    Args:
        influence: (..., n_cells, n_units) as in `ClipDifferences`, rows in the order of `cells`.
    """
    folds, fold_of = np.unique([k for _, k in cells], return_inverse=True)
    member = np.eye(len(folds))[fold_of]  # (n_cells, n_folds)
    by_fold = (member / member.sum(axis=0)).T @ influence  # (..., n_folds, n_units) of the mean over seeds
    whole = by_fold.mean(axis=-2)
    repeats = len(cells) - len(folds)
    within = ((influence - by_fold[..., fold_of, :]) ** 2).sum(axis=(-1, -2))
    return ClipSpread(
        mean=(whole**2).sum(axis=-1),
        df=_degrees(whole),
        fold=(by_fold**2).sum(axis=-1).mean(axis=-1),
        run=within / repeats if repeats else within + nan,
        n_units=influence.shape[-1],
    )


def _degrees(influence: Array) -> Array:
    """Return the degrees of freedom of a sum of squares: 2 n / (kurtosis - 1), which few units that differ make small."""
    n, squares = influence.shape[-1], influence**2
    total = squares.sum(axis=-1)
    kurtosis = n * (squares**2).sum(axis=-1) / np.where(total > 0, total, 1.0) ** 2
    return np.clip(2 * n / np.maximum(kurtosis - 1, 1e-9), 1.0, max(n - 1, 1))
