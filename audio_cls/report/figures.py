"""Plotly figures of predictions and training curves: pure functions from arrays.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers, with a line style beside each colour.
Class names are escaped (plotly reads markup in text) and stand at numeric positions, so equal or shortened names cannot
merge two classes into one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

__all__ = [
    "PALETTE",
    "class_bars",
    "confusion_figure",
    "curve_figure",
    "layout",
    "line_style",
    "name_axis",
    "text",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES = ("solid", "dash", "dot", "dashdot")
GREY = "#bbbbbb"
BLUES = ((0.0, "#ffffff"), (0.15, "#dbe9f6"), (0.4, "#8fc1de"), (0.7, "#2f7fbc"), (1.0, "#08306b"))
BARS = 40  # classes in the bar chart at most
LABELLED, CONFUSED = 60, 40  # classes that a confusion matrix has room to name; of more, so many are drawn

Array = NDArray[Any]


def layout(title: str, height: int = 420, **more: Any) -> dict[str, Any]:
    """Return the look shared by all figures: white, system fonts, legend below (a phone has no room beside), margins
    that grow.
    """
    axis = {"automargin": True, "gridcolor": "#e6e6e6", "zeroline": False, "linecolor": "#888888", "ticks": "outside"}
    base: dict[str, Any] = {
        "template": "none",
        "title": {"text": text(title, 80), "x": 0, "xref": "container", "pad": {"l": 8}, "font": {"size": 15}},
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 44, "b": 44},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#222222"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(PALETTE),
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "font": {"size": 11},
        },
        "hoverlabel": {"align": "left"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
    for key, value in more.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return base


def confusion_figure(matrix: Array, classes: Sequence[str], support: Array | None = None) -> go.Figure:
    """Return a confusion matrix, each row as shares of its class; counts and shares are in the cells (up to 20 classes) and in
    the hover. Of more than 60 classes the 40 are drawn that are confused most, in their order.

    Args:
        matrix: (n_classes, n_classes) counts, rows true, columns predicted.
        classes: names, the order of both axes; the first is at the top and at the left.
        support: (n_classes,) clips with each label, for multilabel; row sums unless given.
    """
    counts = np.asarray(matrix)
    total = (counts.sum(axis=1) if support is None else np.asarray(support))[:, None].astype(float)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    note = ""
    if len(counts) > LABELLED:
        errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
        kept = np.sort(np.argsort(-errors, kind="stable")[:CONFUSED])
        note = f": the {CONFUSED} of {len(counts)} classes that are confused most"
        counts, shares, classes = counts[np.ix_(kept, kept)], shares[np.ix_(kept, kept)], [classes[k] for k in kept]
    names = [text(name) for name in classes]
    if len(set(names)) < len(names):  # categories, so that the hover needs no text of its own: they must differ
        names = [text(name, 1000) for name in classes]
    few = len(names) <= 20
    ticks = {"type": "category", "showgrid": False, "ticks": ""}
    size = int(np.clip(150 + 34 * len(names), 320, 900))
    cells = [
        [f"{n}<br>{share:.0%}" if n else "" for n, share in zip(*row, strict=True)]
        for row in zip(counts, shares, strict=True)
    ]
    return go.Figure(
        go.Heatmap(
            z=shares.astype(np.float32),
            x=names,
            y=names,
            text=cells if few else None,
            texttemplate="%{text}" if few else None,
            textfont={"size": 10},
            customdata=counts.astype(np.int32),
            hovertemplate="true %{y}<br>predicted %{x}<br>%{customdata} clips, %{z:.1%} of the row<extra></extra>",
            colorscale=[list(stop) for stop in BLUES],
            zmin=0,
            zmax=1,
            xgap=int(few),
            ygap=int(few),
            colorbar={"thickness": 8, "tickformat": ".0%", "outlinewidth": 0, "len": 0.9},
        ),
        layout(
            f"Confusion matrix{note}",
            size,
            xaxis={**ticks, "title": {"text": "predicted"}, "tickangle": -90 if len(names) > 5 else 0},
            yaxis={**ticks, "title": {"text": "true"}, "autorange": "reversed"},
        ),
    )


def class_bars(per_class: Mapping[str, Array], classes: Sequence[str]) -> go.Figure:
    """Return F1 of each class as a bar, recall and average precision as marks on it, the number of clips beside the name.

    Of more than 40 classes the 40 weakest are drawn.

    Args:
        per_class: `Evaluation.per_class`: f1, recall, ap and support, each (n_classes,).
        classes: names; drawn in the order of F1, undefined ones last.
    """
    f1 = np.asarray(per_class["f1"], float)
    order = np.argsort(-np.nan_to_num(f1, nan=-1.0), kind="stable")
    note = f", {BARS} weakest of {len(order)}" if len(order) > BARS else ""
    order = order[~np.isnan(f1[order])][-BARS:] if note else order
    positions = np.arange(len(order))
    names = [f"{text(classes[k])} ({int(per_class['support'][k])})" for k in order.tolist()]
    common = {"y": positions, "customdata": names}
    figure = go.Figure(
        [
            go.Bar(
                x=f1[order],
                orientation="h",
                name="F1",
                marker={"color": "#9ccbe8"},
                hovertemplate="%{customdata}<br>F1 %{x:.3f}<extra></extra>",
                **common,
            )
        ]
    )
    for key, name, symbol, colour in (("recall", "recall", "line-ns", "#D55E00"), ("ap", "AP", "diamond", "#1b1b1b")):
        figure.add_scatter(
            x=np.asarray(per_class[key], float)[order],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 11 if key == "recall" else 7,
                "color": colour,
                "line": {"width": 2, "color": colour},
            },
            hovertemplate=f"%{{customdata}}<br>{name} %{{x:.3f}}<extra></extra>",
            **common,
        )
    height = int(np.clip(130 + 24 * len(names), 240, 2600))
    return figure.update_layout(
        layout(
            f"Per class (clips){note}",
            height,
            xaxis={"range": [0, 1.03], "side": "bottom"},
            yaxis={
                "tickmode": "array",
                "tickvals": positions,
                "ticktext": names,
                "range": [len(names) - 0.4, -0.6],
                "ticks": "",
                "showgrid": False,
            },
            legend={"traceorder": "normal"},
        )
    )


def curve_figure(
    curves: Sequence[Mapping[str, float]],
    names: Iterable[str],
    title: str,
    best_epoch: float | None = None,
    y_title: str = "",
) -> go.Figure:
    """Return curves over epochs.

    Args:
        curves: a mapping for each epoch, with "epoch" and any of `names`; an epoch without a name is a gap.
        names: keys to draw, such as "train/loss".
        title: of the figure.
        best_epoch: marked by a vertical line unless None.
        y_title: of the vertical axis.
    """
    figure = go.Figure()
    epochs = [row["epoch"] for row in curves]
    for index, name in enumerate(names):
        figure.add_scatter(
            x=epochs,
            y=[row.get(name) for row in curves],
            name=text(name),
            mode="lines+markers" if len(epochs) <= 60 else "lines",
            marker={"size": 4},
            line=line_style(index),
            hovertemplate=f"{text(name)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_layout(
        layout(
            title, 380, xaxis={"title": {"text": "epoch"}}, yaxis={"title": {"text": text(y_title)}}, showlegend=True
        )
    )
    if best_epoch is not None:
        figure.add_vline(
            x=best_epoch,
            line={"color": "#666666", "dash": "dot", "width": 1},
            annotation={"text": f"best: epoch {best_epoch:g}", "font": {"size": 11}, "yanchor": "bottom"},
            annotation_position="top",
        )
    return figure


def line_style(index: int) -> dict[str, Any]:
    """Return colour, dash and width of the line of that number."""
    return {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index // len(PALETTE) % len(DASHES)], "width": 1.8}


def name_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return a horizontal axis with a name at each whole number from 0 on: names that are shortened alike stay apart. They stand upright
    where they would overlap on a phone.
    """
    shown = [text(name, 20) for name in names]
    upright = sum(map(len, shown)) > 30
    places = list(range(len(names)))
    return {"tickvals": places, "ticktext": shown, "tickangle": -90 if upright else 0, "ticks": "", "showgrid": False}


def text(name: object, limit: int = 32) -> str:
    """Return a name as plotly shows it literally, shortened with an ellipsis."""
    name = " ".join(str(name).split())
    return html.escape(name if len(name) <= limit else name[: limit - 1] + "…", quote=False)
