"""Curves over the epochs: how far training and validation come apart, and several runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from audio_cls.metrics.base import plain_name
from audio_cls.report.figures import DASHES, PALETTE, layout, text

__all__ = ["LOSS_GAP", "overtraining_figure", "runs_curve_figure"]

History = Sequence[Mapping[str, float]]
LOSS_GAP = "val/loss - train/loss"
UPPER, LOWER = (0.5, 1.0), (0.0, 0.4)  # shares of the height


def overtraining_figure(history: History, metric: str, best_epoch: float | None) -> go.Figure | None:
    """Return the chosen metric above the gap between validation and training loss, on one axis of epochs; None without losses.

    The gap opens where a model learns its training clips by heart. Augmentation, mixing and dropout make the training loss larger,
    so that the gap may be below 0: its change says more than its value.
    """
    gaps = loss_gaps(history)
    if not gaps:
        return None
    figure = go.Figure()
    names = [metric] if plain_name(metric) == "loss" else [f"train/{plain_name(metric)}", metric]
    for index, name in enumerate(names):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        if points:
            colour = PALETTE[1] if name.startswith("train/") else PALETTE[0]
            figure.add_scatter(**_trace(points, name, colour, DASHES[len(names) - 1 - index]), yaxis="y2")
    figure.add_scatter(**_trace(gaps, LOSS_GAP, PALETTE[3], "solid"), fill="tozeroy", fillcolor="rgba(204,121,167,0.2)")
    figure.update_layout(
        layout(
            "Over-training: the metric, and the gap between the losses",
            460,
            xaxis={"title": {"text": "epoch"}, "anchor": "y"},
            yaxis={"domain": list(LOWER), "title": {"text": "loss gap"}, "zeroline": True, "zerolinecolor": "#222222"},
            showlegend=True,
        )
    )
    figure.update_layout(
        yaxis2={
            "domain": list(UPPER),
            "anchor": "x",
            "automargin": True,
            "gridcolor": "#e6e6e6",
            "title": {"text": text(plain_name(metric))},
        }
    )
    if best_epoch is not None:
        line = {"color": "#666666", "dash": "dot", "width": 1}
        figure.add_shape(type="line", x0=best_epoch, x1=best_epoch, y0=0, y1=1, yref="paper", line=line)
        figure.add_annotation(
            x=best_epoch, y=1, yref="paper", text=f"best: epoch {best_epoch:g}", showarrow=False, yanchor="bottom", font={"size": 11}
        )  # fmt: skip
    return figure


def runs_curve_figure(histories: Mapping[str, History], key: str, title: str, train_key: str = "") -> go.Figure | None:
    """Return one curve of several runs over the epochs, a colour for each run; None where no run has it.

    Args:
        histories: the rows of each run, by its name.
        key: what is drawn, such as "val/macro_f1", or `LOSS_GAP`.
        train_key: drawn as well, dashed and thin, where a run has it.
    """
    figure = go.Figure()
    for index, (name, history) in enumerate(histories.items()):
        colour = PALETTE[index % len(PALETTE)]
        points = loss_gaps(history) if key == LOSS_GAP else [(row["epoch"], row[key]) for row in history if key in row]
        if points:
            dash = DASHES[index // len(PALETTE) % len(DASHES)]
            figure.add_scatter(**_trace(points, name, colour, dash), legendgroup=name)
        train = [(row["epoch"], row[train_key]) for row in history if train_key in row]
        if points and train:
            trace = _trace(train, f"{name}: {train_key}", colour, "dot")
            figure.add_scatter(**{**trace, "mode": "lines"}, legendgroup=name, showlegend=False, opacity=0.7)
    if not figure.data:
        return None
    dotted = f"; {train_key} dotted" if len(figure.data) > len(histories) else ""
    axes = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": text(key)}}}
    return figure.update_layout(layout(f"{title}{dotted}", 440, **axes, showlegend=True))


def loss_gaps(history: History) -> list[tuple[float, float]]:
    """Return (epoch, validation loss less training loss) of the epochs that have both."""
    return [
        (row["epoch"], row["val/loss"] - row["train/loss"])
        for row in history
        if "val/loss" in row and "train/loss" in row
    ]


def _trace(points: Sequence[tuple[float, float]], name: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "name": text(name, 48),
        "mode": "lines+markers" if len(points) <= 60 else "lines",
        "marker": {"size": 4},
        "line": {"color": colour, "dash": dash, "width": 1.8},
        "hovertemplate": f"{text(name, 48)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
    }
