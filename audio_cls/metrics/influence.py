"""How much each clip moves a figure: the influence function at the clips at hand, for every metric.

With a weight on each clip (1 for all), the influence of a clip is the derivative of the figure by its weight. The sum of
squared influences estimates the variance of the figure over new clips (infinitesimal jackknife, Efron 1982, "The
Jackknife, the Bootstrap and Other Resampling Plans"; for a mean it is the usual variance of the mean, for ROC AUC that of DeLong
et al. 1988). Influences add up: those of a recording are the sum over its clips, and those of a difference the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.rng import numpy_rng
from audio_cls.metrics.base import Auc, ClipMetric, CountMetric, DPrime, Lwlrap, Map, Metric
from audio_cls.metrics.families import FamilyMap
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.ranking import label_precisions, rank

__all__ = ["clip_influences", "unit_influences"]

Array = NDArray[Any]

STEP = 1e-4  # relative, of the numerical derivative by each count
BLOCKS = 50  # of units left out together, for a metric known by its `score` alone


def unit_influences(predictions: Predictions, metric: Metric, unit_of: Array, n_units: int) -> Array:
    """Return the influence of each unit (a clip, or a group of clips that depend on each other) on a run's figure.

    Args:
        unit_of: (n_clips,) the unit of each clip, below `n_units`.

    Returns:
        (n_units,), sum 0; 0 for a unit without clips here, NaN throughout where the figure has no derivative.
    """
    scores, targets = np.asarray(predictions.scores), np.asarray(predictions.targets) > 0.5
    if np.isnan(scores).any():
        return np.full(n_units, np.nan)
    called = predictions.called
    by_clip = clip_influences(scores, targets, called, metric, predictions.task)
    if by_clip is None:
        blocks = _blocks(unit_of, n_units)

        def figure(keep: Array) -> float:
            return metric.compute(scores[keep], targets[keep], called[keep], predictions.task)

        return _left_out(figure, unit_of, blocks)
    return np.bincount(unit_of, by_clip, minlength=n_units)


def clip_influences(scores: Array, targets: Array, called: Array, metric: Metric, task: str) -> Array | None:
    """Return the influence of each clip, (n_clips,); None for a metric that is known by its `score` alone.

    Args:
        scores: (n_clips, n_classes), no NaN.
        targets, called: (n_clips, n_classes) bool.
    """
    if isinstance(metric, CountMetric):
        return _of_counts(metric, metric.counts(targets, called).astype(np.float64))
    if isinstance(metric, Map):
        return _mean_average_precision(scores, targets)
    if isinstance(metric, FamilyMap):
        return _mean_average_precision(*metric.by_family(scores, targets))
    if isinstance(metric, DPrime):
        return _d_prime_slope(metric, scores, targets, called) * _auc(scores, targets)
    if isinstance(metric, Auc):
        return _auc(scores, targets)
    if isinstance(metric, Lwlrap):
        clip, _, precision = label_precisions(scores, targets)
        labels = targets.sum(axis=1)
        total = max(int(labels.sum()), 1)
        summed = np.bincount(clip, precision, minlength=len(targets))
        return (summed - labels * (summed.sum() / total)) / total
    if isinstance(metric, ClipMetric):
        own = metric.per_clip(scores, targets, task)
        return (own - own.mean()) / max(len(own), 1)
    return None


def _of_counts(metric: CountMetric, counts: Array) -> Array:
    """By the gradient of the figure, central differences in each of the (2 + 3 n_classes) sums."""
    sums = counts.sum(axis=0)
    step = STEP * sums
    nudged = np.where(np.eye(len(sums), dtype=bool), step, 0.0)
    slope = metric.of_counts(sums + nudged) - metric.of_counts(sums - nudged)
    slope = np.divide(slope, 2 * step, out=np.zeros(len(sums)), where=step > 0)
    influence = counts @ slope
    return influence - influence.mean()


def _mean_average_precision(scores: Array, targets: Array) -> Array:
    """AP is the mean over positives p of H_p / R_p: positives, and clips, that score at least as much as p. A clip's
    weight enters H and R of every positive that scores no more than it, and the mean itself if it is one.
    """
    total, defined = np.zeros(len(scores)), 0
    for k, ranked in enumerate(rank(scores, targets)):
        n_positive = len(ranked.scores)
        if not n_positive:
            continue
        defined += 1
        below = ranked.scores.searchsorted(scores[:, k].astype(ranked.scores.dtype, copy=False), "right")
        as_clip = np.r_[0.0, np.cumsum(ranked.hits / ranked.at_least**2)]
        as_positive = np.r_[0.0, np.cumsum(1 / ranked.at_least)]
        precision = ranked.hits / ranked.at_least
        own = np.flatnonzero(targets[:, k])
        influence = -as_clip[below]
        influence[own] += as_positive[below[own]] + precision[below[own] - 1] - precision.mean()
        total += influence / n_positive
    return total / defined if defined else np.full(len(scores), np.nan)


def _auc(scores: Array, targets: Array) -> Array:
    """Of a positive, how far its share of negatives below it lies from the AUC; of a negative likewise (DeLong et al.)."""
    total, defined = np.zeros(len(scores)), 0
    for k, ranked in enumerate(rank(scores, targets)):
        n_positive, n_negative = len(ranked.scores), ranked.n_negative
        if not n_positive or not n_negative:
            continue
        defined += 1
        column = scores[:, k].astype(ranked.scores.dtype, copy=False)
        wins = (ranked.negatives_below + 0.5 * ranked.negatives_equal) / n_negative
        upto, below = (ranked.scores.searchsorted(column, side) for side in ("right", "left"))
        beaten = 1 - (upto + below) / (2 * n_positive)  # the share of positives above a negative, a tie a half
        auc = wins.mean()
        own = targets[:, k]
        total += np.where(own, (wins[upto - 1] - auc) / n_positive, (beaten - auc) / n_negative)
    return total / defined if defined else np.full(len(scores), np.nan)


def _d_prime_slope(metric: DPrime, scores: Array, targets: Array, called: Array) -> float:
    """d(d')/d(AUC) = sqrt(2) / density(d' / sqrt(2)); NaN where d' is infinite."""
    value = metric.score(scores, targets, called) / np.sqrt(2)
    return float(np.sqrt(2) * np.sqrt(2 * np.pi) * np.exp(value**2 / 2)) if np.isfinite(value) else float("nan")


def _blocks(unit_of: Array, n_units: int) -> Array:
    """Return the block of each unit, (n_units,): units that are present, dealt out to at most `BLOCKS`; -1 for the others."""
    present = np.unique(unit_of)
    block_of = np.full(n_units, -1, np.int64)
    block_of[numpy_rng(0, "blocks").permutation(present)] = np.arange(len(present)) % BLOCKS
    return block_of


def _left_out(figure: Callable[[Array], float], unit_of: Array, block_of: Array) -> Array:
    """By leaving out blocks of units in turn (delete-block jackknife): `figure` of a mask of the clips that stay.

    The m units of a block share its influence; m^(-1/2) of it each keeps the sum of squares.
    """
    n_blocks = int(block_of.max()) + 1
    figures = np.array([figure(block_of[unit_of] != block) for block in range(n_blocks)])
    moved = (n_blocks - 1) / n_blocks * (figures.mean() - figures)
    sizes = np.bincount(block_of[block_of >= 0], minlength=n_blocks)
    return np.where(block_of >= 0, (moved / np.sqrt(sizes))[block_of], 0.0)
