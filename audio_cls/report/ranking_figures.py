"""Plotly figures of how well scores rank clips: ROC and precision-recall curves by class, from arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from audio_cls.metrics.classification import precision_recall_curve, roc_curve
from audio_cls.metrics.ranking import Ranked, average_precision, rank, roc_auc
from audio_cls.report.figures import GREY, layout, line_style, text

__all__ = ["precision_recall_figure", "roc_figure"]

NAMED = 10  # classes drawn in colour and named in the legend; of more classes the weakest ones are

Array = NDArray[Any]


def roc_figure(scores: Array, targets: Array, classes: Sequence[str], areas: Array | None = None) -> go.Figure:
    """Return ROC curves by class, their mean (true positive rates averaged at equal false positive rates), and the micro average
    (all decisions of all classes as one ranking).

    Args:
        scores, targets: (n_clips, n_classes); classes without positives or without negatives have no curve.
        classes: names.
        areas: (n_classes,) ROC AUC, computed unless given.
    """
    grid = np.linspace(0, 1, 101)
    areas = np.array([roc_auc(r) for r in rank(scores, targets)]) if areas is None else np.asarray(areas)
    curves = {k: roc_curve(scores[:, k], targets[:, k]) for k in np.flatnonzero(~np.isnan(areas)).tolist()}
    mean = [np.r_[0.0, np.interp(grid, x, y)] for x, y in curves.values()]
    figure = _class_lines(
        "ROC curves",
        "AUC",
        classes,
        areas,
        curves,
        (np.r_[0.0, grid], mean),
        ("false positive rate", "true positive rate"),
        micro=_micro(scores, targets, roc_auc, roc_curve) if curves else None,
    )
    diagonal = {
        "type": "line",
        "x0": 0,
        "y0": 0,
        "x1": 1,
        "y1": 1,
        "line": {"color": "#999999", "dash": "dot", "width": 1},
    }
    return figure.update_layout(shapes=[diagonal])


def precision_recall_figure(
    scores: Array, targets: Array, classes: Sequence[str], areas: Array | None = None
) -> go.Figure:
    """Return precision-recall curves by class, their mean (precisions averaged at equal recall) and the micro average (all
    decisions of all classes as one ranking); the area is the AP.

    Args:
        scores, targets: (n_clips, n_classes); classes without positives have no curve.
        classes: names.
        areas: (n_classes,) average precisions, computed unless given.
    """
    grid = np.linspace(0, 1, 101)
    areas = np.array([average_precision(r) for r in rank(scores, targets)]) if areas is None else np.asarray(areas)
    curves, mean = {}, []
    for k in np.flatnonzero(~np.isnan(areas)).tolist():
        curves[k] = _recall_steps(scores[:, k], targets[:, k])
        recall, precision = curves[k][0][1:], curves[k][1][1:]
        mean.append(precision[np.minimum(recall.searchsorted(grid - 1e-12), len(recall) - 1)])
    return _class_lines(
        "Precision and recall",
        "AP",
        classes,
        areas,
        curves,
        (grid, mean),
        ("recall", "precision"),
        micro=_micro(scores, targets, average_precision, _recall_steps) if curves else None,
        shape="vh",
    )


def _recall_steps(scores: Array, positive: Array) -> tuple[Array, Array]:
    """Return recall from 0 on and precision, as steps whose area is the AP; there must be a positive."""
    precision, recall, _ = precision_recall_curve(scores, positive)
    first = np.diff(recall, prepend=0.0) > 0  # thresholds that only add false alarms do not enter the AP
    precision, recall = precision[first], recall[first]
    return np.r_[0.0, recall], np.r_[precision[0], precision]


def _micro(
    scores: Array, targets: Array, area: Callable[[Ranked], float], curve: Callable[[Array, Array], tuple[Array, Array]]
) -> tuple[Array, Array, float]:
    """Return the curve and the area of all decisions of all classes as one ranking."""
    pooled, truth = np.asarray(scores).ravel(), np.asarray(targets).ravel()
    x, y = curve(pooled, truth)
    return x, y, area(next(rank(pooled[:, None], truth[:, None])))


def _class_lines(
    title: str,
    measure: str,
    classes: Sequence[str],
    areas: NDArray[np.float64],
    curves: Mapping[int, tuple[Array, Array]],
    mean: tuple[Array, list[Array]],
    axes: tuple[str, str],
    *,
    micro: tuple[Array, Array, float] | None = None,
    shape: str = "linear",
) -> go.Figure:
    """Return a line per class, a thick mean and a dashed micro average; of more than `NAMED` classes the weakest are coloured and the others
    grey.
    """
    ranked = sorted(curves, key=lambda k: (areas[k], k))
    named = ranked[:NAMED]
    figure = go.Figure()
    for k in [*ranked[NAMED:][::-1], *named]:
        label = f"{text(classes[k])} {areas[k]:.3f}"
        x, y = _thin(*curves[k], limit=120 if k in named else 50)
        figure.add_scatter(
            x=x,
            y=y,
            name=label,
            mode="lines",
            line={**(line_style(named.index(k)) if k in named else {"color": GREY, "width": 1}), "shape": shape},
            showlegend=k in named,
            hovertemplate=f"{text(classes[k])}, {measure} {areas[k]:.3f}<br>"
            f"{axes[0]} %{{x:.3f}}<br>{axes[1]} %{{y:.3f}}<extra></extra>",
        )
    if micro is not None:
        x, y = _thin(micro[0], micro[1], limit=200)
        figure.add_scatter(
            x=x,
            y=y,
            name=f"micro average {micro[2]:.3f}",
            mode="lines",
            line={"color": "#000000", "width": 2, "dash": "dash", "shape": shape},
            hovertemplate=f"micro average<br>{axes[0]} %{{x:.3f}}<br>{axes[1]} %{{y:.3f}}<extra></extra>",
        )
    if curves:
        figure.add_scatter(
            x=mean[0],
            y=np.mean(mean[1], axis=0),
            name=f"mean of classes {areas[list(curves)].mean():.3f}",
            mode="lines",
            line={"color": "#000000", "width": 3},
            hovertemplate=f"mean<br>{axes[0]} %{{x:.2f}}<br>{axes[1]} %{{y:.3f}}<extra></extra>",
        )
    note = f", {NAMED} weakest of {len(curves)} classes named" if len(curves) > NAMED else ""
    return figure.update_layout(
        layout(
            f"{title} ({measure}{note})",
            520,
            xaxis={"range": [-0.01, 1.01], "title": {"text": axes[0]}},
            yaxis={"range": [0, 1.02], "title": {"text": axes[1]}},
            showlegend=True,
        )
    )


def _thin(x: Array, y: Array, limit: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """At most about `limit` points, evenly spaced along the curve, both ends among them."""
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    if len(x) <= limit:
        return x, y
    length = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    keep = np.unique(np.r_[length.searchsorted(np.linspace(0, length[-1], limit)).clip(max=len(x) - 1), 0, len(x) - 1])
    return x[keep], y[keep]
