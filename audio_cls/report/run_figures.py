"""The family of figures on a run's page, and its members: confusion, classes, ROC, precision and recall, reliability, curves of training.

A figure of a user's own is a subclass with a `kind`, in a file of theirs; it then stands on the page of every run that is made, or
reported again, while its file is loaded.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go

from audio_cls.core.config import Component
from audio_cls.metrics.base import Metric, check_metric, in_points, plain_name
from audio_cls.metrics.classification import Confusion, most_confused
from audio_cls.metrics.predictions import Predictions
from audio_cls.report.calibration import calibrate, reliability_figure
from audio_cls.report.error_figures import confused_pairs_figure
from audio_cls.report.figures import class_bars, confusion_figure, curve_figure
from audio_cls.report.page import Html
from audio_cls.report.ranking_figures import precision_recall_figure, roc_figure
from audio_cls.report.training_figures import overtraining_figure

__all__ = ["ON_THE_PAGE", "PAIRS", "Figure", "History", "best_epoch", "build_figures", "confused_pairs"]

log = logging.getLogger(__name__)
History = Sequence[Mapping[str, float]]


class Figure(Component, family=True):
    """A figure on a run's page.

    title: heading of its section.
    tasks: that it is drawn for.
    """

    title: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel")

    @abstractmethod
    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        """Draw it: a plotly figure, or HTML that needs nothing from elsewhere; None if there is nothing to draw.

        Args:
            predictions: of the clips reported on; its `evaluation` has the figures, its `called` the decisions.
            history: a mapping for each epoch: "epoch" (from 1), "train/loss", "val/loss", "val/macro_f1", ...
            metric: that chose the best epoch, such as "val/macro_f1".
        """
        raise NotImplementedError


LOSSES = ("loss", "nll")
AT_A_CLICK = (
    "weighted_f1",
    "weighted_precision",
    "weighted_recall",
    "family_map_noisy_or",
)  # curves that the legend shows


class PerClass(Figure, kind="per_class"):
    """F1, recall and average precision of each class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return class_bars(predictions.evaluation.per_class, predictions.classes)


class ConfusionMatrix(Figure, kind="confusion"):
    """What was called what."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        support = predictions.evaluation.per_class["support"]
        return confusion_figure(predictions.confusion, predictions.classes, support)


class ConfusedPairs(Figure, kind="confused_pairs"):
    """The 15 pairs of classes that are confused most."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        pairs = confused_pairs(predictions)
        return confused_pairs_figure(pairs) if pairs else None


class Roc(Figure, kind="roc"):
    """ROC curves by class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return roc_figure(*_ranked(predictions), predictions.evaluation.per_class["auc"])


class PrecisionRecall(Figure, kind="precision_recall"):
    """Precision-recall curves by class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return precision_recall_figure(*_ranked(predictions), predictions.evaluation.per_class["ap"])


class Reliability(Figure, kind="reliability"):
    """How often predictions of each confidence are right."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        found = calibrate(predictions.scores, predictions.targets, predictions.task)
        return reliability_figure({"these clips": found}) if found.n else None


class LossCurves(Figure, kind="curves_loss"):
    """The losses and the negative log-likelihood over the epochs."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        losses = [name for name in _names(history) if plain_name(name) in LOSSES]
        return curve_figure(history, losses, "Loss", best_epoch(history, metric)) if losses else None


class MetricCurves(Figure, kind="curves_metrics"):
    """The metrics over the epochs; those in units of their own only where there are no others."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        names = [n for n in _names(history) if plain_name(n) in Metric.members() and plain_name(n) not in LOSSES]
        bounded = [name for name in names if in_points(name)]
        if not names:
            return None
        figure = curve_figure(history, bounded or names, "Metrics", best_epoch(history, metric))
        for name, trace in zip(bounded or names, figure.data, strict=True):
            if plain_name(name) in AT_A_CLICK and name != metric:
                trace.visible = "legendonly"
        return figure


class Overtraining(Figure, kind="curves_overtraining"):
    """The chosen metric above the gap between validation and training loss."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return overtraining_figure(history, metric, best_epoch(history, metric))


PAIRS = 15
ON_THE_PAGE = (
    *("per_class", "confusion", "confused_pairs", "roc", "precision_recall", "reliability"),
    *("curves_loss", "curves_metrics", "curves_overtraining"),
)
"""The kinds that come with audio_cls, in their order."""


def build_figures(predictions: Predictions, history: History, metric: str) -> dict[str, go.Figure | Html]:
    """Draw every figure that fits the predictions, by kind; the user's own come last. One of theirs that fails is replaced by a line
    that says how: a figure costs no run."""
    out: dict[str, go.Figure | Html] = {}
    for kind in (*ON_THE_PAGE, *(k for k, member in Figure.members().items() if not member.is_built_in())):
        member = Figure.members()[kind]
        if predictions.task not in member.tasks:
            continue
        try:
            found = member().build(predictions, history, metric)
        except Exception as error:
            if member.is_built_in():
                raise
            log.warning("the figure %s cannot be drawn: %s: %s", kind, type(error).__name__, error)
            found = Html("<p>This figure cannot be drawn; the log says why.</p>")
        if found is not None:
            out[kind] = found
    return out


def confused_pairs(predictions: Predictions, limit: int = PAIRS) -> list[Confusion]:
    """Return the pairs of classes that are confused most, by the number of clips."""
    support = predictions.evaluation.per_class["support"]
    return most_confused(predictions.confusion, predictions.classes, limit, support=support)


def best_epoch(curves: History, metric: str) -> float | None:
    """The first epoch, as the curves count them, at which `metric` is best; None when no epoch reports a finite one."""
    sign = 1 if check_metric(metric) == "maximize" else -1
    known = [(sign * row[metric], -row["epoch"]) for row in curves if math.isfinite(row.get(metric, math.nan))]
    return -max(known)[1] if known else None


def _names(history: History) -> list[str]:
    return list(dict.fromkeys(key for row in history for key in row if key != "epoch"))


def _ranked(predictions: Predictions) -> tuple[Any, Any, Sequence[str]]:
    """Scores, targets and classes; no clips where a diverged model's scores cannot be ranked: axes without curves are drawn."""
    scores = np.asarray(predictions.scores)
    some = slice(None) if not np.isnan(scores).any() else slice(0, 0)
    return scores[some], np.asarray(predictions.targets)[some], predictions.classes
