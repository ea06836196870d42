"""Ensembles from stored predictions: the probabilities of several runs, or of several snapshots of a run, averaged clip by clip, without
training or predicting again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.bootstrap import Interval, figure_intervals
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.scores import read_predictions, read_snapshots
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.training.predictions import corpus_predictions

__all__ = ["Ensemble", "average_predictions", "ensemble", "ensemble_runs"]

_GROUPS = ("arm", "suite", "cross-validation", "confirmation")


@dataclass(frozen=True)
class Ensemble:
    """Several models as one classifier, on the validation clips of their runs.

    runs: those averaged. n_members: models that judge each clip. weights: of which epoch. predictions: the averaged probabilities.
    single: metric -> mean figure of one model, its predictions pooled over folds. figures: metric -> the ensemble's figure with its
    interval over clips. snapshots: models that each run gave, 0 where it gave that of `weights`. last: metric -> figure of the runs' last
    epochs, likewise pooled and averaged, beside which snapshots are to be seen; empty without them.
    """

    runs: tuple[RunInfo, ...]
    n_members: int
    weights: str
    predictions: Predictions
    single: dict[str, float]
    figures: dict[str, Interval]
    snapshots: int = 0
    last: dict[str, float] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What the figures are of, in words."""
        if self.snapshots:
            one = len(self.runs) == 1
            return (
                f"a snapshot ensemble of {self.snapshots} snapshots of {'one run' if one else f'each of {len(self.runs)} runs'}, "
                f"{self.n_members} models for each of {len(self.predictions):,} clips: it costs no further training, but "
                f"{self.n_members} times one model's computation. It is not the result of the run{'' if one else 's'}, whose recorded "
                "figures and verdicts are of single models"
            )
        return (
            f"{len(self.runs)} runs, {self.n_members} models for each of {len(self.predictions):,} clips, weights of the {self.weights} "
            f"epoch: an ensemble costs {self.n_members} times one model's computation"
        )


def average_predictions(members: Sequence[Predictions], corpus: Corpus) -> tuple[Predictions, tuple[Predictions, ...]]:
    """Average the probabilities of each clip over the models that predict it.

    Returns the averaged predictions, and one model's predictions of all clips for each place in the ensemble: the k-th of every clip,
    in the order of `members`.

    Raises:
        UserError: for clips that are predicted by different numbers of models.
    """
    rows = np.concatenate([p.rows for p in members])
    values: NDArray[Any] = np.concatenate([p.scores for p in members])
    order = np.argsort(rows, kind="stable")
    clips, counts = np.unique(rows, return_counts=True)
    if counts.min() != counts.max():
        few, many = corpus.ids[int(clips[counts.argmin()])], corpus.ids[int(clips[counts.argmax()])]
        raise UserError(
            f"an ensemble judges each clip by as many models: {few!r} is a validation clip of {counts.min()} of these runs, {many!r} of "
            f"{counts.max()}. Name runs with the same folds for each seed"
        )
    stacked = values[order].reshape(len(clips), int(counts[0]), -1)  # (n_clips, n_members, n_classes)
    single = tuple(corpus_predictions(corpus, clips, stacked[:, k]) for k in range(stacked.shape[1]))
    return replace(single[0], scores=stacked.mean(axis=1)), single


def ensemble_runs(
    workspace: Workspace,
    references: Sequence[str],
    weights: Literal["best", "last"] = "last",
    snapshots: int | Literal["all"] | None = None,
) -> Ensemble:
    """Average the stored predictions of recorded runs on their validation clips.

    Args:
        references: ids, beginnings of ids, or names of runs, or of an arm or cross-validation: all complete runs below it.
        weights: of the last epoch, which nobody chose, or of the best.
        snapshots: average what each run predicted at the end of this many cycles of its learning rate instead, the last ones, or
            of all (Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017).

    Raises:
        UserError: for a run that is not found, of other data, without predictions or snapshots; for fewer than two models a clip.
    """
    if snapshots is not None and weights == "best":
        raise UserError("snapshots are of the cycles' ends, not of the best epoch: leave out --weights best")
    tracker = Tracker(workspace)
    infos = _runs(tracker, references)
    first = infos[0]
    corpus = open_corpus(workspace, recorded_experiment(tracker, first).data)
    last = []
    for info in infos:
        if info.tags.get("data.digest") != corpus.digest:
            raise UserError(f"{info.name} ({info.run_id[:8]}) was trained on other data than {corpus.name!r} holds now")
        found = read_predictions(tracker, info.run_id, corpus, weights)
        if found is None:
            raise UserError(f"{info.name} ({info.run_id[:8]}) is {info.state}: it has no stored predictions")
        last.append(found)
    kept = [[member] for member in last] if snapshots is None else _snapshots(tracker, infos, corpus, snapshots)
    averaged, single = average_predictions([member for members in kept for member in members], corpus)
    if len(single) < 2:
        raise UserError(
            f"an ensemble takes two models or more for each clip: these {len(infos)} runs have no validation clip in common. "
            "Train more seeds: --seeds 3"
        )
    figures = figure_intervals(averaged)
    one, own = _mean_figures(single, figures), {}
    if snapshots is not None:
        own = _mean_figures(average_predictions(last, corpus)[1], figures)
    n_snapshots = 0 if snapshots is None else len(kept[0])
    return Ensemble(tuple(infos), len(single), weights, averaged, one, figures, n_snapshots, own)


def ensemble(
    *runs: Any,
    workspace: Workspace | Path | str | None = None,
    weights: Literal["best", "last"] = "last",
    snapshots: int | Literal["all"] | None = None,
) -> Ensemble:
    """Average the stored predictions of runs clip by clip, as `audio-cls compare --average` does.

    Args:
        runs: opened runs, ids, beginnings of ids, or names; an arm or cross-validation stands for the runs below it.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        weights: of the "last" epoch, which nobody chose, or of the "best".
        snapshots: average snapshots of each run instead, what it predicted at the ends of the cycles of `schedule=cosine_restarts`:
            the last so many, or "all".

    Raises:
        UserError: as `ensemble_runs`.
    """
    return ensemble_runs(Workspace.of(workspace), [str(getattr(run, "id", run)) for run in runs], weights, snapshots)


def _mean_figures(models: Sequence[Predictions], names: Iterable[str]) -> dict[str, float]:
    """Return metric -> mean over models."""
    return {name: float(np.mean([model.evaluation.overall[name] for model in models])) for name in names}


def _snapshots(
    tracker: Tracker, infos: Sequence[RunInfo], corpus: Corpus, n_last: int | Literal["all"]
) -> list[list[Predictions]]:
    """Return the last snapshots of each run, in order of the epochs.

    Raises:
        UserError: where a run has none, fewer than are asked for, or another number of them than the first.
    """
    if n_last != "all" and n_last < 2:
        raise UserError(f"an ensemble takes two snapshots or more of each run, found {n_last}")
    kept: list[list[Predictions]] = []
    for info in infos:
        found = read_snapshots(tracker, info, corpus)
        if not found:
            kind = info.params.get("schedule.kind", "another")
            raise UserError(
                f"{info.name} ({info.run_id[:8]}) has no snapshots: it was trained with schedule.kind={kind}. "
                "schedule=cosine_restarts keeps them"
            )
        n_asked = max(2, len(kept[0]) if kept else len(found)) if n_last == "all" else n_last
        if len(found) < n_asked or (n_last == "all" and len(found) > n_asked):
            few = f"{info.name} ({info.run_id[:8]}) has {len(found)} snapshots, and {n_asked} of each run are asked for"
            raise UserError(few + (": name how many to take of the last" if n_last == "all" else ""))
        kept.append(found[-n_asked:])
    return kept


def _runs(tracker: Tracker, references: Sequence[str]) -> list[RunInfo]:
    """Return the runs that are meant, each once, sorted by seed: what stands below an arm or a cross-validation instead of it."""
    found: dict[str, RunInfo] = {}
    for reference in references:
        info = tracker.resolve(reference)
        below = [info]
        if info.tags.get("kind") in _GROUPS:
            below = tracker.runs(None, f"tags.mlflow.parentRunId = '{info.run_id}'")
            below = [run for run in below if run.state == "COMPLETE" and run.tags.get("kind") not in _GROUPS]
            if not below:
                hint = ": name one of its arms" if info.tags.get("kind") == "suite" else ""
                raise UserError(f"{info.name} ({info.run_id[:8]}) has no complete run below it{hint}")
        found |= {run.run_id: run for run in below}
    if not found:
        raise UserError("name the runs to average: ids, beginnings of ids, or names; or an arm or cross-validation")
    return sorted(found.values(), key=lambda run: (int(run.tags.get("seed", 0) or 0), run.name, run.run_id))
