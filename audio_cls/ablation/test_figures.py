"""Figures over all test clips of several runs: pooled over folds, averaged over seeds, compared between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.predictions import pooled_by_seed
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import plain_name, uses_decisions
from audio_cls.metrics.baselines import judge
from audio_cls.metrics.bootstrap import Interval, bootstrap_interval, clip_bootstrap, is_counted, metric_function
from audio_cls.metrics.classification import check_metric, evaluate
from audio_cls.metrics.clip_differences import clip_differences
from audio_cls.metrics.paired import compare
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.thresholds import TUNED
from audio_cls.metrics.verdict import in_points, verdicts
from audio_cls.runs.evaluation import Scored
from audio_cls.training.predictions import corpus_predictions

__all__ = [
    "as_dict",
    "differences",
    "figure_of_run",
    "findings_of",
    "named_ends",
    "paired_interval",
    "pooled_baseline",
    "pooled_interval",
    "with_tuned",
]

RESAMPLES = 1000
NOT_WHOLE = "no seed has run all its folds on the same clips"


def pooled_baseline(cells: Mapping[Cell, Scored], corpus: Corpus, metrics: Sequence[str]) -> dict[str, float]:
    """Return the figures of a model that learned nothing over all test clips, computed as an arm's are."""
    seed = min(cells)[0]
    runs = {cell: one.baseline_run() for cell, one in cells.items() if cell[0] == seed}
    apart = [{cell: one} for cell, one in runs.items()] if same_clips(cells) else [runs]
    figures = {}
    for metric in metrics:
        value = fmean(evaluate_pooled(part, corpus, metric) for part in apart)
        if isfinite(value):
            figures[metric] = value
    return figures


def evaluate_pooled(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> float:
    """Return a metric over the clips of some runs together; a tuned one with each run's own thresholds."""
    values = np.concatenate([as_judged(one, metric).scores for one in cells.values()])
    targets = np.concatenate([one.predictions.targets for one in cells.values()])
    return evaluate(values, targets, corpus.task, families=corpus.family_columns).overall[
        plain_name(metric).removesuffix(TUNED)
    ]


def findings_of(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str, kind: str) -> tuple[str, ...]:
    """Return what is wrong with the predictions of an arm's runs together; `kind` says what they are."""
    parts = list(cells.values())
    rows = np.concatenate([one.clips for one in parts])
    predictions = corpus_predictions(corpus, rows, np.concatenate([one.predictions.scores for one in parts]))
    baseline = replace(predictions, scores=np.concatenate([one.baseline.scores for one in parts]))
    found = judge(predictions, baseline, metric, clips=f"{kind} predictions")
    return found.findings


def same_clips(cells: Mapping[Cell, Scored]) -> bool:
    """Whether every run tests on the same clips: one test set, kept whichever fold validates."""
    rows = [one.clips for one in cells.values()]
    return all(np.array_equal(r, rows[0]) for r in rows)


def stacked_scores(
    cells: Mapping[Cell, Scored], corpus: Corpus, metric: str
) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """Return the test clips, (n,) rows, and what the runs say of them, (m, n, n_classes): the folds of a seed pooled, so that m is
    the number of seeds; m is the number of runs where all runs test on the same clips. None where no seed has all its folds.
    """
    parts = {cell: as_judged(one, metric) for cell, one in cells.items()}
    if parts and same_clips(cells):
        return next(iter(cells.values())).clips, np.stack([part.scores for part in parts.values()])
    seeds = list(pooled_by_seed(parts, sorted({fold for _, fold in parts}), corpus).values())
    if not seeds or any(not np.array_equal(s.rows, seeds[0].rows) for s in seeds):
        return None
    return seeds[0].rows, np.stack([s.scores for s in seeds])


def pooled_interval(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> Interval:
    """Return an arm's figure over all test clips, each predicted by the run that kept it for the test, the mean over
    seeds, and its bootstrap over clips or groups; without an interval where no seed has all its folds. Where all runs test on the
    same clips, the figure is the mean over the runs.
    """
    found = stacked_scores(cells, corpus, metric)
    if found is None:
        return Interval(nan, nan, nan, 0.95, 0, 0, NOT_WHOLE)
    clips, scores = found
    figure = metric_function(metric.removesuffix(TUNED), corpus.task, corpus.family_columns)
    return bootstrap_interval(scores, corpus.targets[clips], figure, corpus.resampling_groups(clips), RESAMPLES)


def paired_interval(one: Mapping[Cell, Scored], other: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> Interval:
    """Return the difference one - other over the same test clips, and its bootstrap over clips or groups."""
    a, b = stacked_scores(one, corpus, metric), stacked_scores(other, corpus, metric)
    if a is None or b is None or not np.array_equal(a[0], b[0]):
        return Interval(nan, nan, nan, 0.95, 0, 0, NOT_WHOLE)
    clips, figure = a[0], metric_function(metric.removesuffix(TUNED), corpus.task, corpus.family_columns)
    return clip_bootstrap(
        a[1], b[1], corpus.targets[clips], figure, corpus.resampling_groups(clips), n_resamples=RESAMPLES
    )


def with_tuned(metrics: Sequence[str], task: str) -> list[str]:
    """Return metrics; of several labels a clip, those of decisions also by tuned thresholds: `val/macro_f1_tuned`."""
    out = []
    for metric in metrics:
        out += [metric, f"{metric}{TUNED}"] if task == "multilabel" and uses_decisions(metric) else [metric]
    return out


def as_judged(one: Scored, metric: str) -> Predictions:
    """Return a run's predictions, whose figure at the threshold 0.5 is the metric; for a tuned metric the scores are the decisions
    by the run's own thresholds, as 0 and 1.
    """
    if not metric.endswith(TUNED):
        return one.predictions.with_thresholds(None)
    return replace(one.predictions, scores=one.predictions.called.astype(np.float64), thresholds=None, tuned_on="")


def as_dict(interval: Interval) -> dict[str, Any]:
    """Return figures for a JSON file; None if they are not finite."""
    named = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {key: float(value) if isfinite(value) else None for key, value in named.items()}


def differences(
    scored: Mapping[str, Mapping[Cell, Scored]], metrics: Sequence[str], reference: str | None, margin: float | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return arm -> metric -> the difference from the reference, paired by (seed, fold) and judged clip by clip like the verdicts on
    validation clips: {value, low, high, p, text}, the interval and p after Holm. Empty without a reference.
    """
    if reference is None or not scored.get(reference):
        return {}
    some = next(iter(scored[reference].values()))
    place = _places(scored)
    ratio = fmean(len(s.clips) for s in scored[reference].values()) / len(some.split.train)
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in metrics:
        kind = metric.removesuffix(TUNED)
        runs = {arm: {place[c]: as_judged(one, metric) for c, one in cells.items()} for arm, cells in scored.items()}
        values = {
            arm: {c: float(p.evaluation.overall[plain_name(kind)]) for c, p in cells.items()}
            for arm, cells in runs.items()
        }
        found = {
            arm: compare(
                values[arm], values[reference], test_to_train=ratio, direction=check_metric(kind), arm=arm,
                reference=reference, clips=clip_differences(runs[arm], runs[reference], kind),
            )
            for arm in scored
            if arm != reference
        }  # fmt: skip
        # Without components a verdict gives no advice on further runs: there will be none once the test split is open.
        unadvised = {arm: replace(c, components=None) for arm, c in found.items()}
        for arm, verdict in verdicts(unadvised, points=in_points(kind), margin=margin).items():
            numbers = {"value": found[arm].mean, "low": verdict.low, "high": verdict.high, "p": verdict.p}
            out.setdefault(arm, {})[metric] = {
                **{k: float(v) if isfinite(v) else None for k, v in numbers.items()},
                "text": verdict.text,
            }
    return out


def _places(scored: Mapping[str, Mapping[Cell, Scored]]) -> dict[Cell, Cell]:
    """Return (seed, fold) of each cell as a comparison takes them. Runs that all test on the same clips are runs on one split,
    whichever fold validated: their figures share the test clips, so they are no folds of a cross-validation.
    """
    every = {cell: one for cells in scored.values() for cell, one in cells.items()}
    shared = len({fold for _, fold in every}) > 1 and same_clips(every)
    return {cell: (i, 0) if shared else cell for i, cell in enumerate(sorted(every))}


def figure_of_run(one: Scored, corpus: Corpus, metric: str) -> Interval:
    """Return a single run's figure, with an interval where it is cheap."""
    kind = metric.removesuffix(TUNED)
    if not is_counted(kind):
        return Interval(one.predictions.evaluation.overall[plain_name(metric)], nan, nan, 0.95, len(one.clips), 0)
    groups, judged = corpus.resampling_groups(one.clips), as_judged(one, metric)
    return bootstrap_interval(
        judged.scores, judged.targets, metric_function(kind, corpus.task, corpus.family_columns), groups, RESAMPLES
    )


def named_ends(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    names = (("", "value"), ("_low", "low"), ("_high", "high"))
    return [(end, figures[key]) for end, key in names if figures[key] is not None]
