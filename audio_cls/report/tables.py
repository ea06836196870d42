"""Predictions, per-class figures and confusion counts as CSV text; averages over classes and figures of groups as rows of tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.classification import Evaluation
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.slices import Slice, slice_metric
from audio_cls.metrics.thresholds import TUNED

__all__ = [
    "average_rows",
    "class_figures",
    "confusion_csv",
    "decision_margin",
    "per_class_csv",
    "predictions_csv",
    "slice_table",
]

SEPARATOR = ";"
MANY = 30  # values of a column whose order a reader does not look for


def predictions_csv(predictions: Predictions) -> str:
    """Return one row for each clip: id, true labels, predicted labels, correct, margin, the three likeliest with
    their scores.

    Several labels of a clip are joined by ";"; for multilabel, correct means that every label is.
    """
    targets, scores = np.asarray(predictions.targets) > 0.5, np.asarray(predictions.scores)
    called, classes = predictions.called, predictions.classes
    margins = decision_margin(scores, predictions.task, predictions.thresholds)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    header = ["clip", "true", "predicted", "correct", "margin"]
    header += [f"{word}_{place + 1}" for place in range(top.shape[1]) for word in ("class", "score")]
    rows: list[list[Any]] = []
    for index, clip in enumerate(predictions.clips):
        best = [cell for k in top[index].tolist() for cell in (classes[k], _digits(scores[index, k]))]
        labels = [_labels(mask[index], classes) for mask in (targets, called)]
        correct = bool((targets[index] == called[index]).all())
        rows.append([clip, *labels, "yes" if correct else "no", _digits(margins[index]), *best])
    return _csv(header, rows)


def decision_margin(scores: NDArray[Any], task: str, thresholds: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Return how far each clip's decision is from another one, (n_clips,).

    Multiclass: the highest score less the second (NaN with one class). Multilabel: the distance of the score nearest to
    its threshold.
    """
    scores = np.asarray(scores, np.float64)
    if task == "multilabel":
        limits = np.broadcast_to(np.asarray(0.5 if thresholds is None else thresholds, np.float64), scores.shape)
        return np.abs(scores - limits).min(axis=1)
    if scores.shape[1] < 2:
        return np.full(len(scores), np.nan)
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def average_rows(per_class: Mapping[str, NDArray[Any]], keys: Sequence[str]) -> list[list[Any]]:
    """Return two rows of averages over classes, as a classification report ends: each class alike, and weighted by its clips.

    A class that is there and was never called has precision 0 here, as in scikit-learn; what is otherwise undefined is left out.

    Args:
        per_class: `Evaluation.per_class`.
        keys: the columns after the name, "support" among them, which is summed.
    """
    support = np.asarray(per_class["support"], np.float64)
    rows: list[list[Any]] = []
    for name, weights in (("macro average", np.ones(len(support))), ("weighted average", support)):
        row: list[Any] = [name]
        for key in keys:
            if key == "support":
                row.append(int(support.sum()))
                continue
            values = np.asarray(per_class[key], np.float64)
            if key in ("precision", "recall", "f1"):
                values = np.where(np.isnan(values) & (support > 0), 0.0, values)
            known = np.isfinite(values) & (weights > 0)
            row.append(float(np.average(values[known], weights=weights[known])) if known.any() else float("nan"))
        rows.append(row)
    return rows


def slice_table(slices: Sequence[Slice], column: str, task: str) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table of the figures by a column of the clips; of more than 30 values the lowest figure is first."""
    if len(slices) > MANY:
        slices = sorted(slices, key=lambda s: s.interval.estimate)
    columns = [column, "clips", slice_metric(task), "low", "high", "macro_f1"]
    rows = [[s.value, s.n_clips, s.interval.estimate, s.interval.low, s.interval.high, s.macro_f1] for s in slices]
    return columns, rows


def per_class_csv(evaluation: Evaluation, classes: Sequence[str], tuned: bool = False) -> str:
    """Return one row for each class with every figure of `Evaluation.per_class`; an undefined one is an empty cell.

    Args:
        tuned: whether decisions are by tuned thresholds; the names of their figures say so.
    """
    keys = list(evaluation.per_class)
    rows = ([name, *(_cell(evaluation.per_class[key][k]) for key in keys)] for k, name in enumerate(classes))
    return _csv(["class", *class_figures(keys, tuned)], rows)


def class_figures(keys: Iterable[str], tuned: bool) -> list[str]:
    """Return the names of the figures by class: those of decisions by tuned thresholds end in `_tuned`."""
    return [f"{key}{TUNED}" if tuned and key in ("precision", "recall", "f1") else key for key in keys]


def confusion_csv(matrix: NDArray[Any], classes: Sequence[str]) -> str:
    """Return the counts, a row for each true class, a column for each predicted one."""
    rows = ([name, *row] for name, row in zip(classes, np.asarray(matrix).tolist()))
    return _csv(["true\\predicted", *classes], rows)


def _labels(mask: NDArray[np.bool_], classes: Sequence[str]) -> str:
    return SEPARATOR.join(classes[k] for k in np.flatnonzero(mask).tolist())


def _digits(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _cell(value: Any) -> str | int:
    return int(value) if isinstance(value, np.integer) else _digits(value)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
