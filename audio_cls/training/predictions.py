"""Predictions of a corpus's clips, and their table in a run's artifacts: the probability of every class for every clip."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audio_cls.core.device import choose_precision
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.windows import WindowScores
from audio_cls.experiment import Chain
from audio_cls.metrics.predictions import Predictions
from audio_cls.training.batches import Batches
from audio_cls.training.divergence import check_logits

__all__ = [
    "LAST_SCORES",
    "SCORES",
    "SNAPSHOTS",
    "Scores",
    "autocast",
    "corpus_predictions",
    "evaluate_clips",
    "predict",
    "predict_clips",
    "probabilities",
    "read_scores",
    "scores_csv",
    "snapshot_scores",
]

SCORES = "scores.csv"
"""The artifact with the validation probabilities of the best epoch's weights."""

LAST_SCORES = "scores_last.csv"
"""The same of the last epoch's weights."""

SNAPSHOTS = "snapshots"
"""Tag of a run: the epochs, from 1, whose validation probabilities are kept for a snapshot ensemble, as in "6, 12, 18"; absent for none."""


def snapshot_scores(epoch: int) -> str:
    """Return the name of the artifact with the validation probabilities of a snapshot; epochs count from 1."""
    return f"snapshots/scores_{epoch:04d}.csv"


@dataclass(frozen=True, eq=False)
class Scores:
    """clips: (n,) ids. classes: (n_classes,) names. values: (n, n_classes) probabilities."""

    clips: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.float64]


def corpus_predictions(corpus: Corpus, rows: NDArray[np.int64], scores: NDArray[Any] | None = None) -> Predictions:
    """`Predictions` of some clips of a corpus.

    Args:
        rows: (n,) of the corpus.
        scores: (n, n_classes) probabilities; zeros, to be replaced, where nothing has been predicted yet.
    """
    targets, ids = np.asarray(corpus.targets[rows]), corpus.ids
    return Predictions(
        clips=tuple(ids[int(i)] for i in rows),
        scores=np.zeros(targets.shape) if scores is None else scores,
        targets=targets,
        classes=tuple(corpus.classes),
        task=corpus.task,
        groups=tuple(corpus.resampling_groups(rows)),
        rows=np.asarray(rows),
        families=corpus.family_columns,
    )


def autocast(precision: Any, device: torch.device) -> torch.autocast:
    """Return the context in which a model computes in the experiment's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=choose_precision(precision, device) == "bf16")


@torch.inference_mode()
def predict(chain: Chain, batches: Batches, clips: np.ndarray) -> torch.Tensor:
    """Return logits of some clips, (n, n_classes) float32 on the CPU, without augmentation: of the windows that `data.evaluation` asks for,
    combined.
    """
    chain.classifier.eval()
    windows, precision = batches.experiment.data.evaluation, batches.experiment.training.precision
    n_classes = batches.targets.shape[1]
    combined = (
        WindowScores(len(clips), n_classes, batches.corpus.task, windows.combined_by) if windows.combined_by else None
    )
    out = []
    for batch in batches.evaluate(clips, windows=windows):
        with autocast(precision, batches.device):
            logits = chain.classifier(batch.x).float().cpu()
        if combined is None:
            out.append(logits)
        else:
            assert batch.asked is not None, "a batch of evaluation"
            combined.add(batch.asked, logits.numpy())
    if combined is not None:
        return torch.from_numpy(combined.logits()).float()
    return torch.cat(out) if out else torch.empty(0, n_classes)


def probabilities(logits: torch.Tensor, task: str) -> np.ndarray:
    """Softmax for one label a clip, sigmoid for several; (n, n_classes) float64."""
    wide = logits.double()
    return (torch.softmax(wide, 1) if task == "multiclass" else torch.sigmoid(wide)).numpy()


def predict_clips(
    chain: Chain, batches: Batches, asked: Predictions, when: str = "in evaluation"
) -> tuple[Predictions, torch.Tensor]:
    """Predict the clips of `asked`, whose scores are replaced; returns the predictions and the logits behind them.

    Raises:
        Diverged: for logits that are not finite; `when` joins the message ("after epoch 3").
    """
    logits = predict(chain, batches, asked.rows)
    check_logits(logits, asked.clips, when)
    return replace(asked, scores=probabilities(logits, asked.task)), logits


def evaluate_clips(
    chain: Chain, batches: Batches, asked: Predictions, prefix: str, when: str = "in evaluation"
) -> tuple[dict[str, float], Predictions]:
    """Predict and score the clips of `asked`; returns `<prefix>loss`, `<prefix>accuracy`, ..., and the predictions.

    Raises:
        Diverged: for logits that are not finite; `when` joins the message.
    """
    began = time.perf_counter()
    predictions, logits = predict_clips(chain, batches, asked, when)
    y = batches.targets[torch.as_tensor(asked.rows, device=batches.device)]
    loss = float(chain.loss(logits.to(batches.device), y))
    row = {f"{prefix}loss": loss} | {f"{prefix}{k}": v for k, v in predictions.evaluation.overall.items()}
    row["time/evaluate_seconds"] = time.perf_counter() - began
    return row, predictions


def scores_csv(clips: Sequence[str], values: NDArray[Any], classes: Sequence[str]) -> str:
    """Return one row for each clip: its id, then a probability for each class, with all its digits: figures computed
    from them again are the same.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", *classes])
    for clip, row in zip(clips, np.asarray(values).tolist(), strict=True):
        writer.writerow([clip, *map(repr, row)])
    return text.getvalue()


def read_scores(path: Path) -> Scores:
    """Read what `scores_csv` wrote.

    Raises:
        UserError: for a file that is not such a table, naming the row.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:1] != ["clip"]:
            raise UserError(f"{path}: expected a table that begins with 'clip', found {header[:1]}")
        clips, values = [], []
        for number, row in enumerate(rows, start=2):
            try:
                clips.append(row[0])
                values.append([float(v) for v in row[1:]])
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells for {len(header)} columns")
            except (ValueError, IndexError) as error:
                raise UserError(f"{path}, row {number}: {error}") from None
    return Scores(tuple(clips), tuple(header[1:]), np.array(values, dtype=np.float64).reshape(len(clips), -1))
