"""Runs over the folds of a split: which folds are asked for, what they are called, and the figures of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import fmean
from typing import Any

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import SplitScheme
from audio_cls.experiment import Experiment

__all__ = [
    "FoldFigures",
    "asked_folds",
    "fold_csv",
    "fold_figures",
    "fold_kinds",
    "fold_label",
    "fold_table",
    "folds_text",
    "grid_text",
]

FOLDS_CSV = "folds.csv"
"""The artifact of a grid's run with a row for each fold."""


def fold_kinds() -> list[str]:
    """Return the kinds of split whose folds can be listed, and so run one after the other."""
    schemes: dict[str, Any] = SplitScheme.members()
    return [kind for kind, scheme in schemes.items() if scheme.fold_key and not scheme.any_fold]


def asked_folds(experiment: Experiment, corpus: Corpus, folds: str | None) -> tuple[str | None, list[int | None]]:
    """Return the key that a fold sets, and the folds that `--folds` asks for: all, numbers, or names of groups;
    [None] for the split as it is.

    Raises:
        UserError: for a split without folds, or a fold that is not there.
    """
    if folds is None:
        return None, [None]
    scheme = experiment.data.split
    if scheme.kind not in fold_kinds():
        raise UserError(
            f"--folds {folds}: data.split.kind={scheme.kind} has no folds. Kinds with folds: {', '.join(fold_kinds())}"
        )
    have = scheme.folds(corpus)
    if not have:
        raise UserError(
            f"--folds {folds}: {corpus.name!r} names no {'groups' if scheme.kind == 'leave_one_group_out' else 'folds'}, which "
            f"data.split.kind={scheme.kind} takes; data.split.kind=k_fold makes folds"
        )
    key = f"data.split.{scheme.fold_key}"
    if folds == "all":
        return key, list(have)
    numbers = {name: number for number, name in have.items()}
    values: list[int | None] = []
    for word in (w.strip() for w in folds.split(",")):
        number = int(word) if word.isdecimal() and len(word) < 10 else numbers.get(word, -1)
        if number not in have:
            listed = ", ".join(_names(have, 10))
            near = did_you_mean(word, have.values())
            raise UserError(
                f"--folds {folds}: {corpus.name} has no fold {word[:40]!r}. Expected all, or folds such as 1,2,3. "
                f"It has: {listed}.{near}"
            )
        if number not in values:
            values.append(number)
    return key, values


def fold_label(fold: int, name: str) -> str:
    """Return a fold in words: `fold 3`, with the name of its group where it has one: `fold 3 (alice)`."""
    return f"fold {fold}" if name in ("", str(fold)) else f"fold {fold} ({name})"


def _names(folds: Mapping[int, str], most: int) -> list[str]:
    shown = [fold_label(n, name).removeprefix("fold ") for n, name in list(folds.items())[:most]]
    return shown + ([f"and {len(folds) - most} more"] if len(folds) > most else [])


def folds_text(folds: Mapping[int, str]) -> str:
    """Return folds listed, the first ten: `1, 2, 3`, `1 (alice), 2 (bob)`."""
    return ", ".join(_names(folds, 10))


def grid_text(**counts: int) -> str:
    """Return the size of a grid in words: `grid_text(folds=60, seeds=3)` is `60 folds x 3 seeds = 180 runs`."""
    total = 1
    for count in counts.values():
        total *= count
    parts = [f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in counts.items()]
    return f"{' x '.join(parts)} = {total} run{'s' if total != 1 else ''}"


@dataclass(frozen=True)
class FoldFigures:
    """The figures of one fold. name: of the group held out, else the fold's number. runs: how many seeds are complete. best,
    last: metric -> mean over these runs, of the best and of the last epoch."""

    fold: int
    name: str
    runs: int
    best: Mapping[str, float]
    last: Mapping[str, float]


def fold_figures(runs: Sequence[tuple[int, str, Mapping[str, float], Mapping[str, float]]]) -> list[FoldFigures]:
    """Return average over the seeds of each fold.

    Args:
        runs: (fold, name, metrics of the best epoch, metrics of the last epoch) of each complete run.
    """
    out = []
    for fold in sorted({run[0] for run in runs}):
        mine = [run for run in runs if run[0] == fold]
        best = {key: _mean([run[2][key] for run in mine if key in run[2]]) for key in mine[0][2]}
        last = {key: _mean([run[3][key] for run in mine if key in run[3]]) for key in mine[0][3]}
        out.append(FoldFigures(fold, mine[0][1], len(mine), best, last))
    return out


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values and all(map(isfinite, values)) else nan


def fold_table(figures: Sequence[FoldFigures], metrics: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table with a row for each fold: some metrics of the best and of the last epoch."""
    named = any(f.name != str(f.fold) for f in figures)
    columns = ["fold", *(["left out"] if named else []), "runs"]
    columns += [f"{metric} {epoch}" for metric in metrics for epoch in ("best", "last")]
    rows = [
        [
            f.fold,
            *([f.name] if named else []),
            f.runs,
            *(v for m in metrics for v in (_rounded(f.best, m), _rounded(f.last, m))),
        ]
        for f in figures
    ]
    return columns, rows


def _rounded(values: Mapping[str, float], metric: str) -> float:
    return round(values.get(metric, nan), 4)


def fold_csv(figures: Sequence[FoldFigures]) -> str:
    """Return every metric of every fold as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    best, last = list(figures[0].best), list(figures[0].last)
    writer.writerow(["fold", "name", "runs", *(f"best/{m}" for m in best), *(f"last/{m}" for m in last)])
    for f in figures:
        values = (*(f.best.get(m, nan) for m in best), *(f.last.get(m, nan) for m in last))
        writer.writerow([f.fold, f.name, f.runs, *(f"{v:.6g}" for v in values)])
    return text.getvalue()
