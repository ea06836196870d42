"""Nested choice: in each fold the arm is chosen by that fold's own validation clips and measured on its test clips.

The arm with the best mean over all folds was chosen by every clip, the test clips among them, so that its figure on them is
optimistic (Stone 1974, "Cross-validatory choice and assessment of statistical predictions"; Varma & Simon 2006, "Bias in error
estimation when using cross-validation for model selection"). Here fold k's arm is chosen by the mean over seeds of the runs of
fold k: they train, validate and test on three disjoint sets, so nothing that chooses has seen the clips that measure. Runs of
other folds have no say: they trained or validated on fold k's test clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean
from typing import Any

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.test_figures import as_dict, paired_interval, pooled_interval
from audio_cls.ablation.test_groups import Group
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import figure_text, in_points, number_text, plain_name
from audio_cls.metrics.classification import check_metric
from audio_cls.runs.evaluation import Scored

__all__ = ["Choice", "NestedChoice", "choose_arms", "interval_text", "nested_choice"]


@dataclass(frozen=True)
class NestedChoice:
    """What choosing inside each fold gives; plain values, kept in `test.json`.

    chosen_by: the validation metric that chooses. folds: for each fold its number, the arm chosen there, its validation figure, and
    its test figures by metric. figures: metric -> {value, low, high} of the chosen arms over all test clips. winner: the arm that
    the validation figures of all folds choose. winner_figures: its cross-validation figures. differences: metric -> nested less
    winner, paired over clips or groups. remarks: what the nesting does not cover.
    """

    chosen_by: str
    arms: list[str]
    folds: list[dict[str, Any]]
    figures: dict[str, dict[str, Any]]
    winner: str
    winner_figures: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Any]]
    remarks: list[str] = field(default_factory=list)

    @property
    def estimates(self) -> str:
        """What the figure is of, in words."""
        return (
            f"it estimates the procedure: choose among these {len(self.arms)} arms by {self.chosen_by} on the validation clips of "
            "the fold, then train; it is not the figure of one arm"
        )

    def lines(self) -> list[str]:
        """Return the result in words: the first metric's figures, which arm won in each fold, what it estimates."""
        metric = next(iter(self.figures))
        won: dict[str, list[str]] = {}
        for one in self.folds:
            won.setdefault(str(one["arm"]), []).append(str(one["fold"]))
        chosen = "; ".join(f"{arm} in fold{'s' if len(at) > 1 else ''} {', '.join(at)}" for arm, at in won.items())
        return [
            f"nested {plain_name(metric)} {interval_text(self.figures[metric], metric)}: {self.estimates}",
            f"chosen by {self.chosen_by}: {chosen}",
            f"{self.winner}, which the validation clips of all folds choose: cross-validation "
            f"{interval_text(self.winner_figures[metric], metric)}{self._gap(metric)}",
            *self.remarks,
        ]

    def _gap(self, metric: str) -> str:
        """Return in words how far the nested figure lies from the winner's."""
        gap, points = self.differences[metric], in_points(metric)
        if {one["arm"] for one in self.folds} == {self.winner}:
            return "; it is chosen in every fold, so the nested figure is the same"
        if gap["value"] is None:
            return ""
        interval = (
            "" if gap["low"] is None else f" [{number_text(gap['low'], points)}, {number_text(gap['high'], points)}]"
        )
        unit = " points" if points else ""
        return f"; nested less that: {number_text(gap['value'], points, signed=True)}{interval}{unit}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Return columns and rows of a table with a row for each fold."""
        tested = list(self.figures)
        columns = ["fold", "chosen", f"validation {plain_name(self.chosen_by)}"]
        columns += [f"test {plain_name(metric)}" for metric in tested]
        return columns, [
            [f["fold"], f["arm"], f["validation"], *(f["test"].get(m) for m in tested)] for f in self.folds
        ]


def interval_text(figures: Mapping[str, Any], metric: str) -> str:
    """Return a figure with its interval as text, in points where the metric is a share."""
    value, low, high = (figures[key] for key in ("value", "low", "high"))
    if value is None:
        return "unknown"
    text = figure_text(value, metric)
    return text if low is None else f"{text} [{figure_text(low, metric)}, {figure_text(high, metric)}]"


@dataclass(frozen=True)
class Choice:
    """Which arm is chosen. folds: fold -> (arm, the mean over seeds of its validation figure in that fold). winner: the arm with the
    best mean over all folds and seeds."""

    folds: Mapping[int, tuple[str, float]]
    seeds: tuple[int, ...]
    winner: str


def choose_arms(group: Group) -> Choice:
    """Return the arm with the best validation figures, inside each fold and over all of them, by the recorded figures. Of equal arms
    the first declared. An arm that lacks a run, or has a figure that is not finite, cannot be chosen there.

    Raises:
        UserError: where there is nothing to choose, and where no arm can be chosen.
    """
    if len(group.runs) < 2:
        raise UserError(
            f"{group.name}: --nested chooses among arms, and there is only {next(iter(group.runs), 'none')}"
        )
    folds = sorted({fold for cells in group.runs.values() for _, fold in cells})
    seeds = tuple(sorted({seed for cells in group.runs.values() for seed, _ in cells}))
    found = {fold: _best(group, [(seed, fold) for seed in seeds]) for fold in folds}
    winner = _best(group, [(seed, fold) for seed in seeds for fold in folds])
    chosen = {fold: best for fold, best in found.items() if best is not None}
    if winner is None or len(chosen) < len(folds):
        where = next((f"in fold {fold}" for fold in folds if fold not in chosen), "over all folds")
        raise UserError(
            f"{group.name}: {where} no arm has {group.metrics[0]} of all {len(seeds)} seeds: nothing can be chosen there"
        )
    return Choice(chosen, seeds, winner[0])


def _best(group: Group, places: Sequence[Cell]) -> tuple[str, float] | None:
    """Return the arm with the best mean of the recorded validation figures over some cells, and the mean."""
    key = f"{group.weights}/{plain_name(group.metrics[0])}"
    sign = 1 if check_metric(group.metrics[0]) == "maximize" else -1
    means: dict[str, float] = {}
    for arm, cells in group.runs.items():
        values = [cells[place].metrics.get(key, nan) if place in cells else nan for place in places]
        if all(map(isfinite, values)):
            means[arm] = fmean(values)
    return max(means.items(), key=lambda item: sign * item[1]) if means else None


def nested_choice(
    group: Group, choice: Choice, scored: Mapping[str, Mapping[Cell, Scored]], corpus: Corpus, metrics: Sequence[str]
) -> NestedChoice:
    """Return the figures of the arms chosen inside each fold.

    Args:
        scored: arm -> (seed, fold) -> the run on its test clips.
        metrics: whose figures are computed; the group's first metric has chosen.
    """
    chosen = {(seed, fold): scored[arm][seed, fold] for fold, (arm, _) in choice.folds.items() for seed in choice.seeds}
    folds = []
    for fold, (arm, value) in choice.folds.items():
        runs = [chosen[seed, fold] for seed in choice.seeds]
        test = {}
        for metric in metrics:
            mean = fmean(float(one.predictions.evaluation.overall[plain_name(metric)]) for one in runs)
            test[metric] = mean if isfinite(mean) else None
        name = runs[0].run.tags.get("split.fold_name", str(fold))
        folds.append({"fold": name, "arm": arm, "validation": value, "test": test})
    whole = scored[choice.winner]
    return NestedChoice(
        chosen_by=group.metrics[0],
        arms=list(group.runs),
        folds=folds,
        figures={m: as_dict(pooled_interval(chosen, corpus, m)) for m in metrics},
        winner=choice.winner,
        winner_figures={m: as_dict(pooled_interval(whole, corpus, m)) for m in metrics},
        differences={m: as_dict(paired_interval(chosen, whole, corpus, m)) for m in metrics},
    )
