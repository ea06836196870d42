"""Stored predictions of a suite's runs: pooled over folds, paired between arms."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from audio_cls.ablation.declaration import Cell
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.scores import read_predictions
from audio_cls.training.predictions import corpus_predictions

if TYPE_CHECKING:
    from audio_cls.tracking import Run, Tracker

__all__ = [
    "log_out_of_fold",
    "pool",
    "pooled_by_seed",
]


def pool(parts: Iterable[Predictions], corpus: Corpus) -> Predictions:
    """Return predictions of several runs one below the other, sorted by clip."""
    items = list(parts)
    rows = np.concatenate([p.rows for p in items])
    order = np.argsort(rows, kind="stable")
    return corpus_predictions(corpus, rows[order], np.concatenate([p.scores for p in items])[order])


def pooled_by_seed(cells: Mapping[Cell, Predictions], folds: Sequence[int], corpus: Corpus) -> dict[int, Predictions]:
    """Return out-of-fold predictions: for each seed of which all folds are there, each clip predicted by the run that
    held it out.
    """
    seeds = sorted({seed for seed, _ in cells})
    whole = [s for s in seeds if all((s, fold) in cells for fold in folds)]
    return {s: pool((cells[s, fold] for fold in folds), corpus) for s in whole}


def log_out_of_fold(run: Run, tracker: Tracker, runs: Mapping[Cell, str], corpus: Corpus) -> dict[str, float]:
    """Pool the predictions of runs by (seed, fold) for each seed whose folds are all there, and record with `run` a table of them
    (`predictions_oof.csv`) and their figures, the mean over seeds: `best/oof_...` of the best epochs, `last/oof_...` of the last.

    Pooled figures are no means of the folds' figures: F1 and AUC are computed once, over all clips. Returned as recorded; empty
    where a fold is missing.
    """
    folds = sorted({fold for _, fold in runs})
    figures: dict[str, float] = {}
    for select in ("best", "last"):
        found = {cell: read_predictions(tracker, run_id, corpus, select) for cell, run_id in runs.items()}
        cells = {cell: scores for cell, scores in found.items() if scores is not None}
        seeds = pooled_by_seed(cells, folds, corpus)
        if not seeds:
            return {}
        overall = [s.evaluation.overall for s in seeds.values()]
        figures |= {f"{select}/oof_{key}": float(np.mean([o[key] for o in overall])) for key in overall[0]}
        if select == "best":
            held_out = {(seed, int(c)): fold for (seed, fold), s in cells.items() for c in s.rows}
            run.artifact_text("predictions_oof.csv", _oof_csv(seeds, held_out, corpus))
    run.final(figures)
    return figures


def _oof_csv(seeds: Mapping[int, Predictions], held_out: Mapping[tuple[int, int], int], corpus: Corpus) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "seed", "fold", "true", "predicted", *corpus.classes])
    for seed, scores in seeds.items():
        called = scores.called
        for row, clip in enumerate(scores.rows.tolist()):
            truth, guess = (
                ";".join(corpus.classes[k] for k in np.flatnonzero(mask))
                for mask in (corpus.targets[clip] > 0.5, called[row])
            )
            values = (f"{v:.6g}" for v in scores.scores[row])
            writer.writerow([corpus.ids[clip], seed, held_out[seed, clip], truth, guess, *values])
    return text.getvalue()
