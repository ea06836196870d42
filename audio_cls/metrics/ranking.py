"""Metrics of a ranking: average precision, ROC AUC, d', lwlrap, the best F1 threshold, ROC and precision-recall curves.

All are exact under ties, for any floating type. The work per class is one vectorised sort of all scores and two binary
searches for the scores of the positives only: a positive only needs the number of clips, and of
positives, that score at least as much. Positives are few, so this costs far less than an argsort and cumulative sums over
all clips, and equal scores need no special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Ranked",
    "average_precision",
    "d_prime",
    "fit_thresholds",
    "label_precisions",
    "lwlrap",
    "precision_recall_curve",
    "rank",
    "roc_auc",
    "roc_curve",
]

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_ROWS = 512  # pairs compared at a time in lwlrap: 512 rows of a few hundred classes stay in the cache


@dataclass(frozen=True)
class Ranked:
    """One class: for each positive, in ascending order of score, what stands at, above and below it."""

    scores: Floats  # (n_positive,) ascending
    at_least: Ints  # (n_positive,) clips with this score or more
    hits: Ints  # (n_positive,) positives with this score or more
    negatives_below: Ints  # (n_positive,)
    negatives_equal: Ints  # (n_positive,)
    lower: Floats  # (n_positive,) the next lower score of any clip, NaN below the lowest
    n_negative: int


def rank(scores: Floats, targets: NDArray[Any]) -> Iterator[Ranked]:
    """Rank the clips of each class.

    Args:
        scores: (n_clips, n_classes), higher is more likely, no NaN.
        targets: (n_clips, n_classes), positive where above 0.5.

    Yields:
        one `Ranked` per class, in the order of the columns.
    """
    scores, positive = _scores(scores), _positive(targets)
    by_class = np.ascontiguousarray(scores.T)  # (n_classes, n_clips)
    ordered = np.sort(by_class, axis=1)
    class_index, clip_index = np.nonzero(np.ascontiguousarray(positive.T))
    ends = np.cumsum(np.bincount(class_index, minlength=len(by_class)))
    start = 0
    n_clips = len(scores)
    picked = by_class[class_index, clip_index]
    for everyone, end in zip(ordered, ends.tolist()):
        own = np.sort(picked[start:end])
        start = end
        n_positive = len(own)
        below = everyone.searchsorted(own, "left")
        upto = everyone.searchsorted(own, "right")
        own_below = own.searchsorted(own, "left")
        own_upto = own.searchsorted(own, "right")
        yield Ranked(
            scores=own,
            at_least=n_clips - below,
            hits=n_positive - own_below,
            negatives_below=below - own_below,
            negatives_equal=(upto - below) - (own_upto - own_below),
            lower=np.where(below > 0, everyone[below - 1], np.nan) if n_positive else own,
            n_negative=n_clips - n_positive,
        )


def average_precision(ranked: Ranked) -> float:
    """Return average precision, the sum over distinct thresholds of (R_n - R_(n-1)) P_n, without interpolation.

    That is the mean, over the positives, of the precision at each one's own score. NaN for a class without positives.
    """
    return float(np.mean(ranked.hits / ranked.at_least)) if len(ranked.scores) else float("nan")


def roc_auc(ranked: Ranked) -> float:
    """Return ROC AUC: the chance that a positive scores above a negative, a tie counting a half (Mann-Whitney).

    NaN for a class without positives or without negatives.
    """
    pairs = len(ranked.scores) * ranked.n_negative
    if pairs == 0:
        return float("nan")
    twice = 2 * int(ranked.negatives_below.sum()) + int(ranked.negatives_equal.sum())
    return twice / (2 * pairs)


def d_prime(auc: Floats | float) -> Any:
    """d' = sqrt(2) * inverse normal CDF of the AUC: the distance of two unit normals whose ROC has that area.

    As in Gemmeke et al., "Audio Set", ICASSP 2017. 0 at chance, infinite at an AUC of 1, NaN if the AUC is.
    """
    from scipy.special import ndtri

    value = np.sqrt(2.0) * ndtri(np.asarray(auc, dtype=np.float64))
    return float(value) if np.ndim(auc) == 0 else value


def lwlrap(scores: Floats, targets: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """Return label-weighted label-ranking average precision, overall and per class, as in DCASE 2019 task 2 (Fonseca
    et al.).

    For each true label of a clip: the share of true labels among the labels ranked at or above it. The mean over all
    true labels of a class is the class's value; the mean over all true labels of all clips is the overall value, which
    thus weights a class by its number of labels. Equal scores share the worst rank, as in scikit-learn's
    `label_ranking_average_precision_score` with the number of labels as the weight of a clip.

    Args:
        scores: (n_clips, n_classes), no NaN.
        targets: (n_clips, n_classes), true where above 0.5.

    Returns:
        the overall value (NaN without any label) and (n_classes,), NaN for a class without labels.
    """
    _, class_index, precision = label_precisions(scores, targets)
    n_classes = np.shape(scores)[1]
    per_class = _ratio(
        np.bincount(class_index, precision, minlength=n_classes), np.bincount(class_index, minlength=n_classes)
    )
    return (float(precision.mean()) if len(precision) else float("nan")), per_class


def label_precisions(scores: Floats, targets: NDArray[Any]) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Return clip, class and label-ranking precision of each true label, (n_labels,) each; `lwlrap` is their mean."""
    scores, positive = _scores(scores), _positive(targets)
    clip_index, class_index = np.nonzero(positive)
    ranks = np.empty(len(clip_index), np.int64)
    hits = np.empty(len(clip_index), np.int64)
    own = scores[clip_index, class_index][:, None]
    for at in range(0, len(clip_index), _ROWS):
        part = slice(at, at + _ROWS)
        clips = clip_index[part]
        above = scores[clips] >= own[part]
        ranks[part] = _count(above)
        above &= positive[clips]
        hits[part] = _count(above)
    return clip_index, class_index, hits / ranks


def fit_thresholds(scores: Floats, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the threshold of each label that gives it the highest F1 where `score >= threshold` means yes.

    Exact: each distinct score of a positive is tried as the lowest one accepted (the best cut is always at one of
    them). The threshold lies midway between that score and the next lower one, or 0 if there is none lower and all
    scores are positive. Of cuts with equal F1 the highest is taken: the fewest false alarms. Fit on validation data,
    never on the data on which F1 is reported.

    Args:
        scores: (n_clips, n_classes), no NaN.
        targets: (n_clips, n_classes), true where above 0.5.

    Returns:
        (n_classes,) float64; 0.5 for a class without positives.
    """
    thresholds = np.full(np.shape(scores)[1], 0.5)
    for index, ranked in enumerate(rank(scores, targets)):
        if len(ranked.scores) == 0:
            continue
        f1 = 2 * ranked.hits / (ranked.at_least + len(ranked.scores))
        best = int(np.flatnonzero(f1 == f1.max())[-1])  # equal fractions are equal floats: division rounds correctly
        high, low = float(ranked.scores[best]), float(ranked.lower[best])
        low = min(0.0, high) if np.isnan(low) else low
        middle = low + (high - low) / 2
        thresholds[index] = middle if low < middle or low == high else high  # neighbouring floats have no middle
    return thresholds


def roc_curve(scores: Floats, positive: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve of one class: false and true positive rate, from (0, 0) to (1, 1), a point per distinct score.

    Points inside a straight piece are left out. NaN rates where the class has no negatives or no positives.

    Args:
        scores: (n_clips,), no NaN.
        positive: (n_clips,), true where above 0.5.
    """
    hits, alarms, _ = _cuts(scores, positive)
    hits, alarms = np.r_[0, hits], np.r_[0, alarms]
    rise, run = np.diff(hits), np.diff(alarms)
    keep = np.ones(len(hits), bool)
    keep[1:-1] = rise[:-1] * run[1:] != rise[1:] * run[:-1]
    return _ratio(alarms[keep], alarms[-1]), _ratio(hits[keep], hits[-1])


def precision_recall_curve(
    scores: Floats, positive: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall of one class at each distinct score, taken as threshold, from the highest to the lowest.

    Args:
        scores: (n_clips,), no NaN.
        positive: (n_clips,), true where above 0.5.

    Returns:
        precision, recall (ascending; NaN without positives) and threshold, each (n_distinct,).
    """
    hits, alarms, thresholds = _cuts(scores, positive)
    total = hits[-1] if len(hits) else 0
    return _ratio(hits, hits + alarms), _ratio(hits, total), thresholds.astype(np.float64)


def _cuts(scores: Floats, positive: NDArray[Any]) -> tuple[Ints, Ints, Floats]:
    """Return hits and false alarms at each distinct score taken as threshold, thresholds descending."""
    scores, positive = _scores(scores), _positive(positive)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) if len(ordered) else np.zeros(0, np.int64)
    hits: Ints = np.cumsum(positive[order], dtype=np.int64)[last]
    return hits, last + 1 - hits, ordered[last]


def _scores(scores: NDArray[Any]) -> Floats:
    """As float32 or float64, whichever holds the values exactly: half precision sorts slowly."""
    scores = np.asarray(scores)
    if scores.dtype in (np.float32, np.float64):
        return scores
    return scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)


def _positive(targets: NDArray[Any]) -> Bools:
    return np.asarray(targets) > 0.5


def _count(mask: Bools) -> Ints:
    """Return the number of true values in each row; counting packed bits takes half the time of a boolean sum."""
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


def _ratio(part: NDArray[Any], whole: NDArray[Any] | int) -> NDArray[np.float64]:
    """part / whole, NaN if whole is 0."""
    whole = np.broadcast_to(np.asarray(whole, np.float64), np.shape(part))
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)
