"""Metrics of classification: accuracy, F1, UAR, weighted averages, mAP, AUC, d', lwlrap, NLL, Brier score, overall and per class.

The same keys come out for either task and for any data; a value that is not defined (an absent class has no recall)
is NaN, and means leave it out. Nothing here warns or raises because of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import choices
from audio_cls.metrics.base import (
    Metric,
    WeightedF1,
    WeightedPrecision,
    WeightedRecall,
    check_metric,
    metric_of,
    own_metrics,
)
from audio_cls.metrics.families import Families
from audio_cls.metrics.ranking import (
    average_precision,
    d_prime,
    fit_thresholds,
    lwlrap,
    precision_recall_curve,
    rank,
    roc_auc,
    roc_curve,
)
from audio_cls.metrics.thresholds import TUNED

__all__ = [
    "VERSION",
    "Confusion",
    "Evaluation",
    "check_metric",
    "confusion_matrix",
    "decide_again",
    "evaluate",
    "family_means",
    "fit_thresholds",
    "most_confused",
    "precision_recall_curve",
    "predict",
    "roc_curve",
]

VERSION = 1
"""Recorded with every run. Raise it when a change makes the same predictions score differently (a test pins them)."""

WEIGHTED = ("weighted_f1", "weighted_precision", "weighted_recall")
REPORTED = ("accuracy", "macro_f1", "micro_f1", "uar", *WEIGHTED, "map", "auc", "d_prime", "lwlrap", "nll", "brier")
"""The metrics of `audio_cls.metrics.base` in the order in which they are told; they are computed together, in one pass."""
OF_FAMILIES = ("family_map", "family_map_noisy_or")
"""Reported beside them where the classes have families, and the task is one that they are defined for."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one set of predictions.

    overall: kind of metric -> figure, of every `Metric` that predictions determine (all but the loss), the user's own too; those of
        decisions by other thresholds than 0.5 under names that end in `_tuned`.
    per_class: (n_classes,) arrays support, precision, recall, f1, ap, auc, d_prime, lwlrap.
    """

    overall: dict[str, float]
    per_class: dict[str, NDArray[Any]] = field(repr=False)


def evaluate(
    scores: NDArray[Any],
    targets: NDArray[Any],
    task: str,
    classes: Sequence[str] | None = None,
    thresholds: NDArray[Any] | None = None,
    families: Families | None = None,
) -> Evaluation:
    """Evaluate predictions.

    Args:
        scores: (n_clips, n_classes) probabilities, or anything that ranks alike when thresholds fit it.
        targets: (n_clips, n_classes) with 0 and 1.
        task: "multiclass" (the prediction is the highest score, of equal ones the first) or "multilabel".
        classes: names, only to check that their number fits.
        thresholds: (n_classes,) or (n_clips, n_classes), multilabel only: a label is predicted at this score or above. Figures of
            these decisions are reported besides those at 0.5, under names that end in `_tuned`; by class they take their place.
        families: name -> columns of its classes; with them metrics of families are reported.

    Returns:
        the figures; all but the support are NaN when a score is NaN (a diverged model has no ranking).

    Raises:
        ValueError: for arrays whose shapes do not fit, or an unknown task.
    """
    scores, truth = np.asarray(scores), np.asarray(targets) > 0.5
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise ValueError(f"scores and targets must both be (n_clips, n_classes), got {scores.shape} and {truth.shape}")
    if classes is not None and len(classes) != scores.shape[1]:
        raise ValueError(f"{len(classes)} class names for {scores.shape[1]} columns of scores")
    support = truth.sum(axis=0)
    if np.isnan(scores).any():
        per_class = {
            key: np.full(len(support), np.nan) for key in ("precision", "recall", "f1", "ap", "auc", "d_prime")
        }
        return Evaluation(
            {key: float("nan") for key in [*REPORTED, *_of_families(task, families), *own_metrics(task, families)]},
            {"support": support, **per_class, "lwlrap": np.full(len(support), np.nan)},
        )
    pairs = [(average_precision(ranked), roc_auc(ranked)) for ranked in rank(scores, truth)]
    ap, auc = np.array(pairs, np.float64).reshape(-1, 2).T
    ranking, ranking_per_class = lwlrap(scores, truth)
    overall = {"map": _mean(ap), "auc": _mean(auc), "d_prime": d_prime(_mean(auc)), "lwlrap": ranking}
    overall |= {kind: metric_of(kind).compute(scores, truth, truth, task) for kind in ("nll", "brier")}
    overall |= {
        kind: metric.compute(scores, truth, truth, task) for kind, metric in _of_families(task, families).items()
    }
    per_class = {"support": support, "ap": ap, "auc": auc, "d_prime": d_prime(auc), "lwlrap": ranking_per_class}
    return decide_again(Evaluation(overall, per_class), scores, truth, task, thresholds, families)


def _of_families(task: str, families: Families | None) -> dict[str, Metric]:
    found = (metric_of(kind).for_families(families or {}) for kind in OF_FAMILIES)
    return {metric.kind: metric for metric in found if metric is not None and task in metric.tasks}


def decide_again(
    evaluation: Evaluation,
    scores: NDArray[Any],
    targets: NDArray[Any],
    task: str,
    thresholds: NDArray[Any] | None,
    families: Families | None = None,
) -> Evaluation:
    """Return the figures of the same scores with decisions by other thresholds, as `evaluate` does; those of the ranking are kept."""
    if np.isnan(scores).any():
        return evaluation
    truth, scores = np.asarray(targets) > 0.5, np.asarray(scores)
    support = evaluation.per_class["support"]
    predicted = predict(scores, task)
    overall, per_class = _decisions(predicted, truth, support)
    own = own_metrics(task, families)
    figures = {kind: float(metric.compute(scores, truth, predicted, task)) for kind, metric in own.items()}
    if thresholds is not None:
        predicted = predict(scores, task, thresholds)
        tuned, per_class = _decisions(predicted, truth, support)
        tuned |= {
            kind: float(metric.compute(scores, truth, predicted, task))
            for kind, metric in own.items()
            if metric.uses == "decisions"
        }
        figures |= {f"{kind}{TUNED}": value for kind, value in tuned.items()}
    before = {kind: value for kind, value in evaluation.overall.items() if not kind.endswith(TUNED)}
    return Evaluation(
        {**overall, **_without(before, overall), **figures},
        {**per_class, **_without(evaluation.per_class, per_class)},
    )


def _decisions(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], support: NDArray[Any]
) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Return the figures of decisions, (n_clips, n_classes), overall and by class."""
    hits, calls = (predicted & truth).sum(axis=0), predicted.sum(axis=0)
    recall, f1 = _ratio(hits, support), _ratio(2 * hits, calls + support)
    overall = {
        "accuracy": _mean((predicted == truth).all(axis=1)),
        "macro_f1": _mean(f1),
        "micro_f1": float(_ratio(2 * hits.sum(), calls.sum() + support.sum())),
        "uar": _mean(recall),
    }
    sums = np.concatenate([[0, len(truth)], hits, calls, support]).astype(np.float64)
    overall |= {
        metric.kind: float(metric.of_counts(sums)) for metric in (WeightedF1(), WeightedPrecision(), WeightedRecall())
    }
    return overall, {"support": support, "precision": _ratio(hits, calls), "recall": recall, "f1": f1}


def _without(mapping: dict[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}


def predict(scores: NDArray[Any], task: str, thresholds: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Return decisions, (n_clips, n_classes): the highest score of each row (multiclass), or scores at or above a
    threshold.

    Args:
        scores: (n_clips, n_classes).
        task: "multiclass" or "multilabel".
        thresholds: (n_classes,) or one number, multilabel only; 0.5 unless given.
    """
    if task == "multilabel":
        return np.asarray(scores >= np.asarray(0.5 if thresholds is None else thresholds, dtype=np.float64))
    if task != "multiclass":
        raise ValueError(f"task {task!r}. {choices(task, ('multiclass', 'multilabel'))}")
    decided = np.zeros(scores.shape, bool)
    if scores.size:
        decided[np.arange(len(scores)), scores.argmax(axis=1)] = True
    return decided


def confusion_matrix(
    targets: NDArray[Any], predictions: NDArray[Any], n_classes: int | None = None
) -> NDArray[np.int64]:
    """Return counts, (n_classes, n_classes), rows true and columns predicted.

    Args:
        targets, predictions: class indices, both (n_clips,); then entry (i, j) counts clips of class i called j.
            Or 0/1 matrices, both (n_clips, n_classes): the diagonal counts the labels found, and entry (i, j) elsewhere
            the clips with label i on which j was called wrongly (a clip with several labels counts in each one's row).
        n_classes: needed with indices.
    """
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    if targets.shape != predictions.shape or (targets.ndim == 1 and n_classes is None):
        raise ValueError(
            f"targets {targets.shape} and predictions {predictions.shape}: need equal shapes, and n_classes"
        )
    if targets.ndim == 1:
        assert n_classes is not None
        pairs = targets.astype(np.int64) * n_classes + predictions.astype(np.int64)
        return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(np.int64)
    truth, called = targets > 0.5, predictions > 0.5
    # float64 products of 0 and 1 are exact counts and use the fast matrix product
    counts = (truth.T.astype(np.float64) @ (called & ~truth)).astype(np.int64)
    np.fill_diagonal(counts, (truth & called).sum(axis=0))
    return counts


@dataclass(frozen=True)
class Confusion:
    """One off-diagonal cell: `count` clips of `true`, a share `rate` of its row, were called `predicted`."""

    true: str
    predicted: str
    count: int
    rate: float


def most_confused(
    matrix: NDArray[np.int64], classes: Sequence[str], limit: int = 10, support: NDArray[Any] | None = None
) -> list[Confusion]:
    """Return the largest off-diagonal cells, by count, then by rate, then in class order; cells with no clip are left out.

    Args:
        matrix: (n_classes, n_classes), rows true.
        classes: names.
        limit: how many at most.
        support: (n_classes,) clips with the label, for the rate; row sums (multiclass) unless given.
    """
    counts = np.array(matrix, np.int64)
    rates = _ratio(counts, np.broadcast_to((counts.sum(axis=1) if support is None else support)[:, None], counts.shape))
    np.fill_diagonal(counts, 0)
    rows, columns = np.nonzero(counts)
    order = np.lexsort((columns, rows, -rates[rows, columns], -counts[rows, columns]))[:limit]
    return [
        Confusion(classes[i], classes[j], int(counts[i, j]), float(rates[i, j]))
        for i, j in zip(rows[order].tolist(), columns[order].tolist())
    ]


def family_means(values: NDArray[Any], families: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return mean of a per-class figure over each family of classes, leaving out NaN; NaN for a family with nothing
    defined.

    Args:
        values: (n_classes,), an entry of `Evaluation.per_class`.
        families: name -> indices of its classes.
    """
    return {name: _mean(np.asarray(values)[np.asarray(members, np.int64)]) for name, members in families.items()}


def _mean(values: NDArray[Any]) -> float:
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
