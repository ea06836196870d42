"""Where a model errs, as figures: the pairs of classes that it confuses most, and groups of clips that it is worse on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from audio_cls.metrics.classification import Confusion
from audio_cls.metrics.slices import ArmSlice, Slice
from audio_cls.report.figures import BLUES, GREY, PALETTE, layout, name_axis, text

__all__ = ["SLICES", "arm_slices_figure", "confused_pairs_figure", "slices_figure"]

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


def arm_slices_figure(slices: Sequence[ArmSlice], column: str, measure: str) -> go.Figure:
    """Return values of a column x arms, coloured by the figure; a star where the interval of the difference from the reference leaves out 0.

    Args:
        slices: of one column, as `compare_by` returns them; of more than 30 values those with the lowest figures are drawn.
        column: its name.
        measure: what the figure is, such as "accuracy".
    """
    arms = list(dict.fromkeys(s.arm for s in slices))
    by_value: dict[str, list[ArmSlice]] = {}
    for item in slices:
        by_value.setdefault(item.value, []).append(item)
    rows, note = list(by_value.values()), ""
    if len(rows) > SLICES:
        note = f", {SLICES} lowest of {len(rows)}"
        rows = sorted(rows, key=lambda row: float(np.mean([s.figure.estimate for s in row])))[:SLICES]
    points = 100 * np.array([[s.figure.estimate for s in row] for row in rows])
    names = [f"{text(row[0].value, 20)} ({row[0].n_clips})" for row in rows]
    places = list(range(len(rows)))
    clear = [
        [s.difference is not None and (s.difference.low > 0 or s.difference.high < 0) for s in row] for row in rows
    ]
    cells = [
        [f"{value:.1f}{' *' if star else ''}" for value, star in zip(*row, strict=True)]
        for row in zip(points, clear, strict=True)
    ]
    hover = [
        [[f"{text(s.value, 200)}, {text(s.arm)}", 100 * s.figure.low, 100 * s.figure.high] for s in row] for row in rows
    ]
    figure = go.Heatmap(
        z=points,
        x=list(range(len(arms))),
        y=places,
        text=cells,
        texttemplate="%{text}" if len(arms) <= 12 else None,
        customdata=hover,
        hovertemplate="%{customdata[0]}: %{z:.1f} [%{customdata[1]:.1f}, %{customdata[2]:.1f}]<extra></extra>",
        colorscale=[list(stop) for stop in BLUES],
        zmin=0,
        zmax=100,
        xgap=1,
        ygap=1,
        colorbar={"thickness": 8, "outlinewidth": 0, "len": 0.9},
    )
    y_axis = {"tickvals": places, "ticktext": names, "range": [len(rows) - 0.5, -0.5], "ticks": "", "showgrid": False}
    x_axis = name_axis(arms)
    height = int(np.clip(140 + 26 * len(rows), 220, 1000)) + (80 if x_axis["tickangle"] else 0)
    return go.Figure(figure, layout(f"By {column} (clips): {measure}{note}", height, xaxis=x_axis, yaxis=y_axis))
