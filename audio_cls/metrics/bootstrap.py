"""Intervals of figures from stored predictions, by resampling clips (Efron & Tibshirani 1993, percentile interval).

They answer another question than pairs of runs do: how far would the figures of these models move on other clips of the same
kind? They do not cover the variation from training again. Clips of one recording or one speaker depend on each other: pass
`groups`, and whole groups are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from audio_cls.core.rng import numpy_rng
from audio_cls.metrics.base import ClipMetric, CountMetric, metric_of
from audio_cls.metrics.classification import evaluate, predict
from audio_cls.metrics.families import Families
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.thresholds import TUNED

__all__ = [
    "Counted",
    "Figure",
    "Interval",
    "bootstrap_interval",
    "clip_bootstrap",
    "figure_intervals",
    "is_counted",
    "metric_function",
]

LARGE = 2e8  # clips x classes x resamples: what the metrics of a ranking do in a minute or two

Array = NDArray[Any]
Figure = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Counted:
    """A metric that is a function of sums over clips, so that all resamples cost one matrix product.

    counts: (scores (n_clips, n_classes), targets (n_clips, n_classes)) -> (n_clips, m).
    figure: sums of counts (..., m) -> (...).
    """

    counts: Callable[[Array, Array], Array]
    figure: Callable[[Array], Array]

    def __call__(self, scores: Array, targets: Array) -> float:
        return float(self.figure(np.asarray(self.counts(scores, targets), np.float64).sum(axis=0)))


@dataclass(frozen=True)
class Interval:
    """A figure and its percentile interval.

    n_units: clips, or groups where groups were drawn. n_resamples: those in which the metric was defined.
    note: why the interval is missing or says little; empty when all is well.
    """

    estimate: float
    low: float
    high: float
    level: float
    n_units: int
    n_resamples: int
    note: str = ""


def metric_function(name: str, task: str, families: Families | None = None) -> Figure:
    """Return a metric by name as a function for the bootstrap; labels are called from 0.5 on.

    Args:
        families: name -> columns of its classes, for metrics of families.

    Raises:
        UserError: for an unknown metric, or the loss, which stored probabilities do not determine.
    """
    metric = metric_of(name)
    metric = metric.for_families(families or {}) or metric
    if isinstance(metric, CountMetric):

        def counts(scores: Array, targets: Array) -> Array:
            return CountMetric.counts(targets > 0.5, predict(scores, task))

        return Counted(counts, metric.of_counts)
    if isinstance(metric, ClipMetric):

        def contributions(scores: Array, targets: Array) -> Array:
            return np.column_stack([metric.per_clip(scores, targets > 0.5, task), np.ones(len(scores))])

        return Counted(contributions, lambda sums: sums[..., 0] / sums[..., 1])
    if metric.kind == "loss":
        metric.score(*(np.zeros((0, 0)),) * 3)  # which says why not

    def figure(scores: Array, targets: Array) -> float:
        if np.isnan(scores).any():
            return nan
        return float(metric.compute(scores, targets > 0.5, predict(scores, task), task))

    return figure


def is_counted(name: str) -> bool:
    """Whether a metric is a function of sums over clips, whose bootstrap is fast."""
    return isinstance(metric_of(name), (ClipMetric, CountMetric))


def clip_bootstrap(
    scores_a: Array,
    scores_b: Array,
    targets: Array,
    metric: Figure,
    groups: Sequence[Any] | Array | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the interval of metric(a) - metric(b), both on the same resampled clips.

    Args:
        scores_a, scores_b: (n_clips, n_classes), or (n_runs, n_clips, n_classes) for several runs (seeds) on the same clips,
            whose figures are averaged in each resample; pooled out-of-fold predictions of a cross-validation fit too.
        targets: (n_clips, n_classes).
        metric: (scores, targets) -> figure; a `Counted` is fast, anything else is called for each resample and run.
        groups: (n_clips,) recording or speaker of each clip.
        seed: the interval is a function of it and of the arguments.

    Raises:
        ValueError: for shapes that do not fit.
    """
    return _bootstrap((scores_a, scores_b), (1.0, -1.0), targets, metric, groups, n_resamples, seed, level)


def bootstrap_interval(
    scores: Array,
    targets: Array,
    metric: Figure,
    groups: Sequence[Any] | Array | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the interval of a single figure, such as one on the test split; arguments as for `clip_bootstrap`."""
    return _bootstrap((scores,), (1.0,), targets, metric, groups, n_resamples, seed, level)


def _bootstrap(
    sides: tuple[Array, ...],
    signs: tuple[float, ...],
    targets: Array,
    metric: Figure,
    groups: Sequence[Any] | Array | None,
    n_resamples: int,
    seed: int,
    level: float,
) -> Interval:
    targets = np.asarray(targets)
    n = len(targets)
    runs: list[tuple[float, Array]] = []  # each run with its weight in the figure
    for side, sign in zip(sides, signs, strict=True):
        stacked = np.asarray(side)
        stacked = stacked[None] if stacked.ndim == 2 else stacked
        if stacked.ndim != 3 or stacked.shape[1:] != targets.shape or not len(stacked):
            raise ValueError(
                f"scores {np.shape(side)} do not fit targets {targets.shape}: need (n_clips, n_classes) or (n_runs, ...)"
            )
        runs += [(sign / len(stacked), run) for run in stacked]
    if groups is not None and len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} clips")
    if n_resamples < 1 or not 0 < level < 1:
        raise ValueError(f"need n_resamples >= 1 and 0 < level < 1, got {n_resamples} and {level}")
    if not n:
        return Interval(nan, nan, nan, level, 0, 0, "no clips")
    unit_of = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    n_units = int(unit_of.max()) + 1
    if any(np.isnan(run).any() for _, run in runs):
        return Interval(nan, nan, nan, level, n_units, 0, "no interval: scores that are not numbers")
    estimate = sum(weight * metric(run, targets) for weight, run in runs)

    draws = _draws(n_units, n_resamples, seed)
    if isinstance(metric, Counted):
        member = csr_array((np.ones(n), (unit_of, np.arange(n))), shape=(n_units, n))
        tables = [(weight, member @ np.asarray(metric.counts(run, targets), np.float64)) for weight, run in runs]
        blocks = (block.astype(np.float64) for block in draws)
        figures = np.concatenate([sum(weight * metric.figure(b @ table) for weight, table in tables) for b in blocks])
    else:
        clips = np.arange(n)
        rows = (np.repeat(clips, count[unit_of]) for block in draws for count in block)
        figures = np.array([sum(weight * metric(run[i], targets[i]) for weight, run in runs) for i in rows])

    figures = figures[np.isfinite(figures)]
    if len(figures) < 0.9 * n_resamples or n_units < 2:
        few = (
            "a single clip or group"
            if n_units < 2
            else f"defined and finite in only {len(figures)} of {n_resamples} resamples"
        )
        return Interval(float(estimate), nan, nan, level, n_units, len(figures), f"no interval: {few}")
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    note = "every resample gives the same figure: the clips cannot tell how sure it is" if low == high else ""
    return Interval(float(estimate), float(low), float(high), level, n_units, len(figures), note)


def _draws(n_units: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Return how often each unit was drawn, in blocks of (resamples, n_units) that stay small."""
    rng = numpy_rng(seed, "bootstrap")
    block = max(1, 2_000_000 // n_units)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        yield rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=rows)


def figure_intervals(
    predictions: Predictions, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Return the interval of every overall metric of some predictions; arguments as for `bootstrap_interval`. The
    metrics of a ranking are computed in as many resamples as a large set allows, at least 200.
    """
    scores, targets = np.asarray(predictions.scores), np.asarray(predictions.targets)
    task, groups = predictions.task, predictions.groups
    thresholds = None if predictions.thresholds is None else np.broadcast_to(predictions.thresholds, scores.shape)
    whole = predictions.evaluation.overall
    out = {}
    for name in whole:
        kind = name.removesuffix(TUNED)
        if is_counted(kind):
            values = scores if name == kind else predictions.called.astype(np.float64)  # decisions, as they were made
            out[name] = bootstrap_interval(
                values, targets, metric_function(kind, task), groups, n_resamples, seed, level
            )
    ranked = [name for name in whole if name not in out]
    few = max(200, min(n_resamples, int(LARGE // max(targets.size, 1))))
    unit_of = np.arange(len(targets)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_units = int(unit_of.max()) + 1
    clips = np.arange(len(targets))
    found: dict[str, list[float]] = {name: [] for name in ranked}
    for block in _draws(n_units, few, seed):
        for count in block:
            rows = np.repeat(clips, count[unit_of.reshape(-1)])
            drawn = None if thresholds is None else thresholds[rows]
            overall = evaluate(scores[rows], targets[rows], task, None, drawn, predictions.families).overall
            for name in ranked:
                found[name].append(overall[name])
    for name in ranked:
        values = np.array(found[name])
        values = values[np.isfinite(values)]
        if not np.isfinite(whole[name]) or len(values) < 0.9 * few or n_units < 2:
            note = f"no interval: defined and finite in only {len(values)} of {few} resamples"
            out[name] = Interval(float(whole[name]), nan, nan, level, n_units, len(values), note)
        else:
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
            out[name] = Interval(float(whole[name]), float(low), float(high), level, n_units, len(values))
    return {name: out[name] for name in whole}
