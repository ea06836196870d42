"""The report of one training run: what it reached, where it errs, how it got there, and with what settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_cls.data.remarks import recorded_remarks
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.baselines import baseline_name
from audio_cls.metrics.classification import Evaluation
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.slices import Slice, figures_by, slice_metric
from audio_cls.metrics.thresholds import TUNED
from audio_cls.report.calibration import calibration_section
from audio_cls.report.error_figures import slices_figure
from audio_cls.report.page import Cards, Html, Section, Table, findings, render_page
from audio_cls.report.run_figures import ON_THE_PAGE, Figure, best_epoch, build_figures, confused_pairs
from audio_cls.report.tables import average_rows, decision_margin, slice_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["RunReport", "best_epoch", "run_figures", "run_report"]

MISTAKES = 40
BY = "by_"  # begins the name of a figure by a column of the clips


@dataclass(frozen=True)
class RunReport:
    """All that the page of a run is made from.

    title: of the page, such as the run's name.
    predictions: on the set reported on.
    curves: a mapping for each epoch: "epoch" (from 1), "train/loss", "val/loss", "val/macro_f1", ...
    config: the experiment, nested or flat.
    facts: the environment and whatever else is worth a line (data digest, commit, device, duration).
    metric: the one that chose the best epoch.
    reported_on: the name of the set, as the page says it.
    baseline: overall metric -> figure of a model that learned nothing on the same clips.
    columns: name -> value of each clip of `predictions`, as text: the figures are told by each of them, too.
    findings: what is wrong with the predictions, in sentences, and what to try.
    """

    title: str
    predictions: Predictions
    curves: Sequence[Mapping[str, float]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "val/macro_f1"
    reported_on: str = "validation"
    baseline: Mapping[str, float] = field(default_factory=dict)
    findings: Sequence[str] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def run_report(report: RunReport, path: str | Path | None = None, more: Sequence[Section] = ()) -> str:
    """Return the page of a run as text; also written to `path` when one is given. `more` stands after the mistakes."""
    evaluation = report.predictions.evaluation
    figures = run_figures(report)
    predictions = report.predictions
    confused = confused_pairs(predictions)
    multilabel = predictions.task == "multilabel"
    reading = (
        "The diagonal counts labels found. Elsewhere a cell counts the clips with the row's label on which the column's "
        "label was called wrongly; a clip with several labels counts in each one's row."
        if multilabel
        else "Rows are the true class, columns the predicted one; the shade is the share of the row."
    )
    sections = [
        Section(
            "Result",
            [
                *findings(report.findings),
                *_remarks(report),
                _headline(report),
                Cards(
                    evaluation.overall,
                    plain_name(report.metric),
                    report.baseline,
                    baseline_name(predictions.task),
                ),
            ],
        ),
        Section("Classes", [figures["per_class"], _class_table(report, evaluation), _averages(evaluation)]),
        Section(
            "Confusion",
            [
                reading,
                figures["confusion"],
                *([figures["confused_pairs"]] if "confused_pairs" in figures else []),
                Table(
                    ("true", "called", "clips", "share of the class"),
                    [(c.true, c.predicted, c.count, c.rate) for c in confused],
                    "Most confused" if confused else "Nothing was confused",
                ),
            ],
        ),
        Section("Mistakes", [_mistakes(report.predictions)]),
        *_by_columns(report, figures),
        *more,
        Section("ROC", [figures["roc"]]),
        Section("Precision and recall", [figures["precision_recall"]]),
        calibration_section({report.reported_on: (predictions.scores, predictions.targets)}, predictions.task),
        *(
            Section(Figure.members()[kind].title or kind, [figures[kind]])
            for kind in figures
            if kind not in ON_THE_PAGE and not kind.startswith(BY)
        ),
    ]
    curves = [figure for name, figure in figures.items() if name.startswith("curves_")]
    if curves:
        sections.append(Section("Training", curves))
    if report.config:
        rows = [(key, "none" if value is None else str(value)) for key, value in _flat(report.config).items()]
        sections.append(Section("Configuration", [Table(("key", "value"), rows, f"{len(rows)} settings")]))
    if report.facts:
        facts = [(key, _plain(value)) for key, value in _flat(report.facts).items()]
        sections.append(Section("Environment", [Table(("fact", "value"), facts)]))
    return render_page(report.title, sections, path)


def _remarks(report: RunReport) -> list[str]:
    """Return what a reader must know before the figures: what stands on more than one side of the split."""
    return [f"Note: {remark}." for remark in recorded_remarks(report.facts)]


def run_figures(report: RunReport) -> dict[str, go.Figure | Html]:
    """Return the figures of a run by kind, `ON_THE_PAGE` and the user's own, and those by a column of the clips (`by_salience`).

    Some are there only when there is something to draw.
    """
    found = build_figures(report.predictions, report.curves, report.metric)
    measure = slice_metric(report.predictions.task)
    for name, slices in _slices(report).items():
        found[f"{BY}{name}"] = slices_figure(slices, name, measure, _slice_figure(report))
    return found


def _slices(report: RunReport) -> dict[str, list[Slice]]:
    made = {name: figures_by(report.predictions, values) for name, values in report.columns.items()}
    return {name: slices for name, slices in made.items() if slices}


def _slice_figure(report: RunReport) -> float:
    """Return the figure of all clips by which slices are compared, with the decisions that they are compared with."""
    overall, name = report.predictions.evaluation.overall, slice_metric(report.predictions.task)
    return overall.get(f"{name}{TUNED}", overall[name])


def _by_columns(report: RunReport, figures: Mapping[str, go.Figure | Html]) -> list[Section]:
    """Return a section with the figures by each column of the clips; none without columns."""
    content: list[Any] = []
    for name, slices in _slices(report).items():
        columns, rows = slice_table(slices, name, report.predictions.task)
        content += [figures[f"{BY}{name}"], Table(columns, rows, f"By {name}")]
    reading = (
        "Groups of clips that differ by more than their intervals are worth a look; intervals are of 95 %, over clips or whole groups. "
        "The dotted line is the figure of all clips."
    )
    return [Section("Groups of clips", [reading, *content])] if content else []


def _headline(report: RunReport) -> str:
    predictions = report.predictions
    n_clips, n_classes = np.shape(predictions.scores)
    best = best_epoch(report.curves, report.metric)
    chosen = "" if best is None else f" The best of {len(report.curves)} epochs by {report.metric} is epoch {best:g}."
    note = f" {predictions.threshold_note}" if predictions.threshold_note else ""
    return f"{n_clips:,} clips of the {report.reported_on} set, {n_classes} classes, {predictions.task}.{chosen}{note}"


CLASS_COLUMNS = {
    "support": "clips", "precision": "precision", "recall": "recall", "f1": "F1", "ap": "AP", "auc": "AUC", "d_prime": "d'",
    "lwlrap": "lwlrap",
}  # fmt: skip


def _averages(evaluation: Evaluation) -> Table:
    keys = [
        key for key in CLASS_COLUMNS if key != "d_prime"
    ]  # one class that is separated perfectly would make it infinite
    rows = average_rows(evaluation.per_class, keys)
    return Table(["over the classes", *(CLASS_COLUMNS[key] for key in keys)], rows, "Averages")


def _class_table(report: RunReport, evaluation: Evaluation) -> Table:
    keys, columns = list(CLASS_COLUMNS), ["class", *CLASS_COLUMNS.values()]
    rows: list[list[Any]] = [
        [name, *(evaluation.per_class[key][k] for key in keys)] for k, name in enumerate(report.predictions.classes)
    ]
    thresholds = report.predictions.thresholds
    if report.predictions.task == "multilabel":
        columns.append("threshold" if thresholds is None or thresholds.ndim < 2 else "threshold (mean)")
        limits = np.broadcast_to(0.5 if thresholds is None else thresholds, np.shape(report.predictions.scores)).mean(
            axis=0
        )
        rows = [[*row, float(limit)] for row, limit in zip(rows, limits)]
    return Table(columns, rows, "Per class; click a heading to sort")


def _mistakes(predictions: Predictions) -> Table:
    """Return wrong decisions, the most certain first: mislabelled clips are found here."""
    scores, truth = np.asarray(predictions.scores, np.float64), np.asarray(predictions.targets) > 0.5
    if np.isnan(scores).any():
        return Table(("clip", "true", "called"), [], "The scores are not numbers: the model diverged")
    called, classes = predictions.called, predictions.classes
    if predictions.task == "multiclass":
        margins = decision_margin(scores, predictions.task)
        wrong = np.flatnonzero((called & ~truth).any(axis=1))
        wrong = wrong[np.argsort(-margins[wrong], kind="stable")]
        rows: list[list[Any]] = []
        for k in wrong[:MISTAKES].tolist():
            own = np.flatnonzero(truth[k]).tolist()
            guess = int(called[k].argmax())
            true_score = float(scores[k, own].max()) if own else None
            names = ", ".join(classes[c] for c in own)
            rows.append([predictions.clips[k], names, classes[guess], float(scores[k, guess]), true_score])
        columns = ["clip", "true", "called", "its score", "score of the true class"]
        return Table(columns, rows, f"{len(rows)} of {len(wrong)} wrong clips, the most certain first")
    limits = np.broadcast_to(
        np.asarray(0.5 if predictions.thresholds is None else predictions.thresholds, np.float64), scores.shape
    )
    clips, labels = np.nonzero(called != truth)
    distance = np.abs(scores - limits)[clips, labels]
    order = np.argsort(-distance, kind="stable")[:MISTAKES]
    rows = [
        [
            predictions.clips[clips[k]],
            classes[labels[k]],
            "missed" if truth[clips[k], labels[k]] else "false alarm",
            float(scores[clips[k], labels[k]]),
            float(limits[clips[k], labels[k]]),
        ]
        for k in order.tolist()
    ]
    columns = ["clip", "label", "mistake", "score", "threshold"]
    return Table(columns, rows, f"{len(rows)} of {len(clips)} wrong decisions, the farthest from the threshold first")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
