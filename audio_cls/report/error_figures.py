"""Where a model errs, as figures: the pairs of classes that it confuses most, and groups of clips that it is worse on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from audio_cls.metrics.classification import Confusion
from audio_cls.metrics.slices import Slice
from audio_cls.report.figures import GREY, PALETTE, layout, text

__all__ = ["SLICES", "confused_pairs_figure", "slices_figure"]

SLICES = 30  # bars of a figure by group at most: of more values those with the lowest figures


def confused_pairs_figure(pairs: Sequence[Confusion]) -> go.Figure:
    """Return a bar for each pair of classes: how many clips of the first were called the second, the most at the top."""
    places = list(range(len(pairs)))
    names = [f"{text(pair.true, 24)} → {text(pair.predicted, 24)}" for pair in pairs]
    bars = go.Bar(
        x=[pair.count for pair in pairs],
        y=places,
        orientation="h",
        marker={"color": PALETTE[1]},
        text=[f"{pair.count} ({pair.rate:.0%})" for pair in pairs],
        textposition="auto",
        cliponaxis=False,
        customdata=[[name, f"{pair.rate:.1%}"] for name, pair in zip(names, pairs, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{x} clips, %{customdata[1]} of the class<extra></extra>",
    )
    return go.Figure(
        bars,
        layout(
            "Most confused pairs: true class → what it was called (share of the true class)",
            int(np.clip(120 + 26 * len(pairs), 240, 700)),
            xaxis={"title": {"text": "clips"}, "rangemode": "tozero"},
            yaxis={"tickvals": places, "ticktext": names, "range": [len(pairs) - 0.4, -0.6], "ticks": "", "showgrid": False},
        ),
    )  # fmt: skip


def slices_figure(slices: Sequence[Slice], column: str, measure: str, overall: float) -> go.Figure:
    """Return a bar for each group of clips with the 95 % interval of its figure, and a line at the figure of all clips.

    Args:
        slices: of one column; of more than 30 those with the lowest figures are drawn, the lowest at the top.
        column: its name.
        measure: what the figure is, such as "accuracy".
        overall: the figure of all clips.
    """
    shown, note = list(slices), ""
    if len(shown) > SLICES:
        shown = sorted(shown, key=lambda s: (s.interval.estimate, s.value))[:SLICES]
        note = f", {SLICES} lowest of {len(slices)}"
    places = list(range(len(shown)))
    middle = np.array([s.interval.estimate for s in shown])
    low = middle - np.array([s.interval.low for s in shown])
    high = np.array([s.interval.high for s in shown]) - middle
    names = [f"{text(s.value)} ({s.n_clips})" for s in shown]
    bars = go.Bar(
        x=middle,
        y=places,
        orientation="h",
        marker={"color": "#9ccbe8"},
        error_x={"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": "#444444", "width": 4},
        customdata=[[name, s.interval.low, s.interval.high] for name, s in zip(names, shown, strict=True)],
        hovertemplate=f"%{{customdata[0]}}<br>{text(measure)} %{{x:.3f}} [%{{customdata[1]:.3f}}, %{{customdata[2]:.3f}}]<extra></extra>",
    )
    figure = go.Figure(
        bars,
        layout(
            f"By {column} (clips){note}",
            int(np.clip(120 + 26 * len(shown), 220, 1000)),
            xaxis={"range": [0, 1.03], "title": {"text": f"{text(measure)}, with its 95 % interval"}},
            yaxis={"tickvals": places, "ticktext": names, "range": [len(shown) - 0.4, -0.6], "ticks": "", "showgrid": False},
        ),
    )  # fmt: skip
    if np.isfinite(overall):
        figure.add_vline(x=overall, line={"color": GREY, "dash": "dot", "width": 2})
    return figure
