"""Figures of predictions by a column of the clips: foreground against background, one recording against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np

from audio_cls.metrics.bootstrap import Interval, bootstrap_interval, metric_function
from audio_cls.metrics.predictions import Predictions

__all__ = ["Slice", "figures_by", "slice_metric"]

RESAMPLES = 1000


@dataclass(frozen=True)
class Slice:
    """The clips with one value of a column: the value, how many clips, their figure by `slice_metric` with its interval over groups (over
    clips where all are of one group; NaN where every resample gives the same figure), and the macro F1 over the classes that they hold
    or are called.
    """

    value: str
    n_clips: int
    interval: Interval
    macro_f1: float


def slice_metric(task: str) -> str:
    """Return the metric that slices are compared by: accuracy; with several labels a clip, where exact matches are rare, micro F1."""
    return "accuracy" if task == "multiclass" else "micro_f1"


def figures_by(predictions: Predictions, values: Sequence[str]) -> list[Slice]:
    """Return the figures of the clips with each value, in the order of the values (numbers by size, then words).

    Decisions are those of the predictions, tuned thresholds included. What holds of a few clips is moved by each of them: mind the
    interval.

    Args:
        values: (n,) of each clip, as text.

    Raises:
        ValueError: where there is not one value for each clip.
    """
    if len(values) != len(predictions):
        raise ValueError(f"{len(values)} values for {len(predictions)} clips")
    if np.isnan(np.asarray(predictions.scores)).any():
        return []
    called, targets = predictions.called.astype(np.float64), np.asarray(predictions.targets)
    measure, names = metric_function(slice_metric(predictions.task), predictions.task), np.asarray(values, dtype=object)
    found = []
    for value in sorted(set(values), key=_order):
        rows = np.flatnonzero(names == value)
        groups = None if predictions.groups is None else [predictions.groups[k] for k in rows.tolist()]
        if groups is not None and len(set(groups)) < 2:
            groups = None  # of one recording alone: how sure the figure is for this recording
        interval = bootstrap_interval(called[rows], targets[rows], measure, groups, RESAMPLES)
        if interval.low == interval.high:  # all right or all wrong: the clips cannot tell how sure that is
            interval = replace(interval, low=nan, high=nan)
        macro_f1 = metric_function("macro_f1", predictions.task)(called[rows], targets[rows])
        found.append(Slice(value, len(rows), interval, macro_f1))
    return found


def _order(value: str) -> tuple[int, Any]:
    try:
        return 0, float(value)
    except ValueError:
        return 1, value
