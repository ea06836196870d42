"""The family of metrics: what each one measures, which way is better, in what unit it is told.

A metric of a user's own is a subclass with a `kind`, in a file of theirs:

    class Cost(Metric, kind="cost"):
        direction, unit, high = "minimize", "", 10.0
        def score(self, scores, targets, called): ...

It is then a metric like the others: `training.metric=val/cost` chooses epochs, searches and suites judge by it, every run that is
made while its file is loaded reports it, and it has an interval wherever figures have one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import inf, log, nan
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.config import Component
from audio_cls.core.errors import ConfigError, UserError, choices
from audio_cls.metrics.ranking import average_precision, d_prime, lwlrap, rank, roc_auc
from audio_cls.metrics.thresholds import TUNED

__all__ = [
    "ClipMetric",
    "CountMetric",
    "Direction",
    "Metric",
    "check_metric",
    "figure_text",
    "in_points",
    "metric_of",
    "number_text",
    "own_metrics",
    "p_text",
    "plain_name",
    "uses_decisions",
]

Array = NDArray[Any]
Direction = Literal["maximize", "minimize"]
Uses = Literal["decisions", "ranking", "probabilities"]
PREFIXES = ("train", "val", "test")
SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [SMALLEST, 1 - SMALLEST] (2.2e-16, as scikit-learn's `log_loss` does) before a logarithm is taken:
one clip costs 36 nats at most."""


class Metric(Component, family=True):
    """A figure of a set of predictions.

    direction: which way is better.
    unit: "points" is told in hundredths, as are accuracy and F1; anything else in the figure's own units, named so.
    low, high: the range of the figure.
    uses: "decisions" where thresholds matter, "ranking" where the order of the scores alone does, "probabilities" where their
        values do.
    tasks: that it is defined for.
    of_training: only training can compute it; from stored predictions it is refused.
    """

    direction: ClassVar[Direction] = "maximize"
    unit: ClassVar[str] = "points"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    uses: ClassVar[Uses] = "decisions"
    tasks: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel")
    of_training: ClassVar[bool] = False

    @abstractmethod
    def score(self, scores: Array, targets: Array, called: Array) -> float:
        """Return the figure; NaN if it is not defined.

        Args:
            scores: (n_clips, n_classes) probabilities.
            targets: (n_clips, n_classes) True for the labels that are there.
            called: (n_clips, n_classes) True for the labels that were predicted.
        """
        raise NotImplementedError

    def compute(self, scores: Array, targets: Array, called: Array, task: str) -> float:
        """Return the figure on a task, "multiclass" or "multilabel"; arguments as for `score`, which most metrics need alone."""
        return self.score(scores, targets, called)

    def for_families(self, families: Mapping[str, tuple[int, ...]]) -> Metric | None:
        """Return the metric for predictions whose classes have these families (name -> columns); None where it needs some and there
        are none. Most metrics need none, see `metrics.families`.
        """
        return self


class ClipMetric(Metric):
    """A metric that is a mean over clips of what each clip contributes."""

    uses: ClassVar[Uses] = "probabilities"

    @abstractmethod
    def per_clip(self, scores: Array, targets: Array, task: str) -> Array:
        """Return what each clip contributes, (n_clips,).

        Args:
            scores: (n_clips, n_classes) probabilities.
            targets: (n_clips, n_classes) True for the labels that are there.
            task: "multiclass" or "multilabel".
        """
        raise NotImplementedError

    def compute(self, scores: Array, targets: Array, called: Array, task: str) -> float:
        """Return the mean over clips; NaN without clips."""
        return float(np.mean(self.per_clip(scores, targets, task))) if len(scores) else nan

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        raise UserError(f"metric {self.kind!r} depends on the task: ask for compute(scores, targets, called, task)")


class CountMetric(Metric):
    """A metric that is a function of sums over clips, so that all resamples of its interval cost one matrix product."""

    @abstractmethod
    def of_counts(self, sums: Array) -> Array:
        """Return the figure of sums (..., 2 + 3 n_classes): clips that are right in every label, clips, then by
        class labels found, labels predicted and labels that are there.
        """
        raise NotImplementedError

    @staticmethod
    def counts(targets: Array, called: Array) -> Array:
        """Return what is summed, a row for each clip: (n_clips, 2 + 3 n_classes)."""
        right = (called == targets).all(axis=1, keepdims=True)
        return np.hstack([right, np.ones_like(right), called & targets, called, targets])

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        return float(self.of_counts(self.counts(targets, called).astype(np.float64).sum(axis=0)))


# -- the metrics that every run reports -------------------------------------------------------------------------------


class Accuracy(CountMetric, kind="accuracy"):
    """The share of clips whose label is right; with several labels, of clips with every label right (exact match)."""

    def of_counts(self, sums: Array) -> Array:
        return _ratio(sums[..., 0], sums[..., 1])


class MacroF1(CountMetric, kind="macro_f1"):
    """The mean of the classes' F1, leaving out classes neither present nor predicted."""

    def of_counts(self, sums: Array) -> Array:
        hits, calls, support = np.split(sums[..., 2:], 3, axis=-1)
        return _mean_of_defined(_ratio(2 * hits, calls + support))


class MicroF1(CountMetric, kind="micro_f1"):
    """F1 of all decisions pooled (equals accuracy where a clip has one label)."""

    def of_counts(self, sums: Array) -> Array:
        hits, calls, support = (part.sum(axis=-1) for part in np.split(sums[..., 2:], 3, axis=-1))
        return _ratio(2 * hits, calls + support)


class WeightedF1(CountMetric, kind="weighted_f1"):
    """The mean of the classes' F1, weighted by their numbers of clips; 0 for a class that is there and was never found."""

    def of_counts(self, sums: Array) -> Array:
        hits, calls, support = np.split(sums[..., 2:], 3, axis=-1)
        return _weighted(_ratio(2 * hits, calls + support), support)


class WeightedPrecision(CountMetric, kind="weighted_precision"):
    """The mean of the classes' precision, weighted by their numbers of clips; 0 for a class that was never called."""

    def of_counts(self, sums: Array) -> Array:
        hits, calls, support = np.split(sums[..., 2:], 3, axis=-1)
        return _weighted(_ratio(hits, calls), support)


class WeightedRecall(CountMetric, kind="weighted_recall"):
    """The mean of the classes' recall, weighted by their numbers of clips: the share of all labels that were found (accuracy where
    a clip has one label)."""

    def of_counts(self, sums: Array) -> Array:
        hits, _, support = np.split(sums[..., 2:], 3, axis=-1)
        return _weighted(_ratio(hits, support), support)


class Uar(CountMetric, kind="uar"):
    """Unweighted average recall, the mean over the classes present (balanced accuracy where a clip has one label)."""

    def of_counts(self, sums: Array) -> Array:
        hits, _, support = np.split(sums[..., 2:], 3, axis=-1)
        return _mean_of_defined(_ratio(hits, support))


class Map(Metric, kind="map"):
    """Mean average precision over the classes with positives."""

    uses: ClassVar[Uses] = "ranking"

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        return _mean([average_precision(ranked) for ranked in rank(scores, targets)])


class Auc(Metric, kind="auc"):
    """Mean ROC AUC over the classes with positives and negatives."""

    uses: ClassVar[Uses] = "ranking"

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        return _mean([roc_auc(ranked) for ranked in rank(scores, targets)])


class DPrime(Auc, kind="d_prime"):
    """d' of the mean AUC, as AudioSet results are published, not the mean of the classes' d', which one perfectly separated class
    would make infinite. Infinite only when the AUC is 1."""

    unit: ClassVar[str] = "d'"
    low: ClassVar[float] = -inf
    high: ClassVar[float] = inf

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        return float(d_prime(super().score(scores, targets, called)))


class Lwlrap(Metric, kind="lwlrap"):
    """Label-weighted label-ranking average precision (the mean reciprocal rank where a clip has one label)."""

    uses: ClassVar[Uses] = "ranking"

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        return lwlrap(scores, targets)[0]


class Nll(ClipMetric, kind="nll"):
    """Negative log-likelihood: the mean over clips of -log p of the true class, in nats; with several labels a clip, the mean over
    labels of -log p where the label is there and -log(1 - p) where it is not.

    A proper score of the probabilities (Gneiting and Raftery, 2007): unlike the loss it does not depend on what was trained on,
    so that runs with other losses can be compared. Probabilities are clipped to [2.2e-16, 1 - 2.2e-16].
    """

    direction: ClassVar[Direction] = "minimize"
    unit: ClassVar[str] = "nats"
    high: ClassVar[float] = -log(SMALLEST)

    def per_clip(self, scores: Array, targets: Array, task: str) -> Array:
        p, truth = _probabilities(scores).clip(SMALLEST, 1 - SMALLEST), np.asarray(targets) > 0.5
        if task == "multiclass":
            return -np.where(truth, np.log(p), 0.0).sum(axis=1)
        return -np.log(np.where(truth, p, 1 - p)).mean(axis=1)


class Brier(ClipMetric, kind="brier"):
    """Brier score (Brier, 1950): the mean over clips of the sum over classes of (p - t)^2, from 0 to 2; with several labels a clip,
    the mean over labels of (p - t)^2, from 0 to 1. A proper score, as `nll` is, which no single clip can dominate.
    """

    direction: ClassVar[Direction] = "minimize"
    unit: ClassVar[str] = "Brier score"
    high: ClassVar[float] = 2.0

    def per_clip(self, scores: Array, targets: Array, task: str) -> Array:
        squares = (_probabilities(scores) - (np.asarray(targets) > 0.5)) ** 2
        return np.asarray(squares.sum(axis=1) if task == "multiclass" else squares.mean(axis=1))


class LossFigure(Metric, kind="loss"):
    """The loss that was trained on, without augmentation. Runs with other losses are not comparable by it: see `nll`."""

    direction: ClassVar[Direction] = "minimize"
    unit: ClassVar[str] = "loss"
    high: ClassVar[float] = inf
    uses: ClassVar[Uses] = "ranking"
    of_training: ClassVar[bool] = True

    def score(self, scores: Array, targets: Array, called: Array) -> float:
        raise UserError(
            "metric 'loss': stored predictions are probabilities and do not say which loss was trained on; ask for another metric"
        )


# -- by name ----------------------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """Return a metric's name without its prefix: `val/macro_f1` -> `macro_f1`."""
    return name.rpartition("/")[2]


def metric_of(name: str) -> Metric:
    """Return the metric of a name, with or without a prefix (`val/macro_f1`).

    Raises:
        ConfigError: for a name that no metric has: what there is, and the nearest match.
    """
    prefix, slash, plain = name.rpartition("/")
    member = Metric.members().get(plain)
    if member is not None and (prefix in PREFIXES or not slash):
        return member()
    unknown_prefix = f": the prefix {prefix!r} is unknown" if member is not None else ""
    raise ConfigError(
        f"metric {name!r} is not one that runs report{unknown_prefix}. "
        f"{choices(plain if slash and member is None else name, Metric.members())} "
        f"A prefix may stand before it: {', '.join(f'{p}/' for p in PREFIXES)}.",
        [("metric", plain)] if member is None else [],
    )


def check_metric(name: str) -> Direction:
    """Return the direction in which a metric is better; the name may carry a prefix (`val/macro_f1`).

    Raises:
        ConfigError: for a name that no run reports.
    """
    return metric_of(name).direction


def own_metrics(task: str, families: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Metric]:
    """Return the metrics of the user's own that are defined for a task and for these families of classes, by kind."""
    found = (member() for member in Metric.members().values() if not member.is_built_in() and task in member.tasks)
    fitted = (metric.for_families(families or {}) for metric in found)
    return {metric.kind: metric for metric in fitted if metric is not None}


def in_points(metric: str) -> bool:
    """Whether a metric is told in points (hundredths); a prefix such as `val/` is allowed. An unknown one is."""
    member = Metric.members().get(plain_name(metric).removesuffix(TUNED))
    return member is None or member.unit == "points"


def uses_decisions(metric: str) -> bool:
    """Whether a metric depends on which labels are called, and not on the order of the scores alone."""
    return metric_of(metric).uses == "decisions"


def figure_text(value: float, metric: str, *, signed: bool = False) -> str:
    """Return a figure of a metric as people read it: points with one decimal, or three digits in its own units."""
    return number_text(value, in_points(metric), signed=signed)


def number_text(value: float, points: bool, *, signed: bool = False) -> str:
    """Return a number in points (hundredths, one decimal) or with three digits. Zero has no sign."""
    text = f"{100 * value:.1f}" if points else f"{value:.3g}"
    if float(text) == 0:
        return text.lstrip("-")
    return f"+{text}" if signed and value > 0 else text


def p_text(p: float) -> str:
    """Return a p value with its name."""
    return "p unknown" if not np.isfinite(p) else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _probabilities(scores: Array) -> Array:
    """Return scores as float64; NaN where they are no probabilities."""
    p = np.asarray(scores, np.float64)
    return np.where((p >= 0) & (p <= 1), p, nan)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(np.shape(whole), nan), where=np.asarray(whole) > 0)


def _mean_of_defined(values: Array) -> Array:
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _weighted(values: Array, weights: Array) -> Array:
    """Return the weighted mean over the last axis; what is not defined counts as 0, as in scikit-learn's `zero_division`."""
    return _ratio((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def _mean(values: list[float]) -> float:
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else nan
