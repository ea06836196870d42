"""Figures of a suite: differences with their intervals, every run, classes, curves; whatever colour shows, a shape shows too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from audio_cls.metrics.base import plain_name
from audio_cls.report.arms import ArmCurve, ArmSummary, Cell, ClassDifferences
from audio_cls.report.figures import DASHES, PALETTE, layout, name_axis, text

__all__ = ["VERDICTS", "arm_curves", "class_difference_figure", "every_run", "forest", "one_of"]

VERDICTS = {  # word -> colour, symbol
    "helps": ("#009E73", "triangle-up"),
    "hurts": ("#D55E00", "triangle-down"),
    "no difference": ("#0072B2", "square"),
    "cannot tell": ("#777777", "circle-open"),
    "not judged": ("#777777", "x-thin"),
    "under way": ("#777777", "diamond-open"),
}
DIVERGING = ((0.0, "#b35806"), (0.25, "#f1a340"), (0.5, "#f7f7f7"), (0.75, "#998ec3"), (1.0, "#542788"))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
CLASSES = 40  # in the figure at most: those that differ most


def forest(arms: Sequence[ArmSummary], metric: str, direction: str, points: bool) -> go.Figure:
    """Return each arm's mean difference from the reference with its interval, beside the line of no difference.

    Args:
        arms: the reference among them, which is left out.
        metric: its name.
        direction: "maximize" or "minimize"; says on the axis which side is better.
        points: whether to show hundredths.
    """
    scale = 100.0 if points else 1.0
    reference = next((arm.name for arm in arms if arm.reference), "the reference")
    shown = [arm for arm in arms if not arm.reference]
    figure = go.Figure()
    for word in dict.fromkeys([*VERDICTS, *(arm.verdict for arm in shown)]):
        places = [k for k, arm in enumerate(shown) if arm.verdict == word and math.isfinite(arm.difference)]
        if not places:
            continue
        colour, symbol = VERDICTS.get(word, VERDICTS["cannot tell"])
        middle = np.array([shown[k].difference for k in places]) * scale
        low = np.nan_to_num(middle - np.array([shown[k].difference_low for k in places]) * scale)
        high = np.nan_to_num(np.array([shown[k].difference_high for k in places]) * scale - middle)
        figure.add_scatter(
            x=middle,
            y=places,
            mode="markers",
            name=word or "no verdict yet",
            marker={"color": colour, "symbol": symbol, "size": 13, "line": {"width": 2, "color": colour}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": high,
                "arrayminus": low,
                "color": colour,
                "thickness": 2,
                "width": 6,
            },
            customdata=[text(shown[k].text or shown[k].name, 200) for k in places],
            hovertemplate="%{customdata}<extra></extra>",
        )
    unit = "points" if points else plain_name(metric)
    better = "right" if direction == "maximize" else "left"
    figure.add_vline(x=0, line={"color": "#222222", "width": 1.2})
    return figure.update_layout(
        layout(
            f"Difference from {reference}, with its interval",
            int(np.clip(150 + 34 * len(shown), 230, 1600)),
            xaxis={"title": {"text": f"{text(metric)}, {unit}: better to the {better}"}, "rangemode": "tozero"},
            yaxis={
                "tickmode": "array",
                "tickvals": list(range(len(shown))),
                "ticktext": [text(arm.name) + ("" if math.isfinite(arm.difference) else " (no pair yet)") for arm in shown],
                "range": [len(shown) - 0.4, -0.6],
                "ticks": "",
            },
            showlegend=True,
        )
    )  # fmt: skip


def every_run(cells: Sequence[Cell], arms: Sequence[ArmSummary], metric: str) -> go.Figure:
    """Return every run's figure by arm; runs of one (seed, fold) are joined, so that the pairs are seen.

    Colour tells the fold and shape the seed (of more than seven folds or eight seeds they come round again; the hover
    names both). A bar is the arm's mean.
    """
    names = [arm.name for arm in arms]
    folds = sorted({c.fold for c in cells}, key=lambda f: (f is None, f))
    seeds = sorted({c.seed for c in cells})
    groups: dict[tuple[int | None, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.fold, cell.seed), []).append(cell)
    figure = go.Figure()
    for fold, seed in sorted(groups, key=lambda g: (g[0] is None, g[0], g[1])):
        members = sorted(groups[fold, seed], key=lambda c: names.index(c.arm))
        # a little aside, so that equal figures stay apart
        aside = 0.0 if len(groups) == 1 else 0.5 * (list(groups).index((fold, seed)) / (len(groups) - 1) - 0.5)
        colour = PALETTE[folds.index(fold) % len(PALETTE)]
        label = f"seed {seed}" if fold is None else f"fold {text(members[0].fold_text)}"
        figure.add_scatter(
            x=[names.index(c.arm) + aside for c in members],
            y=[c.value for c in members],
            mode="lines+markers",
            name=label,
            legendgroup=label,
            showlegend=len(folds) <= 12 and seed == min(s for f, s in groups if f == fold),
            line={"color": colour, "width": 0.7},
            opacity=0.75,
            marker={"color": colour, "symbol": SYMBOLS[seeds.index(seed) % len(SYMBOLS)], "size": 7},
            customdata=[[text(c.arm), seed, "" if fold is None else f", fold {text(c.fold_text)}"] for c in members],
            hovertemplate="%{customdata[0]}, seed %{customdata[1]}%{customdata[2]}: %{y:.4f}<extra></extra>",
        )
    means = [(k, arm.mean) for k, arm in enumerate(arms) if math.isfinite(arm.mean)]
    figure.add_scatter(
        x=[x for k, _ in means for x in (k - 0.34, k + 0.34, None)],
        y=[y for _, mean in means for y in (mean, mean, None)],
        mode="lines",
        name="mean",
        line={"color": "#000000", "width": 3},
        hoverinfo="skip",
    )
    return figure.update_layout(
        layout(
            "Every run: lines join the same seed and fold",
            440,
            xaxis={
                "tickmode": "array",
                "tickvals": list(range(len(names))),
                "ticktext": [text(name, 20) for name in names],
                "range": [-0.5, len(names) - 0.5],
                "showgrid": False,
            },
            yaxis={"title": {"text": text(metric)}},
            showlegend=True,
        )
    )


def class_difference_figure(differences: ClassDifferences, points: bool) -> go.Figure:
    """Return classes x arms, coloured by the mean difference; a star where the interval leaves out 0.

    Of more than 40 classes those are drawn that differ most.
    """
    mean, low, high = (np.asarray(v, float) for v in (differences.mean, differences.low, differences.high))
    scale = 100.0 if points else 1.0
    most = np.max(np.abs(np.nan_to_num(mean)), axis=1)
    order = np.argsort(-most, kind="stable")[:CLASSES]
    note = f", {CLASSES} of {len(most)} classes" if len(most) > CLASSES else ""
    order = order[np.argsort(-np.nan_to_num(mean[order]).mean(axis=1), kind="stable")]
    clear = (low > 0) | (high < 0)
    digits, columns = (1 if points else 3), range(mean.shape[1])
    shown = [
        [
            ""
            if math.isnan(mean[k, a])
            else f"{round(mean[k, a] * scale, digits) + 0.0:.{digits}f}{' *' if clear[k, a] else ''}"
            for a in columns
        ]
        for k in order.tolist()
    ]
    limit = max(float(most.max(initial=0.0)) * scale, 1e-9)
    figure = go.Figure(
        go.Heatmap(
            z=mean[order] * scale,
            x=list(columns),
            y=[text(differences.classes[k]) for k in order.tolist()],
            text=shown,
            texttemplate="%{text}" if len(differences.arms) <= 12 else None,
            customdata=np.stack([low[order], high[order]], axis=-1) * scale,
            hovertemplate="%{y}, %{x}: %{z:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
            colorscale=[list(stop) for stop in DIVERGING],
            zmin=-limit,
            zmax=limit,
            xgap=1,
            ygap=1,
            colorbar={"thickness": 8, "outlinewidth": 0, "len": 0.9},
        )
    )
    unit = ", points" if points else ""
    x_axis = name_axis(differences.arms)
    return figure.update_layout(
        layout(
            f"Difference in {differences.measure} by class{unit}{note}",
            int(np.clip(140 + 26 * len(order), 260, 1300)) + (80 if x_axis["tickangle"] else 0),
            xaxis=x_axis,
            yaxis={"type": "category", "showgrid": False, "ticks": "", "autorange": "reversed"},
        )
    )


def arm_curves(curves: Sequence[ArmCurve], arms: Sequence[str], metric: str) -> go.Figure:
    """Return one metric over the epochs, a line and a band for each arm; colour and dash are the arm's in every figure."""
    figure = go.Figure()
    for curve in (c for c in curves if c.metric == metric):
        index = arms.index(curve.arm) if curve.arm in arms else len(arms)
        colour = PALETTE[index % len(PALETTE)]
        epochs = list(curve.epochs)
        if len(curve.low) and len(curve.high):
            band = [*curve.high, *reversed(list(curve.low))]
            red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
            figure.add_scatter(
                x=[*epochs, *reversed(epochs)],
                y=band,
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},{0.13 if len(arms) <= 4 else 0.06})",
                line={"width": 0},
                mode="lines",
                legendgroup=curve.arm,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=epochs,
            y=list(curve.mean),
            mode="lines",
            name=text(curve.arm),
            legendgroup=curve.arm,
            line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
            hovertemplate=f"{text(curve.arm)}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    return figure.update_layout(
        layout(
            metric, 400, xaxis={"title": {"text": "epoch"}}, yaxis={"title": {"text": text(metric)}}, showlegend=True
        )
    )


def one_of(figures: Mapping[str, go.Figure]) -> go.Figure:
    """Return several figures of one kind as one with a menu to choose by name; the first is shown, and printed."""
    if len(figures) == 1:
        return next(iter(figures.values()))
    first = next(iter(figures.values()))
    owners = [name for name, figure in figures.items() for _ in figure.data]
    merged = go.Figure(layout=first.layout)
    for name, figure in figures.items():
        for trace in figure.data:
            merged.add_trace(trace)
            merged.data[-1].visible = name == next(iter(figures))
    titles = [text(f"{name}: {figure.layout.title.text}", 80) for name, figure in figures.items()]
    buttons: list[dict[str, Any]] = [
        {
            "label": text(name),
            "method": "update",
            "args": [{"visible": [owner == name for owner in owners]}, {"title.text": title}],
        }
        for name, title in zip(figures, titles)
    ]
    menu = {
        "buttons": buttons,
        "direction": "down",
        "showactive": True,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 8},
        "bgcolor": "white",
        "bordercolor": "#bbbbbb",
    }
    top = (first.layout.margin.t or 44) + 44
    height = (first.layout.height or 420) + 44
    merged.update_layout(updatemenus=[menu], height=height, margin={"t": top})
    return merged.update_layout(title={"text": titles[0], "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14, "l": 8}})  # fmt: skip
