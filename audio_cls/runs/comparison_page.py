"""Several runs on one page: their curves in one figure, what differs between them, and their paired figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from audio_cls.metrics.base import plain_name
from audio_cls.report.page import Section, Table, render_page
from audio_cls.report.training_figures import LOSS_GAP, runs_curve_figure
from audio_cls.runs.page_data import run_curves

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from audio_cls.runs.comparison import RunComparison
    from audio_cls.tracking import Tracker

__all__ = ["comparison_figures", "comparison_page"]

ALWAYS = "val/accuracy"  # drawn beside the metrics that chose the runs' best epochs


def comparison_figures(comparison: RunComparison, tracker: Tracker) -> dict[str, go.Figure]:
    """Return the figures of several runs by name: `curves_macro_f1` and so on, one for each metric that chose epochs of a run,
    `curves_accuracy`, `curves_loss` and `loss_gap`; those that a run has recorded.
    """
    histories = {head: run_curves(tracker, info) for head, info in zip(comparison.heads, comparison.runs, strict=True)}
    chosen = [info.params.get("training.metric", "") for info in comparison.runs]
    keys = [key for key in dict.fromkeys([*chosen, ALWAYS]) if key and plain_name(key) != "loss"]
    found = {f"curves_{plain_name(key)}": _figure(histories, key, plain_name(key)) for key in keys}
    found |= {
        "curves_loss": _figure(histories, "val/loss", "loss"),
        "loss_gap": _figure(histories, LOSS_GAP, "loss gap"),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _figure(histories: Mapping[str, Sequence[Mapping[str, float]]], key: str, title: str) -> go.Figure | None:
    train_key = "" if key == LOSS_GAP else f"train/{plain_name(key)}"
    return runs_curve_figure(histories, key, f"{title} over the epochs", train_key)


def comparison_page(comparison: RunComparison, tracker: Tracker) -> str:
    """Return the page of several runs as text."""
    heads = comparison.heads
    figures = comparison_figures(comparison, tracker)
    curves: list[str | go.Figure] = (
        [_reading(comparison), *figures.values()] if figures else ["No run has recorded curves."]
    )
    sections = [Section("Curves", curves)]
    if comparison.figures:
        columns = ["figure", *heads, *(["difference"] if len(heads) == 2 else [])]
        sections.append(Section("Figures", [Table(columns, comparison.figures, "Recorded figures")]))
    sections += [
        Section("Paired", [*_pairs(comparison)]),
        Section("Configuration", [_differences(heads, comparison.configuration, "the configurations are equal")]),
        Section(
            "Surroundings", [_differences(heads, comparison.surroundings, "data, code and surroundings are equal")]
        ),
    ]
    return render_page(f"{heads[0]} and {len(heads) - 1} more", sections)


def _reading(comparison: RunComparison) -> str:
    text = (
        "One line for each run. Training figures are of the training pass (augmented clips, weights that still change), validation "
        "figures of the weights after each epoch. One run each: differences hold for these runs, and training again may change them."
    )
    if any(row[0].startswith("loss.") for row in comparison.configuration):
        text += (
            " The runs minimise different losses: their losses cannot be compared with each other, their metrics can."
        )
    return text


def _pairs(comparison: RunComparison) -> list[str | Table]:
    content: list[str | Table] = []
    for head, beside in zip(comparison.heads[1:], comparison.beside, strict=True):
        if beside.why_not:
            content.append(f"{head} does not pair with {comparison.heads[0]}: {beside.why_not}.")
            continue
        rows = [
            (f.metric, f.first, f.run, f.interval.estimate, f.interval.low, f.interval.high) for f in beside.figures
        ]
        columns = ("metric", comparison.heads[0], head, "difference", "low", "high")
        content.append(Table(columns, rows, f"On the same {beside.n_clips} clips, with 95 % intervals over clips"))
    return content


def _differences(heads: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str | Table:
    return Table(("key", *heads), rows, "What differs") if rows else f"{nothing[0].upper()}{nothing[1:]}."
