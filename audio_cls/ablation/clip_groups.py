"""The arms of a suite by columns of the clips: foreground against background, one recording against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.predictions import pooled_by_seed
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.slices import ArmSlice, compare_by, slice_metric
from audio_cls.runs.clip_columns import clip_columns

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from audio_cls.report.arms import SuiteReport
    from audio_cls.report.page import Section

__all__ = ["arms_by_column", "clip_groups_section", "column_figures"]

BY = "by_"  # begins the name of a figure by a column, as of a run's


def arms_by_column(
    scores: Mapping[str, Mapping[Cell, Predictions]], reference: str, folds: Sequence[int], corpus: Corpus
) -> dict[str, list[ArmSlice]]:
    """Return the figures of the arms, the reference first, by each column of the clips that is worth it, from the stored predictions of the runs.

    Each clip is judged by the run that held it out. Arms are compared on the seeds of which every arm has all folds; an arm that has
    no such seed yet is left out.

    Args:
        scores: arm -> (seed, fold) -> predictions of the validation clips.
    """
    pooled = {arm: pooled_by_seed(cells, folds, corpus) for arm, cells in scores.items()}
    pooled = {arm: seeds for arm, seeds in pooled.items() if seeds}
    common = sorted(set.intersection(*map(set, pooled.values()))) if pooled else []
    if not common:
        return {}
    rows = next(iter(pooled.values()))[common[0]].rows
    arms = {
        arm: [seeds[seed].tuned() for seed in common]
        for arm, seeds in sorted(pooled.items(), key=lambda item: item[0] != reference)
        if all(np.array_equal(seeds[seed].rows, rows) for seed in common)
    }
    found = {name: compare_by(arms, reference, values) for name, values in clip_columns(corpus, rows).items()}
    return {name: slices for name, slices in found.items() if slices}


def column_figures(report: SuiteReport) -> dict[str, go.Figure]:
    """Return a figure for each column of the clips, `by_salience`, say."""
    from audio_cls.report.error_figures import arm_slices_figure

    measure = slice_metric(report.task)
    return {f"{BY}{name}": arm_slices_figure(slices, name, measure) for name, slices in report.by_column.items()}


def clip_groups_section(report: SuiteReport) -> list[Section]:
    """Return the section with the arms by each column of the clips; none without columns."""
    from audio_cls.report.page import Section, Table

    if not report.by_column:
        return []
    measure, figures = slice_metric(report.task), column_figures(report)
    content: list[Any] = []
    n_intervals = 0
    for name, slices in report.by_column.items():
        rows: list[list[Any]] = []
        for item in slices:
            difference: list[float | None] = [None, None, None]
            if item.difference is not None:
                n_intervals += 1
                difference = [100 * v for v in (item.difference.estimate, item.difference.low, item.difference.high)]
            sides = [100 * v for v in (item.figure.estimate, item.figure.low, item.figure.high)]
            rows.append([item.value, item.n_clips, item.arm, *sides, *difference])
        columns = (name, "clips", "arm", f"{measure}, points", "low", "high", "difference", "low ", "high ")
        against = f", and difference from {report.reference}" if report.reference else ""
        content += [figures[f"{BY}{name}"], Table(columns, rows, f"By {name}: {measure}{against}", 1)]
    reading = (
        "Figures of the validation clips, each judged by the run that held it out, means over the seeds that all arms have. Intervals of "
        "95 % are over clips, or whole groups, for these trained models."
    )
    if n_intervals:
        reading += (
            f" {n_intervals} differences stand here, each with its own interval: about {max(1, round(n_intervals / 20))} would be clear of 0 "
            "(starred) though nothing differed."
        )
    return [Section("Groups of clips", [reading, *content])]
