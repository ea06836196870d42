"""The configurations of a confirmation, ranked again by their fresh runs, and what that says of the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from audio_cls.ablation.declaration import Cell as Place
from audio_cls.core.formatting import count
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.base import in_points, number_text, plain_name
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.clip_differences import ClipDifferences, clip_differences
from audio_cls.metrics.paired import Comparison, Mean, compare, mean_interval
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.verdict import verdicts
from audio_cls.queue.cells import CellState
from audio_cls.runs.scores import read_predictions

if TYPE_CHECKING:
    from audio_cls.ablation.looks import Looks
    from audio_cls.tracking import Tracker

__all__ = [
    "SELECT",
    "Candidate",
    "Confirmed",
    "Select",
    "former_note",
    "fresh_predictions",
    "judged_by",
    "rank",
    "ranking_lines",
    "ranking_table",
]

Select = Literal["last", "best"]

SELECT = "select"
"""The attribute of a confirmation's study that lists the epochs that its runs were ever judged by."""


@dataclass(frozen=True)
class Candidate:
    """One of a study's best configurations. searched: the value that it was found with, of its best epoch, chosen on the
    clips that it is measured on; searched_last: of its last epoch, NaN if that was not recorded.
    """

    trial: int
    searched: float
    experiment: Experiment
    params: dict[str, Any]
    searched_last: float = nan


@dataclass(frozen=True)
class Confirmed:
    """A candidate with its fresh figures. rank: among the candidates, from 1. mean: of its runs with the interval.
    same_split: their mean on the split searched on alone (NaN if that is not among them), which leaves out how hard the other
    folds are. comparison: with the search's winner, None for that itself."""

    candidate: Candidate
    values: dict[Place, float]
    mean: Mean
    same_split: float
    comparison: Comparison | None
    rank: int


def judged_by(states: Sequence[CellState], metric: str) -> Select:
    """Return which epoch the fresh runs are judged by: the last one, unless one of them did not record it (very old runs)."""
    plain = plain_name(metric)
    complete = [state.record for state in states if state.state == "COMPLETE"]
    return "best" if any(plain in record.metrics and plain not in record.last for record in complete) else "last"


def rank(
    chosen: Sequence[Candidate],
    states: Sequence[CellState],
    corpus: Corpus,
    metric: str,
    select: Select = "last",
    predictions: Mapping[str, Mapping[Place, Predictions]] | None = None,
) -> list[Confirmed]:
    """Rank candidates again by their fresh runs, the best first; one without a run yet comes last. They are compared clip by clip where
    the runs' `predictions` (arm -> (seed, fold) -> of the validation clips) are at hand.
    """
    plain, direction = plain_name(metric), check_metric(metric)
    values: list[dict[Place, float]] = [{} for _ in chosen]
    places = {f"trial {candidate.trial}": i for i, candidate in enumerate(chosen)}
    for state in states:
        place = int(state.params["seed"]), int(state.params["fold"])
        if state.state in ("COMPLETE", "FAILED"):
            recorded = state.record.last if select == "last" else state.record.metrics
            figure = recorded.get(plain, nan) if state.state == "COMPLETE" else nan
            values[places[str(state.params["arm"])]][place] = figure
    scheme = chosen[0].experiment.data.split
    own = scheme.fold_number(corpus)
    split = chosen[0].experiment.data.assign(corpus)
    ratio = len(split.validation) / len(split.train)
    means = [mean_interval(v, test_to_train=ratio) for v in values]
    sign = -1 if direction == "maximize" else 1
    order = sorted(range(len(chosen)), key=lambda i: (not isfinite(means[i].mean), sign * np.nan_to_num(means[i].mean)))
    out = []
    for position, i in enumerate(order, start=1):
        same = [v for (_, fold), v in values[i].items() if fold in (0, own) and isfinite(v)]
        against = compare(
            values[i], values[0], test_to_train=ratio, direction=direction, arm=f"trial {chosen[i].trial}",
            reference=f"trial {chosen[0].trial}", clips=_clips(predictions, chosen[i], chosen[0], metric) if i else None,
        )  # fmt: skip
        out.append(
            Confirmed(chosen[i], values[i], means[i], fmean(same) if same else nan, against if i else None, position)
        )
    return out


def fresh_predictions(
    states: Sequence[CellState], tracker: Tracker, corpus: Corpus, select: Select
) -> dict[str, dict[Place, Predictions]]:
    """Read the validation predictions of the complete runs: arm -> (seed, fold) -> predictions; those that cannot be had are missing."""
    found: dict[str, dict[Place, Predictions]] = {}
    for state in states:
        if state.state == "COMPLETE" and state.record.mlflow_run_id:
            predictions = read_predictions(tracker, state.record.mlflow_run_id, corpus, select)
            if predictions is not None:
                place = int(state.params["seed"]), int(state.params["fold"])
                found.setdefault(str(state.params["arm"]), {})[place] = predictions
    return found


def _clips(
    predictions: Mapping[str, Mapping[Place, Predictions]] | None, one: Candidate, other: Candidate, metric: str
) -> ClipDifferences | None:
    if predictions is None:
        return None
    a, b = (predictions.get(f"trial {candidate.trial}", {}) for candidate in (one, other))
    return clip_differences(a, b, metric)


def ranking_table(
    chosen: Sequence[Candidate], ranked: Sequence[Confirmed], metric: str, select: Select
) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows of the new ranking, in points where the metric is a share.

    `change` compares like with like: the fresh figure with that of the search at the same epoch, the last one where it is known.
    """
    points, number = in_points(metric), _number(metric)
    rows: list[list[object]] = []
    for c in ranked:
        low, high = (min(max(v, 0.0), 1.0) if points and isfinite(v) else v for v in (c.mean.low, c.mean.high))
        interval = f"[{number(low)}, {number(high)}]" if isfinite(low) else ""
        was = chosen.index(c.candidate) + 1
        change = number(c.mean.mean - _found(c.candidate, select), True)
        rows.append(
            [c.rank, was, c.candidate.trial, number(c.candidate.searched), number(c.candidate.searched_last), c.mean.n,
             number(c.mean.mean), interval, number(c.same_split), change]
        )  # fmt: skip
    return ["rank", "was", "trial", "found", "at last", "runs", "anew", "95 %", "same split", "change"], rows


def ranking_lines(
    winner: Candidate,
    ranked: Sequence[Confirmed],
    metric: str,
    select: Select,
    baseline: float,
    looks: Looks | None = None,
) -> list[str]:
    """Return which epoch the figures are of, the verdicts, how often they were looked at, and what regressed to the mean, in sentences."""
    number, points = _number(metric), in_points(metric)
    comparisons: Mapping[str, Comparison] = {
        str(c.candidate.trial): c.comparison for c in ranked if c.comparison is not None
    }
    lines = [_which_epoch(select)]
    lines += [
        f"trial {trial} against the search's winner, trial {winner.trial}: {v.text}"
        for trial, v in verdicts(comparisons, points=points, alpha=looks.alpha if looks else None).items()
    ]
    lines += looks.sentences() if looks else []
    known = [c for c in ranked if isfinite(c.mean.mean)]
    if known:
        confirmed = fmean(c.mean.mean for c in known)
        found = fmean(c.candidate.searched for c in known)
        at_last = fmean(c.candidate.searched_last for c in known)
        before = found if not isfinite(at_last) or select == "best" else at_last
        shown = number(found) if before is found else f"{number(found)} (best epoch; {number(at_last)} at the last)"
        split = [c.same_split for c in known if isfinite(c.same_split)]
        on_it = f", {number(fmean(split))} on the split searched on" if len(split) == len(known) else ""
        lines.append(
            f"regression to the mean: found at {shown}, confirmed at {number(confirmed)}{on_it} "
            f"({number(confirmed - before, True)}, mean of {count(len(known), 'configuration')})"
        )
    if isfinite(baseline):
        lines.append(f"a model that learned nothing: {number(baseline)} on the same splits")
    return lines


def former_note(attributes: Mapping[str, Any]) -> str:
    """Say of a confirmation that an earlier version began what its figures were then, from its study's attributes; else empty."""
    select = attributes.get(SELECT)
    if select is None:
        return (
            "recorded by an earlier version, by the best epoch of each run, chosen on the clips it is measured on: "
            "audio-cls study confirm ranks it again by the last epoch"
        )
    return "begun by an earlier version, which ranked it by the best epoch of each run" if "best" in select else ""


def _which_epoch(select: Select) -> str:
    if select == "best":
        return "figures: found and anew of the best epoch, chosen on the clips they are measured on (these runs recorded no last one)"
    return (
        "figures: anew of the last epoch, which nobody chose; found of the best epoch, chosen on the clips searched on"
    )


def _found(candidate: Candidate, select: Select) -> float:
    """Return the figure of the search that a fresh one is compared with."""
    known = select == "last" and isfinite(candidate.searched_last)
    return candidate.searched_last if known else candidate.searched


def _number(metric: str) -> Callable[..., str]:
    """Return a function that formats a figure, with its sign if wanted; empty text for what is not finite."""
    points = in_points(metric)

    def number(value: float, signed: bool = False) -> str:
        return number_text(value, points, signed=signed) if isfinite(value) else ""

    return number
