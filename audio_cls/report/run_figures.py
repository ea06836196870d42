"""The family of figures on a run's page, and its members: confusion, classes, ROC, precision and recall, curves of training.

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
from audio_cls.metrics.predictions import Predictions
from audio_cls.report.figures import class_bars, confusion_figure, curve_figure, precision_recall_figure, roc_figure
from audio_cls.report.page import Html

__all__ = ["ON_THE_PAGE", "Figure", "History", "best_epoch", "build_figures"]

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


class PerClass(Figure, kind="per_class"):
    """F1, recall and average precision of each class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return class_bars(predictions.evaluation.per_class, predictions.classes)


class ConfusionMatrix(Figure, kind="confusion"):
    """What was called what."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        support = predictions.evaluation.per_class["support"]
        return confusion_figure(predictions.confusion, predictions.classes, support)


class Roc(Figure, kind="roc"):
    """ROC curves by class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return roc_figure(*_ranked(predictions), predictions.evaluation.per_class["auc"])


class PrecisionRecall(Figure, kind="precision_recall"):
    """Precision-recall curves by class."""

    def build(self, predictions: Predictions, history: History, metric: str) -> go.Figure | Html | None:
        return precision_recall_figure(*_ranked(predictions), predictions.evaluation.per_class["ap"])


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
        return curve_figure(history, bounded or names, "Metrics", best_epoch(history, metric)) if names else None


ON_THE_PAGE = ("per_class", "confusion", "roc", "precision_recall", "curves_loss", "curves_metrics")
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
