"""Ensembles from stored predictions: the probabilities of several runs averaged clip by clip, without training or predicting again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from audio_cls.runs.scores import read_predictions
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.training.predictions import corpus_predictions

__all__ = ["Ensemble", "average_predictions", "ensemble", "ensemble_runs"]

_GROUPS = ("arm", "suite", "cross-validation", "confirmation")


@dataclass(frozen=True)
class Ensemble:
    """Several runs as one classifier, on their validation clips.

    runs: those averaged. n_members: models that judge each clip. weights: of which epoch. predictions: the averaged probabilities.
    single: metric -> mean figure of one model, its predictions pooled over folds. figures: metric -> the ensemble's figure with its
    interval over clips.
    """

    runs: tuple[RunInfo, ...]
    n_members: int
    weights: str
    predictions: Predictions
    single: dict[str, float]
    figures: dict[str, Interval]

    @property
    def sentence(self) -> str:
        """What the figures are of, in words."""
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
    workspace: Workspace, references: Sequence[str], weights: Literal["best", "last"] = "last"
) -> Ensemble:
    """Average the stored predictions of recorded runs on their validation clips.

    Args:
        references: ids, beginnings of ids, or names of runs, or of an arm or cross-validation: all complete runs below it.
        weights: of the last epoch, which nobody chose, or of the best.

    Raises:
        UserError: for a run that is not found, of other data, without predictions; for fewer than two models a clip.
    """
    tracker = Tracker(workspace)
    infos = _runs(tracker, references)
    first = infos[0]
    corpus = open_corpus(workspace, recorded_experiment(tracker, first).data)
    members = []
    for info in infos:
        if info.tags.get("data.digest") != corpus.digest:
            raise UserError(f"{info.name} ({info.run_id[:8]}) was trained on other data than {corpus.name!r} holds now")
        found = read_predictions(tracker, info.run_id, corpus, weights)
        if found is None:
            raise UserError(f"{info.name} ({info.run_id[:8]}) is {info.state}: it has no stored predictions")
        members.append(found)
    averaged, single = average_predictions(members, corpus)
    if len(single) < 2:
        raise UserError(
            f"an ensemble takes two models or more for each clip: these {len(infos)} runs have no validation clip in common. "
            "Train more seeds: --seeds 3"
        )
    figures = figure_intervals(averaged)
    one = {name: float(np.mean([s.evaluation.overall[name] for s in single])) for name in figures}
    return Ensemble(tuple(infos), len(single), weights, averaged, one, figures)


def ensemble(
    *runs: Any, workspace: Workspace | Path | str | None = None, weights: Literal["best", "last"] = "last"
) -> Ensemble:
    """Average the stored predictions of runs clip by clip, as `audio-cls compare --average` does.

    Args:
        runs: opened runs, ids, beginnings of ids, or names; an arm or cross-validation stands for the runs below it.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        weights: of the "last" epoch, which nobody chose, or of the "best".

    Raises:
        UserError: as `ensemble_runs`.
    """
    return ensemble_runs(Workspace.of(workspace), [str(getattr(run, "id", run)) for run in runs], weights)


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
