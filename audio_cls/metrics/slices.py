"""Figures of predictions by a column of the clips: foreground against background, one recording against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.bootstrap import Interval, bootstrap_interval, clip_bootstrap, metric_function
from audio_cls.metrics.predictions import Predictions

__all__ = ["ArmSlice", "Slice", "compare_by", "figures_by", "slice_metric"]

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


@dataclass(frozen=True)
class ArmSlice:
    """One arm on the clips with one value of a column: how many clips, the arm's figure by `slice_metric`, the mean over its seeds, and its
    difference from the reference (None for the reference itself), with their intervals as in `Slice`.
    """

    value: str
    arm: str
    n_clips: int
    figure: Interval
    difference: Interval | None = None


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
    measure = metric_function(slice_metric(predictions.task), predictions.task)
    found = []
    for value, rows in _rows_of(values):
        groups = _groups_of(predictions, rows)
        interval = _known(bootstrap_interval(called[rows], targets[rows], measure, groups, RESAMPLES))
        macro_f1 = metric_function("macro_f1", predictions.task)(called[rows], targets[rows])
        found.append(Slice(value, len(rows), interval, macro_f1))
    return found


def compare_by(arms: Mapping[str, Sequence[Predictions]], reference: str, values: Sequence[str]) -> list[ArmSlice]:
    """Return the figures of several arms on the clips with each value: value by value in their order, the arms in theirs.

    Args:
        arms: name -> predictions of the same clips in the same order, one for each seed; decisions are theirs, tuned thresholds
            included. An arm with scores that are not numbers is left out.
        reference: the arm from which the others differ.
        values: (n_clips,) of each clip, as text.

    Raises:
        ValueError: where there is not one value for each clip.
    """
    whole = {name: runs for name, runs in arms.items() if not any(np.isnan(run.scores).any() for run in runs)}
    if not whole:
        return []
    one = next(iter(whole.values()))[0]
    if any(len(run) != len(values) for runs in whole.values() for run in runs):
        raise ValueError(f"{len(values)} values for {len(one)} clips")
    called = {name: np.stack([run.called for run in runs]).astype(np.float64) for name, runs in whole.items()}
    targets, measure = np.asarray(one.targets), metric_function(slice_metric(one.task), one.task)
    found = []
    for value, rows in _rows_of(values):
        groups, n_clips = _groups_of(one, rows), len({one.clips[k] for k in rows.tolist()})
        for name, decisions in called.items():
            figure = bootstrap_interval(decisions[:, rows], targets[rows], measure, groups, RESAMPLES)
            difference = None
            if name != reference and reference in called:
                pair = decisions[:, rows], called[reference][:, rows]
                difference = _known(clip_bootstrap(*pair, targets[rows], measure, groups, RESAMPLES))
            found.append(ArmSlice(value, name, n_clips, _known(figure), difference))
    return found


def _rows_of(values: Sequence[str]) -> list[tuple[str, NDArray[np.int64]]]:
    """Return each value with its clips, in the order of the values."""
    names = np.asarray(values, dtype=object)
    return [(value, np.flatnonzero(names == value)) for value in sorted(set(values), key=_order)]


def _groups_of(predictions: Predictions, rows: NDArray[np.int64]) -> list[str] | None:
    """Return the groups of some clips; None where all are of one, and the interval is for this recording alone."""
    groups = None if predictions.groups is None else [predictions.groups[k] for k in rows.tolist()]
    return None if groups is not None and len(set(groups)) < 2 else groups


def _known(interval: Interval) -> Interval:
    """Return an interval without limits that are equal: where all is right or wrong, the clips cannot tell how sure that is.

    Limits are rounded, so that the mean of several seeds does not put one that is 0 on a side of 0.
    """
    low, high = round(interval.low, 12), round(interval.high, 12)
    return replace(interval, low=nan, high=nan) if low == high else replace(interval, low=low, high=high)


def _order(value: str) -> tuple[int, Any]:
    try:
        return 0, float(value)
    except ValueError:
        return 1, value
