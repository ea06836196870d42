"""Calibration of probabilities: the reliability diagram and the expected calibration error.

Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, equations 2, 3 and 5: predictions
are put into bins of equal width by their confidence, and a bin's mean confidence is compared with its share of right predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from audio_cls.report.figures import DASHES, PALETTE, layout, text
from audio_cls.report.page import Section, Table

__all__ = ["Calibration", "calibrate", "calibration_section", "reliability_figure"]

BINS = 15
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")


@dataclass(frozen=True)
class Calibration:
    """The bins that hold anything, (n_bins,) each: mean confidence, share of right ones, count; and the errors.

    n: decisions. ece: mean |share - confidence|, weighted by count. mce: the largest over the bins.
    brier: mean squared distance of the probabilities from 0 and 1, summed over classes for multiclass.
    gap: mean confidence less the share of right ones; above 0 is overconfident.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.float64]
    count: NDArray[np.int64]
    n: int
    ece: float
    mce: float
    brier: float
    gap: float


def calibrate(scores: NDArray[Any], targets: NDArray[Any], task: str, bins: int = BINS) -> Calibration:
    """Bin predictions by confidence.

    Args:
        scores: (n_clips, n_classes) probabilities.
        targets: (n_clips, n_classes) 0 and 1.
        task: "multiclass": the confidence is the highest score of a clip, and right is whether that class is true.
            "multilabel": each label of each clip counts by itself, the confidence being the label's probability.
        bins: of equal width, open below and closed above (the first takes 0).

    Returns:
        NaN errors and no bins where a score is NaN or there is no clip.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(targets) > 0.5
    if not scores.size or np.isnan(scores).any():
        none = np.zeros(0)
        return Calibration(none, none, np.zeros(0, np.int64), 0, *(float("nan"),) * 4)
    if task == "multilabel":
        confidence, right = scores.ravel(), truth.ravel()
        brier = float(np.mean((scores - truth) ** 2))
    else:
        best = scores.argmax(axis=1)
        confidence, right = scores[np.arange(len(best)), best], truth[np.arange(len(best)), best]
        brier = float(np.mean(((scores - truth) ** 2).sum(axis=1)))
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    held = count > 0
    mean = np.bincount(index, confidence, minlength=bins)[held] / count[held]
    share = np.bincount(index, right, minlength=bins)[held] / count[held]
    error = np.abs(share - mean)
    return Calibration(
        confidence=mean,
        right=share,
        count=count[held],
        n=len(confidence),
        ece=float((error * count[held]).sum() / len(confidence)),
        mce=float(error.max()),
        brier=brier,
        gap=float(confidence.mean() - right.mean()),
    )


def reliability_figure(named: Mapping[str, Calibration]) -> go.Figure:
    """Return the share of right predictions over the confidence, a line for each name; a mark's area grows with its
    bin's count.
    """
    figure = go.Figure()
    small, large = (5, 15) if len(named) == 1 else (4, 8)
    for index, (name, c) in enumerate(named.items()):
        if not c.n:
            continue
        colour = PALETTE[index % len(PALETTE)]
        figure.add_scatter(
            x=c.confidence,
            y=c.right,
            name=f"{text(name)}: ECE {c.ece:.3f}",
            mode="lines+markers",
            line={"color": colour, "width": 1.5, "dash": DASHES[index // len(PALETTE) % len(DASHES)]},
            marker={
                "color": colour,
                "symbol": SYMBOLS[index % len(SYMBOLS)],
                "size": small + large * np.sqrt(c.count / c.count.max()),
                "opacity": 0.8,
            },
            customdata=c.count,
            hovertemplate=f"{text(name)}<br>confidence %{{x:.3f}}<br>right %{{y:.3f}}<br>%{{customdata:,}} decisions<extra></extra>",
        )
    line = {"color": "#999999", "dash": "dot", "width": 1}
    return figure.update_layout(
        layout(
            "Reliability (below the diagonal: too confident)",
            460,
            xaxis={"range": [-0.02, 1.02], "title": {"text": "confidence"}},
            yaxis={"range": [-0.03, 1.03], "title": {"text": "share that is right"}},
            shapes=[{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": line, "layer": "below"}],
            showlegend=True,
        )
    )


def calibration_section(
    predictions: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], task: str, bins: int = BINS
) -> Section:
    """Return the section of a page, for one or more named pairs (scores, targets)."""
    named = {name: calibrate(scores, targets, task, bins) for name, (scores, targets) in predictions.items()}
    reading = (
        "Each label of each clip is one decision: of those given a probability of 0.7, seven in ten should be there."
        if task == "multilabel"
        else "Of the clips labelled with a confidence of 0.7, seven in ten should be right."
    )
    reading += (
        f" ECE is the mean distance from that over {bins} bins of equal width, weighted by their counts (Guo et al. 2017); "
        "on a few hundred clips it is above 0 even for perfect probabilities, by chance."
    )
    rows = [[name, c.n, c.ece, c.mce, c.brier, c.gap, _word(c)] for name, c in named.items()]
    columns = (
        "of",
        "decisions",
        "ECE",
        "largest error of a bin",
        "Brier score",
        "confidence − share right",
        "so it is",
    )
    return Section("Calibration", [reading, reliability_figure(named), Table(columns, rows, "Calibration")])


def _word(c: Calibration) -> str:
    if not c.n:
        return "not known"
    if abs(c.gap) < 0.02:
        return "about right on average"
    return "overconfident" if c.gap > 0 else "underconfident"
