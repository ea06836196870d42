"""Clips to try a model on: some of its validation clips, where their corpus is here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.inference.opening import find_run
from audio_cls.runs.evaluation import check_same_data
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.scores import read_predictions
from audio_cls.tracking import Tracker

__all__ = ["validation_examples"]

EXAMPLES = 10  # at most; one of each class first


def validation_examples(name: str, tracker: Tracker, folder: Path) -> list[tuple[str, Path]]:
    """Write some of a run's validation clips as WAV files.

    Args:
        name: of a run or study, as `open_labellers` takes it.
        folder: where the files go.

    Returns:
        the true labels and the file of each clip; none where the run's corpus is not here or has changed, or `name` is no run.
    """
    import soundfile

    try:
        info = find_run(name, tracker)
        corpus = open_corpus(tracker.workspace, recorded_experiment(tracker, info).data)
        check_same_data(corpus, info)
        predictions = read_predictions(tracker, info.run_id, corpus)
    except (UserError, OSError):
        return []
    if predictions is None or not len(predictions.rows) or not corpus.payload.is_waveform:
        return []
    out: list[tuple[str, Path]] = []
    for at in _one_of_each(np.asarray(predictions.targets))[:EXAMPLES]:
        row = int(predictions.rows[at])
        labels = [predictions.classes[k] for k in np.flatnonzero(predictions.targets[at] > 0.5).tolist()]
        stem = re.sub(r"[^\w.-]+", "-", Path(corpus.ids[row]).stem)[:60] or "clip"
        path = folder / f"{len(out) + 1:02d}-{stem}.wav"
        soundfile.write(path, corpus.waveform(row), corpus.sample_rate, subtype="PCM_16")
        out.append((", ".join(labels) or "no label", path))
    return out


def _one_of_each(targets: np.ndarray) -> list[int]:
    """Return clips in order, the first of each class before the others."""
    first = [int(column.argmax()) for column in targets.T > 0.5 if column.any()]
    return list(dict.fromkeys(first))
